"""Recording where the daemon goes away, or turns the viewer away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from orchestrator import record
from orchestrator.__main__ import main
from orchestrator.client import ConnectError, Viewer
from orchestrator.client.frames import Frame
from orchestrator.constant_rate import ConstantRate
from orchestrator.record import Recording
from pipeline.encoding import encode
from pipeline.errors import SinkError
from pipeline.types import ImageFormat

av = pytest.importorskip("av", reason="PyAV is not installed")

FPS = 30.0


class ScriptedViewer:
    """Gives some frames in their time, and then none, or an error."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self._frames: Iterator[int] = iter(range(count))
        self._error = error
        self._began_s = time.monotonic()

    async def frame(self) -> Frame:
        number = next(self._frames, None)
        if number is None:
            if self._error is not None:
                raise self._error
            await asyncio.Event().wait()
            raise AssertionError
        await asyncio.sleep(self._began_s + number / FPS - time.monotonic())
        return picture(number)


def picture(number: int, image: bytes | None = None) -> Frame:
    shade = np.full((64, 64, 3), 10 * number, np.uint8)
    jpeg = encode(shade, ImageFormat.JPEG, 90) if image is None else image
    return Frame(seq=number, pts_ms=1000.0 * number / FPS, dropped=0, image=jpeg)


async def filled(path: Path, viewer: ScriptedViewer, seconds: float | None) -> Recording:
    most = None if seconds is None else round(seconds * FPS)
    recording = Recording(path, ConstantRate(FPS, most), FPS)
    with ThreadPoolExecutor(1) as writer:
        try:
            async with asyncio.timeout(20):
                stop = asyncio.Event()
                await record._fill(recording, cast(Viewer, viewer), seconds, stop, writer)
        finally:
            recording.give_up()
    return recording


def shades(path: Path) -> list[int]:
    with av.open(str(path)) as file:
        return [round(float(f.to_ndarray(format="gray").mean())) for f in file.decode(video=0)]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["face.gif"], "face.gif: expected a file that ends in one of .mp4, .webm"),
        (["none/face.mp4"], "there is no folder none"),
        (["face.mp4", "--seconds", "0"], "--seconds: expected more than 0"),
        (["face.mp4", "--seconds", "nan"], "--seconds: expected more than 0"),
        (["face.mp4", "--fps", "999"], "--fps: expected 1 to 240"),
    ],
)
def test_a_wrong_option_is_named(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is dialled."""
    assert main(["record", *arguments]) == 78
    assert problem in capsys.readouterr().err


async def test_a_daemon_that_goes_away_leaves_a_file_of_the_wanted_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last frame stands for what did not come."""
    monkeypatch.setattr(record, "OVERTIME_S", 0.2)
    path = tmp_path / "a.mp4"
    recording = await filled(path, ScriptedViewer(5), 0.5)
    seen = shades(path)
    assert len(seen) == recording.grid.filled == 15
    assert recording.grid.repeated >= 10
    assert seen[-10:] == [seen[4]] * 10


async def test_a_viewer_that_is_turned_away_keeps_what_it_has(tmp_path: Path) -> None:
    """Such as by a stage that is removed; before the first frame it is an error."""
    refusal = ConnectError("ws://x", "there is no stage 'a'", 404)
    recording = await filled(tmp_path / "a.mp4", ScriptedViewer(6, refusal), None)
    assert len(shades(tmp_path / "a.mp4")) == recording.grid.filled >= 6
    with pytest.raises(ConnectError):
        await filled(tmp_path / "b.mp4", ScriptedViewer(0, refusal), None)
    assert shades(tmp_path / "a.mp4")
    assert not (tmp_path / "b.mp4").exists()


def test_a_picture_that_is_none_is_reported(tmp_path: Path) -> None:
    """And the recording given up."""
    recording = Recording(tmp_path / "a.mp4", ConstantRate(FPS), FPS)
    recording.take(picture(0), 0.0)
    with pytest.raises(SinkError, match="a picture that is none"):
        recording.take(picture(1, b"\xff\xd8 no JPEG"), 0.1)
    recording.give_up()
    assert list(tmp_path.iterdir()) == []


def test_what_was_missed_is_counted_from_the_first_frame(tmp_path: Path) -> None:
    """While it got ready, a viewer may have missed some: they are not of the recording."""
    recording = Recording(tmp_path / "a.mp4", ConstantRate(FPS), FPS)
    for number, dropped in ((0, 7), (1, 7), (4, 9)):
        frame = picture(number)
        fields = {name: getattr(frame, name) for name in frame.__struct_fields__}
        recording.take(Frame(**fields | {"dropped": dropped}), number / FPS)
    assert (recording.missed, recording.grid.repeated) == (2, 2)
    recording.finish(0)
    assert len(shades(tmp_path / "a.mp4")) == 5
