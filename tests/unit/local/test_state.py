from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from tenantry.errors import SetupError
from tenantry.local.state import ChildStatus, Running, StateFolder


def running(url: str = "nats://here") -> Running:
    child = ChildStatus(name="a", pid=42, birth="7")
    return Running(supervisor=1, birth="1", url=url, started=time.time(), children=(child,))


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder.open(tmp_path / "state")


def test_a_new_folder_is_for_its_owner_alone(folder: StateFolder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_a_folder_opens_again(folder: StateFolder) -> None:
    assert StateFolder.open(folder.path).path == folder.path


def test_an_empty_folder_may_become_one(tmp_path: Path) -> None:
    assert StateFolder.open(tmp_path).exists


def test_a_folder_with_other_things_may_not(tmp_path: Path) -> None:
    (tmp_path / "thing").touch()
    with pytest.raises(SetupError, match="no state folder of Tenantry"):
        StateFolder.open(tmp_path)


def test_a_file_may_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="is not a folder"):
        StateFolder.open(tmp_path / "file")


def test_a_newer_format_is_refused(folder: StateFolder) -> None:
    (folder.path / "state.json").write_text('{"format": 99}')
    with pytest.raises(SetupError, match="has format 99, this version knows 1"):
        StateFolder.open(folder.path)


def test_a_folder_that_is_only_looked_at_is_not_made(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "none")
    assert (folder.exists, folder.in_use(), folder.running()) == (False, False, None)
    assert not folder.path.exists()


def test_a_held_folder_is_in_use(folder: StateFolder) -> None:
    with folder.locked():
        assert folder.in_use()
    assert not folder.in_use()


def test_a_held_folder_is_refused_with_the_url_of_who_holds_it(folder: StateFolder) -> None:
    folder.write_running(running())
    with (
        folder.locked(),
        pytest.raises(SetupError, match="is in use by the mesh at nats://here") as caught,
        folder.locked(),
    ):
        pass
    assert caught.value.hint.startswith(f"stop it with `tenantry down --state {folder.path}`")


def test_a_look_does_not_keep_others_out(folder: StateFolder) -> None:
    handle = os.open(folder.path / "lock", os.O_RDONLY)
    assert not folder.in_use()
    os.close(handle)
    with folder.locked():
        pass


def test_what_runs_is_read_back(folder: StateFolder) -> None:
    folder.write_running(running())
    found = folder.running()
    assert found is not None
    assert found.processes() == [(42, "7")]


def test_a_damaged_note_counts_as_none(folder: StateFolder) -> None:
    (folder.path / "pids" / "up.json").write_text("{")
    assert folder.running() is None
