"""The state file: whole or not at all."""

import asyncio
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.state_file import FILE_NAME, MAX_BYTES, StateFile, StateSaver

STAGES = {"main": {"character": "astronaut", "mood": None}}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """A fresh directory gives nothing; after a save it gives what was saved."""
    state = StateFile(tmp_path / "deep" / "state")
    assert state.load() == {}
    state.save(STAGES)
    assert StateFile(tmp_path / "deep" / "state").load() == STAGES


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"format": 2, "stages": {}}', b'{"format": 1}', b"\xff\xfe",
     b'{"format": 1, "stages": [1]}', b"x" * (MAX_BYTES + 1)],
)  # fmt: skip
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    """Anything that is not a state file of ours starts the daemon afresh instead of failing."""
    (tmp_path / FILE_NAME).write_bytes(content)
    assert StateFile(tmp_path).load() == {}


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fills up while writing, the earlier state and no litter remain."""
    state = StateFile(tmp_path)
    state.save(STAGES)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        state.save({"main": {"character": "other"}})
    assert state.load() == STAGES
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_the_file_is_readable_json(tmp_path: Path) -> None:
    """Support can read it."""
    StateFile(tmp_path).save(STAGES)
    assert json.loads((tmp_path / FILE_NAME).read_text())["stages"] == STAGES


async def test_what_changes_while_it_is_saved_is_saved_next(tmp_path: Path) -> None:
    """No change waits for the next interval."""
    memory: dict[str, dict[str, str]] = {"main": {"character": "first"}}
    files = ThreadPoolExecutor(1)
    saver = StateSaver(StateFile(tmp_path), lambda: {k: dict(v) for k, v in memory.items()}, files)
    gate = threading.Event()
    files.submit(gate.wait, 10.0)
    try:
        saver.soon()
        await asyncio.sleep(0.01)
        memory["main"]["character"] = "second"
        saver.soon()
        gate.set()
        async with asyncio.timeout(10.0):
            while StateFile(tmp_path).load() != {"main": {"character": "second"}}:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert saver._soon is not None
        await saver._soon
    finally:
        gate.set()
        files.shutdown()


async def test_why_nothing_is_saved_is_known_until_it_is(tmp_path: Path) -> None:
    """The saver says what is in the way, and has nothing to say once it is gone."""
    folder = tmp_path / "state"
    folder.write_text("in the way")
    with ThreadPoolExecutor(1) as files:
        saver = StateSaver(StateFile(folder), lambda: STAGES, files)
        assert saver.problem is None
        await saver.now()
        assert saver.problem is not None
        assert "state" in saver.problem
        folder.unlink()
        await saver.now()
        assert saver.problem is None
    assert StateFile(folder).load() == STAGES


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path: Path) -> None:
    """The next run reads the last whole state and leaves no other file behind."""
    StateFile(tmp_path).save(STAGES)
    (tmp_path / ".state-abc123").write_text('{"format": 1, "sta')
    state = StateFile(tmp_path)
    state.clean_up()
    assert state.load() == STAGES
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
