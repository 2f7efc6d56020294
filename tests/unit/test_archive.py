"""Zips made record by record, read by other people's programs."""

import io
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncedrop_ingest.archive import Archive, Crc32

MADE = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
SMALL, LARGE = 1000, 5 * 2**30


def packed(files: Sequence[tuple[str, bytes]], most_bytes: int = SMALL) -> tuple[bytes, str]:
    archive = Archive(most_bytes, MADE)
    out = bytearray()
    for name, body in files:
        out += archive.begin(name, len(out))
        crc = Crc32()
        for start in range(0, len(body), 7):
            crc.update(body[start : start + 7])
        out += body
        out += archive.end(len(body), crc.value)
    out += archive.directory(len(out))
    return bytes(out), archive.name


@pytest.mark.parametrize("most_bytes", [SMALL, LARGE])
def test_what_goes_in_comes_out(most_bytes: int) -> None:
    files = [("a.txt", b"first"), ("ünï/😀.bin", bytes(range(256))), ("empty", b"")]
    data, _ = packed(files, most_bytes)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert [(i.filename, archive.read(i)) for i in archive.infolist()] == files
        info = archive.infolist()[1]
        assert info.date_time == (2026, 3, 1, 12, 34, 56)
        assert info.compress_type == zipfile.ZIP_STORED
        assert info.flag_bits == 0x808
        assert info.external_attr >> 16 == 0o100644


@pytest.mark.parametrize("most_bytes", [SMALL, LARGE])
@pytest.mark.skipif(shutil.which("unzip") is None, reason="no unzip here")
def test_unzip_finds_no_fault(most_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(packed([("a.txt", b"first"), ("b/ü", b"second")], most_bytes)[0])
    done = subprocess.run(["unzip", "-t", path], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("most_bytes", [SMALL, LARGE])
def test_every_local_header_and_descriptor_agrees_with_the_directory(most_bytes: int) -> None:
    data, _ = packed([("a", b"12345"), ("b", b"")], most_bytes)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            at = info.header_offset
            signature, version = struct.unpack_from("<4sH", data, at)
            name_bytes, extra_bytes = struct.unpack_from("<2H", data, at + 26)
            assert signature == b"PK\x03\x04"
            assert version == (45 if most_bytes == LARGE else 20)
            descriptor = at + 30 + name_bytes + extra_bytes + info.file_size
            layout = "<4sL2Q" if most_bytes == LARGE else "<4s3L"
            assert struct.unpack_from(layout, data, descriptor) == (
                b"PK\x07\x08",
                info.CRC,
                info.file_size,
                info.file_size,
            )


def test_files_and_offsets_beyond_4_gib_are_found(tmp_path: Path) -> None:
    """The first file is a hole of 4.5 GiB; it is not read, the second one behind it is."""
    hole = 9 * 2**29
    archive = Archive(LARGE, MADE)
    path = tmp_path / "large.zip"
    with path.open("wb") as file:
        file.write(archive.begin("hole", 0))
        file.seek(hole, io.SEEK_CUR)
        file.write(archive.end(hole, 0))
        file.write(archive.begin("behind", file.tell()))
        crc = Crc32()
        crc.update(b"still here")
        file.write(b"still here")
        file.write(archive.end(10, crc.value))
        file.write(archive.directory(file.tell()))
    with zipfile.ZipFile(path) as read:
        hole_info, behind = read.infolist()
        assert (hole_info.file_size, hole_info.compress_size) == (hole, hole)
        assert behind.header_offset > hole
        assert read.read(behind) == b"still here"
    if shutil.which("unzip"):
        done = subprocess.run(
            ["unzip", "-p", path, "behind"], capture_output=True, timeout=30, check=False
        )
        assert (done.returncode, done.stdout) == (0, b"still here")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], "files.zip"),
        (["photos/a", "photos/b"], "photos.zip"),
        (["photos/a", "photos/sub/b"], "photos.zip"),
        (["photos/a", "b"], "files.zip"),
        (["photos/a", "films/b"], "files.zip"),
        (["../../etc/a", "../../etc/b"], "etc.zip"),
    ],
)
def test_an_archive_is_called_by_its_folder(names: list[str], expected: str) -> None:
    assert packed([(name, b"") for name in names])[1] == expected


def test_equal_names_are_numbered_and_hostile_ones_made_harmless() -> None:
    names = [
        "a.txt",
        "A.TXT",
        "../../a.txt",
        "C:\\windows\\x",
        "/etc/passwd",
        "",
        "n\0l",
        "\u202egpj",
    ]
    data, _ = packed([(name, b"") for name in names])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = archive.namelist()
    assert found[:3] == ["a.txt", "A (2).TXT", "a (3).txt"]
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        assert not name.startswith("/")
        assert not set(name) & set('\\:\0"\u202e')
        assert not {"", ".", ".."} & set(name.split("/"))


@given(
    st.lists(st.tuples(st.text(max_size=30), st.binary(max_size=50)), min_size=1, max_size=6),
    st.sampled_from([SMALL, LARGE]),
)
def test_any_files_come_out_as_they_went_in(
    files: list[tuple[str, bytes]], most_bytes: int
) -> None:
    data, name = packed(files, most_bytes)
    assert name.endswith(".zip")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert [archive.read(info) for info in archive.infolist()] == [body for _, body in files]
