"""The file that holds one tenant's journal: whole, or refused with one clear error."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tenantry.errors import SetupError
from tenantry.journal import archive
from tenantry.journal.archive import Head, Line

HEAD = Head(
    format=archive.FORMAT,
    version=1,
    tenant="acme",
    journal="0123456789ab",
    since=1,
    until=9,
    exported=1.0,
)


def line(seq: int, action: str = "orders.import", data: bytes = b"\x00\xff") -> Line:
    return Line(seq=seq, time=1.5, action=action, headers={"A": "ü"}, data=data)


def write(path: Path, *lines: Line, head: Head = HEAD) -> Path:
    with archive.create(path) as file:
        writer = archive.Writer(file, head)
        for each in lines:
            writer.add(each)
        writer.finish()
    return path


@pytest.fixture(params=["a.jsonl", "a.jsonl.gz"])
def good(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / request.param, line(1), line(5), line(7))


def altered(path: Path, change: Callable[[bytes], bytes]) -> Path:
    packed = path.suffix == ".gz"
    text = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    assert change(text) != text
    path.write_bytes(gzip.compress(change(text)) if packed else change(text))
    return path


def test_what_was_written_is_read(good: Path) -> None:
    summary = archive.check(good)
    assert (summary.head, summary.count) == (HEAD, 3)
    assert (summary.first, summary.last) == (line(1), line(7))
    assert list(archive.read(good)) == [line(1), line(5), line(7)]


def test_the_hash_is_of_all_lines_but_the_last(tmp_path: Path) -> None:
    path = write(tmp_path / "a", line(1))
    lines = path.read_bytes().splitlines(keepends=True)
    assert archive.check(path).sha256 == hashlib.sha256(b"".join(lines[:-1])).hexdigest()


def test_an_empty_journal_is_a_file_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    assert (archive.check(path).count, list(archive.read(path))) == (0, [])


def test_the_file_is_for_its_owner_alone(good: Path) -> None:
    assert good.stat().st_mode & 0o777 == 0o600


def test_a_file_is_not_written_over(good: Path) -> None:
    before = good.read_bytes()
    with pytest.raises(SetupError, match="exists already"):
        write(good)
    assert good.read_bytes() == before


def test_a_file_is_written_over_by_force(good: Path) -> None:
    with archive.create(good, force=True) as file:
        archive.Writer(file, HEAD).finish()
    assert archive.check(good).count == 0


def test_a_file_that_comes_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(SetupError, match="exists already"), archive.create(path) as file:
        path.write_text("precious")
        archive.Writer(file, HEAD).finish()
    assert path.read_text() == "precious"


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), archive.create(tmp_path / "a") as file:
        archive.Writer(file, HEAD)
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_text("half")
    assert archive.check(write(tmp_path / "a", line(1))).count == 1
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="can't be written: No such file or directory"):
        write(tmp_path / "no" / "a")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="can't be read: No such file or directory"):
        archive.check(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace(b'"seq":5', b'"seq":6'), "was altered"),
        (lambda text: text.replace(b'"tenant":"acme"', b'"tenant":"evil"'), "was altered"),
        (lambda text: b"".join(text.splitlines(True)[:2] + text.splitlines(True)[3:]), "altered"),
        (lambda text: b"".join(text.splitlines(True)[:-1]), "cut short"),
        (lambda text: text[:-30], "cut short"),
        (lambda text: text[:200], "cut short"),
        (lambda text: text + b"{}\n", "goes on after its end"),
        (lambda text: text.replace(b'"seq":5', b'"seq":1'), "out of order at message 2"),
        (lambda text: text.replace(b'"seq":5', b'"seq":0'), "broken after message 1"),
        (lambda text: text.replace(b"orders.import", b"orders.im>ort"), "names no action"),
        (lambda text: text.replace(b"AP8=", b"?P8="), "broken after message 0"),
        (lambda text: text.replace(b"tenantry-journal", b"another"), "no exported journal"),
        (lambda text: text.replace(b"acme", b"*"), "no exported journal"),
        (lambda text: text.replace(b'"version":1', b'"version":2'), "version 2"),
        (lambda _: b"", "no exported journal"),
        (lambda _: b"\xff\xfe\n", "no exported journal"),
        (lambda _: b"[" * 100_000, "no exported journal"),
    ],
)
def test_another_file_is_refused(good: Path, change: Callable[[bytes], bytes], why: str) -> None:
    with pytest.raises(SetupError, match=why):
        archive.check(altered(good, change))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MAX_LINE", 1_000)
    path = write(tmp_path / "a", line(1, data=bytes(2_000)))
    with pytest.raises(SetupError, match="too long"):
        archive.check(path)


@pytest.mark.parametrize("cut", [3, 40, -1])
def test_a_packed_file_that_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.gz", *(line(seq) for seq in range(1, 50)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SetupError, match="cut short"):
        archive.check(path)


def test_a_packed_file_with_a_bad_byte_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", *(line(seq) for seq in range(1, 50)))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(SetupError, match=r"broken|altered|unpacked|cut short"):
        archive.check(path)
