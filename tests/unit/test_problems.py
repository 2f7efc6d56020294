"""Every error has its answer, and the answer says no more than the error does."""

import json
from collections.abc import Iterator

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from oncedrop_common import errors
from oncedrop_common.drops import DropId, GoneReason
from oncedrop_common.errors import OncedropError
from oncedrop_common.pages import Pages
from oncedrop_common.problems import ROWS, TYPE_PREFIX, Problems, problem_of

DROP_ID = DropId("0123456789abcdef0123456789abcdef")
GONE_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z
PROGRAM = "*/*"
PERSON = "text/html,*/*;q=0.8"

EXAMPLES: list[tuple[OncedropError, int, dict[str, str], dict[str, object]]] = [
    (errors.RequestInvalid("Bad ttl.", field="ttl"), 400, {}, {"field": "ttl"}),
    (errors.UploadIncomplete("Too short."), 400, {}, {}),
    (errors.UploadTooLarge(1000), 413, {}, {"limit": 1000}),
    (errors.UploadUnauthorized("No."), 401, {"www-authenticate": 'Bearer realm="oncedrop"'}, {}),
    (errors.AdminUnauthorized("No."), 401, {"www-authenticate": 'Bearer realm="oncedrop"'}, {}),
    (
        errors.PasswordNeeded("It has one.", drop_id=DROP_ID),
        401,
        {"www-authenticate": 'Basic realm="oncedrop", charset="UTF-8"'},
        {"drop_id": DROP_ID},
    ),
    (
        errors.PasswordWrong("Wrong."),
        401,
        {"www-authenticate": 'Basic realm="oncedrop", charset="UTF-8"'},
        {},
    ),
    (
        errors.RateLimited("Slow down.", retry_after_seconds=900),
        429,
        {"retry-after": "900"},
        {"retry_after": 900},
    ),
    (errors.LinkUnknown("Unknown."), 404, {}, {}),
    (
        errors.DropGone("Used.", drop_id=DROP_ID, reason=GoneReason.DELIVERED, gone_ms=GONE_MS),
        410,
        {},
        {"reason": "delivered", "gone_at": "2026-03-01T12:00:00Z", "drop_id": DROP_ID},
    ),
    (
        errors.ClaimHeld("Busy.", drop_id=DROP_ID, retry_after_seconds=0),
        409,
        {"retry-after": "1"},
        {"retry_after": 1},
    ),
    (errors.ConditionFailed("No match."), 412, {}, {}),
    (errors.RangeUnsatisfiable(77), 416, {"content-range": "bytes */77"}, {}),
    (errors.MethodUnsupported(("GET", "HEAD")), 405, {"allow": "GET, HEAD"}, {}),
    (errors.StoreUnavailable("Away."), 503, {"retry-after": "5"}, {}),
    (errors.VolumeUnavailable("Away."), 503, {"retry-after": "5"}, {}),
    (errors.VolumeFull("Full."), 507, {}, {}),
    (errors.BlobMissing("Missing."), 503, {"retry-after": "60"}, {}),
    (errors.BlobDamaged("Damaged."), 503, {"retry-after": "600"}, {}),
    (errors.SweepGuarded("Stopped."), 503, {"retry-after": "600"}, {}),
]


def leaves(of: type[OncedropError] = OncedropError) -> Iterator[type[OncedropError]]:
    below = of.__subclasses__()
    if not below:
        yield of
    for child in below:
        yield from leaves(child)


def request(accept: str) -> Request:
    return Request({"type": "http", "method": "GET", "headers": [(b"accept", accept.encode())]})


def problems() -> Problems:
    return Problems(Pages())


def test_every_leaf_of_the_error_tree_has_a_row() -> None:
    assert set(leaves()) - {errors.ConfigurationError} == set(ROWS)


def test_every_leaf_has_an_example_here() -> None:
    assert {type(exc) for exc, *_ in EXAMPLES} == set(ROWS)


def test_slugs_are_distinct() -> None:
    slugs = [leaf.slug for leaf in leaves()]
    assert len(set(slugs)) == len(slugs)


@pytest.mark.parametrize(
    ("exc", "status", "headers", "members"), EXAMPLES, ids=[e.slug for e, *_ in EXAMPLES]
)
async def test_a_program_gets_a_problem_document(
    exc: OncedropError, status: int, headers: dict[str, str], members: dict[str, object]
) -> None:
    response = await problems().answer(request(PROGRAM), exc)
    document = json.loads(bytes(response.body))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert headers.items() <= dict(response.headers).items()
    assert document.pop("title")
    expected = {"type": TYPE_PREFIX + exc.slug, "status": status, "detail": exc.detail, **members}
    assert expected.items() <= document.items()


@pytest.mark.parametrize(("exc", "status", "headers"), [e[:3] for e in EXAMPLES])
async def test_a_person_gets_a_page_and_no_dialog(
    exc: OncedropError, status: int, headers: dict[str, str]
) -> None:
    response = await problems().answer(request(PERSON), exc)
    assert response.status_code == status
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<h1>" in bytes(response.body)
    assert not response.headers.get("www-authenticate", "").startswith("Basic")
    assert response.headers.get("retry-after") == headers.get("retry-after")


@pytest.mark.parametrize("reason", [*GoneReason, None])
async def test_each_reason_to_be_gone_has_words_of_its_own(reason: GoneReason | None) -> None:
    pages = []
    for each in (reason, GoneReason.EXPIRED, GoneReason.LOCKED):
        exc = errors.DropGone("Gone.", drop_id=DROP_ID, reason=each, gone_ms=GONE_MS)
        response = await problems().answer(request(PERSON), exc)
        pages.append(bytes(response.body).partition(b"<h1>")[2].partition(b"</h1>")[0])
    assert pages[0]
    assert pages[0] != b"The file is gone"
    assert len(set(pages)) == len({reason, GoneReason.EXPIRED, GoneReason.LOCKED})


@pytest.mark.parametrize("exc", [e[0] for e in EXAMPLES], ids=[e[0].slug for e in EXAMPLES])
@pytest.mark.parametrize("language", ["en", "de", "fr"])
async def test_every_error_has_words_for_people_in_their_language(
    exc: OncedropError, language: str
) -> None:
    asked = Request(
        {
            "type": "http",
            "method": "GET",
            "headers": [(b"accept", PERSON.encode()), (b"accept-language", language.encode())],
        }
    )
    html = bytes((await problems().answer(asked, exc)).body).decode()
    lead = html.partition('<p class="lead">')[2].partition("</p>")[0]
    assert lead
    assert lead != exc.detail, "that is for programs"
    assert f'lang="{language}"' in html


async def test_being_taken_is_told_without_a_time_that_nobody_knows() -> None:
    exc = errors.DropGone("Being taken.", drop_id=DROP_ID, reason=None, gone_ms=0)
    document = json.loads(bytes((await problems().answer(request(PROGRAM), exc)).body))
    assert document["reason"] == "claimed"
    assert "gone_at" not in document


async def test_an_unexpected_error_tells_nothing() -> None:
    for accept in (PROGRAM, PERSON):
        response = await problems().answer(request(accept), ValueError("the secret sauce"))
        assert response.status_code == 500
        assert b"sauce" not in bytes(response.body)
        assert b"ValueError" not in bytes(response.body)


def test_only_unexpected_errors_need_a_traceback() -> None:
    assert all(problem_of(exc).expected for exc, *_ in EXAMPLES)
    assert not problem_of(KeyError("x")).expected
    assert not problem_of(errors.ConfigurationError("too late")).expected


def test_starlettes_own_errors_have_answers() -> None:
    not_found = problem_of(HTTPException(404))
    other = problem_of(HTTPException(415, detail="not repeated"))
    assert (not_found.slug, not_found.status) == ("not_found", 404)
    assert (other.slug, other.status) == ("http_415", 415)
    assert "repeated" not in other.detail


async def test_a_service_can_show_its_own_page_to_people() -> None:
    async def form(_request: Request, exc: errors.PasswordWrong, status: int) -> Response:
        return PlainTextResponse(f"form: {exc.detail}", status)

    answers = Problems(Pages(), {errors.PasswordWrong: form})
    exc = errors.PasswordWrong("Wrong.")
    page = await answers.answer(request(PERSON), exc)
    document = await answers.answer(request(PROGRAM), exc)
    assert page.body == b"form: Wrong."
    assert page.status_code == 401
    assert "www-authenticate" not in page.headers
    assert document.headers["content-type"] == "application/problem+json"


async def test_a_service_page_that_cannot_be_made_becomes_an_ordinary_problem() -> None:
    async def form(_request: Request, _exc: OncedropError, _status: int) -> Response:
        raise errors.StoreUnavailable("Away.")

    answers = Problems(Pages(), {errors.RequestError: form})
    page = await answers.answer(request(PERSON), errors.PasswordNeeded("It has one."))
    assert page.status_code == 503
    assert page.headers["retry-after"] == "5"


async def test_words_of_an_error_are_escaped_on_its_page() -> None:
    exc = errors.RequestInvalid("Bad <script>alert(1)</script>.", field="ttl")
    page = bytes((await problems().answer(request(PERSON), exc)).body)
    assert b"<script>" not in page
    assert b"&lt;script&gt;" in page
