from __future__ import annotations

from pathlib import Path

from tenantry.local.logfile import LogFile


def test_lines_are_in_the_file_and_in_memory(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    log.write(b"one\r")
    log.write(b"two")
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"one\ntwo\n"
    assert list(log.last) == ["one", "two"]


def test_lines_are_echoed(tmp_path: Path) -> None:
    heard: list[str] = []
    log = LogFile(tmp_path / "a.log", echo=heard.append)
    log.write(b"caf\xc3\xa9 \xff")
    log.close()
    assert heard == ["café \N{REPLACEMENT CHARACTER}"]


def test_a_file_that_grows_too_large_is_put_aside_once(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", limit=10)
    for text in (b"first line", b"second line", b"third"):
        log.write(text)
    log.close()
    assert (tmp_path / "a.log").read_text() == "third\n"
    assert (tmp_path / "a.log.1").read_text() == "second line\n"


def test_a_file_that_can_not_be_written_stops_nobody(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "none" / "a.log")
    log.write(b"still here")
    assert list(log.last) == ["still here"]
