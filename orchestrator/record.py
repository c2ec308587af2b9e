"""`avatar-orchestrator record`: what a viewer of a running daemon sees, as a video file."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import Final, TextIO

import httpx

from orchestrator.client import ConnectError, Viewer
from orchestrator.client.frames import Frame
from orchestrator.constant_rate import ConstantRate
from orchestrator.lifecycle import ExitStatus, first_of, signals_to
from orchestrator.send import DaemonUnreachableError, chosen_url, own_tls, own_url
from orchestrator.settings import MAIN_STAGE, Settings
from orchestrator.video import VideoFile, check_video
from pipeline.encoding import decode_jpeg
from pipeline.errors import ConfigError, SinkError

ASK_S: Final = 5.0
OVERTIME_S: Final = 1.0
"""A frame of the last place may take so long to come; what is missing then is filled up."""
MAX_SECONDS: Final = 86_400.0


@dataclass(slots=True)
class Recording:
    """Frames as they come, to a video file of constant frame rate.

    The methods that write belong to one thread.

    Args:
        path: of the file.
        grid: where the frames belong.
        fps: of the file.

    Attributes:
        missed: frames that the daemon published and that did not come.
    """

    path: Path
    grid: ConstantRate
    fps: float
    file: VideoFile | None = None
    missed: int = 0
    _newest: bytes | None = None
    _missed_before: int = 0

    def take(self, frame: Frame, arrived_s: float) -> None:
        """Put a frame, and what is missing before it, into the file.

        Raises:
            StorageError: the file cannot be written.
            SinkError: the frame is no picture.
        """
        place = self.grid.place(frame.pts_ms / 1000.0, arrived_s)
        if self._newest is None:
            self._missed_before = frame.dropped
        self.missed = frame.dropped - self._missed_before
        self._repeat(place.repeats)
        if place.keep:
            self._newest = frame.image
            self._write(1)

    def finish(self, places: int) -> None:
        """Fill up to that many places, and finish the file.

        Raises:
            StorageError: the file cannot be written.
        """
        self._repeat(self.grid.fill(places))
        if self.file is not None:
            self.file.finish()

    def give_up(self) -> None:
        """Leave no file, unless it is finished."""
        if self.file is not None:
            self.file.give_up()

    def _repeat(self, times: int) -> None:
        if times:
            self._write(times)

    def _write(self, times: int) -> None:
        assert self._newest is not None
        try:
            image = decode_jpeg(self._newest)
        except ValueError as error:
            raise SinkError(f"the daemon sent a picture that is none: {error}") from error
        if self.file is None:
            height, width = image.shape[:2]
            self.file = VideoFile(self.path, self.fps, (width - width % 2, height - height % 2))
        self.file.write(image, times)


def record(settings: Settings, options: argparse.Namespace, out: TextIO) -> int:
    """Record until the file is full, or a signal comes; both leave a whole file.

    Raises:
        ConfigError: an option is wrong, or no encoder is installed.
        ConnectError: the daemon does not want this viewer.
        DaemonUnreachableError: there is no daemon, or no such stage.
        StorageError: the file cannot be written.
    """
    seconds = options.seconds
    if seconds is not None and not 0.0 < seconds <= MAX_SECONDS:
        raise ConfigError("--seconds", f"expected more than 0, at most {MAX_SECONDS:g}")
    chosen_url(settings, options, "v1/frames")
    check_video(options.out, 30.0 if options.fps is None else options.fps)
    return asyncio.run(_record(settings, options, out))


async def _record(settings: Settings, options: argparse.Namespace, out: TextIO) -> int:
    url = (options.url or own_url(settings)).rstrip("/")
    token = settings.auth.token or None
    tls = None if options.url else own_tls(settings)
    stop = asyncio.Event()
    with signals_to(stop.set, stop.set), ThreadPoolExecutor(1, "video") as writer:
        stage_fps = await _stage_fps(url, token, options.stage or MAIN_STAGE, tls)
        fps = stage_fps if options.fps is None else options.fps
        async with Viewer(url, token=token, stage=options.stage, ssl=tls) as viewer:
            most = None if options.seconds is None else max(1, round(options.seconds * fps))
            recording = Recording(options.out, ConstantRate(fps, most), fps)
            out.write(f"recording {url} at {fps:g} fps; Ctrl-C ends it\n")
            out.flush()
            try:
                await _fill(recording, viewer, options.seconds, stop, writer)
            except BaseException:
                recording.give_up()
                raise
            away = not viewer.connected
    return _report(recording, away, out)


async def _fill(
    recording: Recording,
    viewer: Viewer,
    seconds: float | None,
    stop: asyncio.Event,
    writer: ThreadPoolExecutor,
) -> None:
    """Take frames until the file is full, its time is over, or `stop` is set; then finish it."""
    loop = asyncio.get_running_loop()

    async def written(job: Callable[[], None]) -> None:
        await loop.run_in_executor(writer, job)

    places = 0
    begun_s: float | None = None
    last_s = time.monotonic()
    while not recording.grid.full:
        left_s = None
        if seconds is not None and begun_s is not None:
            left_s = max(0.0, begun_s + seconds + OVERTIME_S - time.monotonic())
        try:
            frame = await first_of(asyncio.wait_for(viewer.frame(), left_s), stop)
        except TimeoutError:
            places = recording.grid.most or 0
            break
        except ConnectError:
            # Turned away, such as by a stage that was removed: what there is is worth keeping.
            if begun_s is None:
                raise
            break
        if frame is None:
            break
        last_s = time.monotonic()
        begun_s = last_s if begun_s is None else begun_s
        await written(partial(recording.take, frame, last_s))
    if begun_s is not None and time.monotonic() - last_s > OVERTIME_S:
        # The daemon is away, and time went on without it.
        places = max(places, round((time.monotonic() - begun_s) * recording.fps))
    await written(partial(recording.finish, places))


async def _stage_fps(
    url: str, token: str | None, stage: str, tls: SSLContext | None = None
) -> float:
    """What the stage's frame clock is set to.

    Raises:
        DaemonUnreachableError: there is no daemon, no such stage, or it does not want to tell.
    """
    address = url.replace("ws", "http", 1) if url.startswith("ws") else url
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with httpx.AsyncClient(timeout=ASK_S, headers=headers, verify=tls or True) as client:
            answer = await client.get(f"{address}/v1/stages")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DaemonUnreachableError(f"no answer from {address}: {error}") from error
    try:
        body = answer.json()
        if answer.is_error:
            raise DaemonUnreachableError(f"{address} refused: {body['error']['message']}")
        found = {str(each["name"]): float(each["fps"]) for each in body["stages"]}
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{address}/v1/stages is no list of stages; is that this daemon?"
        raise DaemonUnreachableError(problem) from error
    if stage not in found:
        problem = f"there is no stage {stage!r} at {address}; there is {', '.join(found)}"
        raise DaemonUnreachableError(problem)
    return found[stage]


def _report(recording: Recording, away: bool, out: TextIO) -> int:
    grid, file = recording.grid, recording.file
    if file is None:
        out.write("no frame came; nothing is written\n")
        return ExitStatus.UNAVAILABLE
    out.write(
        f"{recording.path}: {grid.filled} frames, {grid.filled / recording.fps:.3f} s at "
        f"{recording.fps:g} fps, {file.codec}; {grid.repeated} repeated, {grid.dropped} dropped, "
        f"{recording.missed} missed\n"
    )
    if away:
        out.write("warning: the daemon was not there at the end; the last frame stands for it\n")
    return ExitStatus.OK
