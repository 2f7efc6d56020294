"""The drop's words, its secrets, and the header page that a blob begins with."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncedrop_common import blob_header, tokens
from oncedrop_common.blob_header import HEADER_BYTES, BlobHeader, HeaderInvalid
from oncedrop_common.drops import (
    CONTENT_TYPE_MAX_BYTES,
    NAME_MAX_BYTES,
    Claim,
    ClaimHash,
    Confirm,
    Drop,
    DropId,
    DropMeta,
    DropState,
    IfInterrupted,
)

TOKEN = "AAAAAAAAAAAAAAAAAAAAAA"
DROP_ID = DropId("0123456789abcdef0123456789abcdef")
CLAIM_HASH = ClaimHash("fedcba9876543210fedcba9876543210")

milliseconds = st.integers(0, 10**14 - 1)
hex_digits = st.text("0123456789abcdef", min_size=32, max_size=32)
headers = st.builds(
    BlobHeader,
    drop_id=hex_digits.map(DropId),
    meta=st.builds(
        DropMeta,
        name=st.text(st.characters(codec="utf-8"), max_size=NAME_MAX_BYTES // 4),
        content_type=st.text(st.characters(codec="ascii"), max_size=CONTENT_TYPE_MAX_BYTES),
        size=st.integers(0, 10**14 - 1),
        sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
        created_ms=milliseconds,
        expires_ms=milliseconds,
        owner_hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
        max_downloads=st.integers(1, 1000),
        if_interrupted=st.sampled_from(IfInterrupted),
        resume=st.booleans(),
        confirm=st.sampled_from(Confirm),
        password_hash=st.text(st.characters(codec="ascii"), max_size=120),
    ),
    body_offset=st.integers(HEADER_BYTES, 64 * 1024),
)


def meta() -> DropMeta:
    return DropMeta(
        name="report.pdf",
        content_type="application/pdf",
        size=4,
        sha256=hashlib.sha256(b"once").hexdigest(),
        created_ms=1,
        expires_ms=2,
        owner_hash=tokens.owner_hash(TOKEN),
    )


def page_holding(document: object, *, version: int = 1, body_offset: int = HEADER_BYTES) -> bytes:
    """A page with this JSON and a right checksum, laid out as the module documents it."""
    text = json.dumps(document).encode()
    fixed = struct.pack(">HIQ", version, len(text), body_offset)
    page = b"oncedrop" + fixed + hashlib.sha256(fixed + text).digest() + text
    return page.ljust(HEADER_BYTES, b"\0")


def meaningful_bytes(page: bytes) -> int:
    """Where the zeros begin that fill the page up."""
    return len(page.rstrip(b"\0"))


# --- secrets


def test_a_minted_secret_is_128_bits_in_canonical_form() -> None:
    secret = tokens.mint()
    assert tokens.is_secret(secret)
    assert len(base64.urlsafe_b64decode(secret + "==")) == tokens.SECRET_BYTES


def test_minted_secrets_differ() -> None:
    assert len({tokens.mint() for _ in range(1000)}) == 1000


@given(st.binary(min_size=16, max_size=16))
def test_every_16_bytes_have_one_canonical_form(raw: bytes) -> None:
    secret = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert tokens.is_secret(secret)
    # The last character carries 2 bits; its 15 neighbours decode to the same bytes.
    twins = [
        secret[:-1] + last
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if base64.urlsafe_b64decode(secret[:-1] + last + "==") == raw
    ]
    assert len(twins) == 16
    assert [twin for twin in twins if tokens.is_secret(twin)] == [secret]


@pytest.mark.parametrize(
    "text",
    [
        "",
        TOKEN[:-1],
        TOKEN + "A",
        TOKEN + "\n",
        "\n" + TOKEN,
        TOKEN + "=",
        TOKEN + "/",
        TOKEN[:-1] + "B",
        "+" + TOKEN[1:],
        "/" + TOKEN[1:],
        " " + TOKEN[1:],
        "." + TOKEN[1:],
        "é" + TOKEN[1:],
        "\uff21" + TOKEN[1:],
        "\u0661" + TOKEN[1:],
        "\0" + TOKEN[1:],
    ],
)
def test_another_form_is_no_secret(text: str) -> None:
    assert not tokens.is_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        DROP_ID[:-1],
        DROP_ID + "0",
        DROP_ID + "\n",
        DROP_ID.upper(),
        "g" + DROP_ID[1:],
        "\u0661" + DROP_ID[1:],
        "../" + DROP_ID[3:],
    ],
)
def test_another_form_is_no_drop_id(text: str) -> None:
    assert tokens.is_drop_id(DROP_ID)
    assert not tokens.is_drop_id(text)


def test_the_digests_stay_what_they_are() -> None:
    # A change would orphan every stored drop.
    assert tokens.drop_id(TOKEN) == hashlib.sha256(b"oncedrop:" + TOKEN.encode()).hexdigest()[:32]
    assert tokens.drop_id(TOKEN) == "9bfa080e5c8a97c9791cf81c691cc1e9"
    assert tokens.claim_hash(TOKEN) == "e2d5a1347b184e2e2b64c4d5500d07f9"
    assert (
        tokens.owner_hash(TOKEN)
        == "b403bbddf67b35acf76fcac5c8486e1be3fd2c459915fc82504d95c600401790"
    )


@given(st.binary(min_size=16, max_size=16))
def test_one_secret_has_unrelated_digests_for_each_purpose(raw: bytes) -> None:
    secret = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    drop_id, claim, owner = (
        tokens.drop_id(secret),
        tokens.claim_hash(secret),
        tokens.owner_hash(secret),
    )
    assert len({drop_id, claim, owner[:32]}) == 3
    assert tokens.is_drop_id(drop_id)
    assert tokens.is_drop_id(claim)
    assert re.fullmatch(r"[0-9a-f]{64}", owner)
    assert secret not in drop_id + claim + owner


def test_an_owner_key_matches_its_digest_only() -> None:
    key, other = tokens.mint(), tokens.mint()
    assert tokens.owner_key_matches(key, tokens.owner_hash(key))
    assert not tokens.owner_key_matches(other, tokens.owner_hash(key))
    assert not tokens.owner_key_matches(key, "")


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_same_secret_is_equality(given_text: str, expected: str) -> None:
    assert tokens.same_secret(given_text, expected) == (given_text == expected)
    assert tokens.same_secret(expected, expected)


# --- the header page


@given(headers)
def test_a_header_comes_back_from_its_page(header: BlobHeader) -> None:
    page = blob_header.pack(header)
    assert len(page) == HEADER_BYTES
    assert blob_header.parse(page) == header
    assert blob_header.parse(page + b"the body") == header


@settings(max_examples=10)
@given(headers, st.integers(1, 255))
def test_a_changed_byte_is_noticed(header: BlobHeader, flip: int) -> None:
    page = blob_header.pack(header)
    for at in range(meaningful_bytes(page)):
        damaged = bytearray(page)
        damaged[at] ^= flip
        with pytest.raises(HeaderInvalid):
            blob_header.parse(bytes(damaged))


@given(headers, st.data())
def test_a_page_cut_short_or_shifted_is_refused(header: BlobHeader, data: st.DataObject) -> None:
    page = blob_header.pack(header)
    cut = data.draw(st.integers(1, HEADER_BYTES))
    for damaged in (page[:-cut], page[cut:].ljust(HEADER_BYTES, b"\0"), b"\0" * cut + page):
        with pytest.raises(HeaderInvalid):
            blob_header.parse(damaged)


@given(st.binary(max_size=64).map(lambda b: (b"oncedrop" + b).ljust(HEADER_BYTES, b"\0")))
def test_bytes_of_somebody_else_are_refused(page: bytes) -> None:
    with pytest.raises(HeaderInvalid):
        blob_header.parse(page)


def test_the_layout_is_the_documented_one() -> None:
    document = {"drop_id": DROP_ID, **dataclasses.asdict(meta())}
    assert blob_header.parse(page_holding(document)) == BlobHeader(DROP_ID, meta())


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_another_layout_version_is_refused(version: int) -> None:
    document = {"drop_id": DROP_ID, **dataclasses.asdict(meta())}
    with pytest.raises(HeaderInvalid, match="version"):
        blob_header.parse(page_holding(document, version=version))


@pytest.mark.parametrize("body_offset", [0, HEADER_BYTES - 1, 64 * 1024 + 1, 2**63])
def test_a_body_outside_its_place_is_refused(body_offset: int) -> None:
    document = {"drop_id": DROP_ID, **dataclasses.asdict(meta())}
    with pytest.raises(HeaderInvalid, match="offset"):
        blob_header.parse(page_holding(document, body_offset=body_offset))


@pytest.mark.parametrize(
    "change",
    [
        {"drop_id": "../../etc/passwd"},
        {"drop_id": DROP_ID.upper()},
        {"if_interrupted": "explode"},
        {"confirm": None},
        {"unheard_of": 1},
    ],
)
def test_content_that_is_no_drop_is_refused(change: dict[str, object]) -> None:
    document = {"drop_id": DROP_ID, **dataclasses.asdict(meta())}
    with pytest.raises(HeaderInvalid):
        blob_header.parse(page_holding(document | change))


@pytest.mark.parametrize("missing", ["drop_id", "name", "sha256", "if_interrupted", "confirm"])
def test_a_missing_field_is_refused(missing: str) -> None:
    document = {"drop_id": DROP_ID, **dataclasses.asdict(meta())}
    del document[missing]
    with pytest.raises(HeaderInvalid):
        blob_header.parse(page_holding(document))


@pytest.mark.parametrize("document", [None, 1, "text", [], ["drop_id"], {}])
def test_json_that_is_no_object_of_ours_is_refused(document: object) -> None:
    with pytest.raises(HeaderInvalid):
        blob_header.parse(page_holding(document))


def test_the_longest_metadata_fits_the_page() -> None:
    fullest = dataclasses.replace(
        meta(),
        name='"' * NAME_MAX_BYTES,
        content_type="x" * CONTENT_TYPE_MAX_BYTES,
        size=10**14 - 1,
        created_ms=10**14 - 1,
        expires_ms=10**14 - 1,
        max_downloads=1000,
        if_interrupted=IfInterrupted.RESTORE,
        confirm=Confirm.ALWAYS,
        password_hash="$" * 256,
    )
    header = BlobHeader(DROP_ID, fullest)
    assert blob_header.parse(blob_header.pack(header)) == header


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("x" * (NAME_MAX_BYTES + 1), "text/plain"),
        ("é" * (NAME_MAX_BYTES // 2 + 1), "text/plain"),
        ("\ud800", "text/plain"),
        ("x", "y" * (CONTENT_TYPE_MAX_BYTES + 1)),
    ],
)
def test_metadata_beyond_its_cap_is_not_packed(name: str, content_type: str) -> None:
    overlong = dataclasses.replace(meta(), name=name, content_type=content_type)
    with pytest.raises(ValueError, match=r"."):
        blob_header.pack(BlobHeader(DROP_ID, overlong))


# --- drops


def drop(state: DropState, *claims: Claim, now_ms: int = 0, expires_ms: int = 100) -> Drop:
    return Drop(
        drop_id=DROP_ID,
        state=state,
        revision=1,
        now_ms=now_ms,
        expires_ms=expires_ms,
        upload_deadline_ms=50,
        claims=claims,
    )


def claim(deadline_ms: int = 10, *, closed: bool = False) -> Claim:
    return Claim(CLAIM_HASH, started_ms=0, deadline_ms=deadline_ms, closed=closed)


@pytest.mark.parametrize(
    ("acknowledged", "count"),
    [((), 0), (((0, 10),), 10), (((1, 10),), 9), (((0, 4), (6, 10)), 8)],
)
def test_a_claim_counts_what_was_acknowledged(
    acknowledged: tuple[tuple[int, int], ...], count: int
) -> None:
    taken = dataclasses.replace(claim(), acknowledged=acknowledged)
    assert taken.acknowledged_bytes == count


@pytest.mark.parametrize(
    ("state", "now_ms", "expired"),
    [
        (DropState.READY, 99, False),
        (DropState.READY, 100, True),
        (DropState.CLAIMED, 100, True),
        (DropState.UPLOADING, 100, False),
        (DropState.GONE, 100, False),
    ],
)
def test_a_drop_expires_at_its_millisecond(*, state: DropState, now_ms: int, expired: bool) -> None:
    assert drop(state, now_ms=now_ms).expired is expired


@pytest.mark.parametrize(
    ("state", "claims", "due_ms"),
    [
        (DropState.UPLOADING, (), 50),
        (DropState.GONE, (), 0),
        (DropState.READY, (), 100),
        (DropState.READY, (claim(10), claim(20)), 10),
        (DropState.READY, (claim(200),), 100),
        (DropState.CLAIMED, (claim(200),), 200),
        (DropState.CLAIMED, (claim(200), claim(300, closed=True)), 0),
    ],
)
def test_a_drop_is_due_at_its_first_deadline(
    state: DropState, claims: tuple[Claim, ...], due_ms: int
) -> None:
    assert drop(state, *claims).due_ms == due_ms


def test_a_claim_is_found_by_its_hash() -> None:
    taken = claim()
    assert drop(DropState.CLAIMED, taken).claim(CLAIM_HASH) is taken
    assert drop(DropState.CLAIMED, taken).claim(ClaimHash("0" * 32)) is None


def test_what_is_known_of_a_drop_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        meta().size = 5  # type: ignore[misc]
