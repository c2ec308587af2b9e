"""Recording a running daemon, and drawing what it showed once more."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from orchestrator.characters import CharacterBook
from orchestrator.client import Viewer
from orchestrator.event_log_reader import read_runs
from orchestrator.expression.emotions import EmotionTable
from orchestrator.playback import Playback
from orchestrator.settings import default_config_dir
from pipeline.encoding import encode
from pipeline.frame_cache import quantise
from pipeline.mesh.renderer import MeshRenderer
from pipeline.types import ImageFormat
from tests.fakes.daemon import DaemonProcess

QUALITY = 90
SIZE = (256, 192)
COMMAND = [sys.executable, "-m", "orchestrator"]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def daemon(state: Path) -> Iterator[DaemonProcess]:
    """One that keeps an event log."""
    with DaemonProcess(
        state,
        AVATAR_LOG__EVENTS_FILE="logs/events.jsonl",
        AVATAR_STAGE__WIDTH=str(SIZE[0]),
        AVATAR_STAGE__HEIGHT=str(SIZE[1]),
        AVATAR_STAGE__JPEG_QUALITY=str(QUALITY),
    ) as process:
        yield process


def send(daemon: DaemonProcess, **fields: Any) -> None:
    body = {"type": "emotion", "emotion": "surprised", "attack_ms": 150, "hold_ms": 400} | fields
    assert httpx.post(f"{daemon.http}/v1/events", json=body).status_code in (200, 202)


def start_recording(daemon: DaemonProcess, out: Path, *more: str) -> subprocess.Popen[str]:
    """`record`, once it records."""
    process = subprocess.Popen(
        [*COMMAND, "record", str(out), "--url", daemon.http, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"recording {daemon.http} at ")
    return process


def ended(process: subprocess.Popen[str], timeout_s: float = 30.0) -> str:
    """What it said, after it has ended well."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out


def pictures(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Times in seconds and frames of a video file."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    return [frame.time for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


def test_a_recording_is_as_long_as_wanted_and_shows_the_face(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    """Exactly duration times rate frames, at equal intervals, of the stage's size."""
    pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "face.mp4"
    recording = start_recording(daemon, path, "--seconds", "1.5")
    send(daemon, id="recorded")
    said = ended(recording)
    times, frames = pictures(path)
    assert re.search(r"face\.mp4: 45 frames, 1\.500 s at 30 fps, lib", said), said
    assert len(frames) == 45
    assert np.allclose(np.diff(times), 1 / 30, atol=1e-4)
    assert frames[0].shape == (SIZE[1], SIZE[0], 3)
    moved = [np.abs(frame.astype(int) - frames[0]).mean() for frame in frames]
    assert max(moved) > 1.5
    assert [each.name for each in tmp_path.iterdir()] == ["face.mp4"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_recording_and_leaves_a_whole_file(
    daemon: DaemonProcess, tmp_path: Path, how: signal.Signals
) -> None:
    """Ctrl-C is how most recordings end."""
    pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "face.webm"
    recording = start_recording(daemon, path, "--fps", "15")
    with pytest.raises(subprocess.TimeoutExpired):
        recording.wait(0.8)
    recording.send_signal(how)
    found = re.search(r"face\.webm: (\d+) frames, ([\d.]+) s at 15 fps", ended(recording))
    assert found is not None
    _, frames = pictures(path)
    assert len(frames) == int(found[1]) > 5
    assert float(found[2]) == pytest.approx(len(frames) / 15, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--url", "http://127.0.0.1:9"], "no answer from http://127.0.0.1:9: "),
        (["--stage", "none"], "there is no stage 'none'"),
    ],
)
def test_where_there_is_nothing_to_record(
    daemon: DaemonProcess, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    """It says so in one sentence, and no file is left."""
    pytest.importorskip("av", reason="PyAV is not installed")
    where = [] if "--url" in arguments else ["--url", daemon.http]
    done = subprocess.run(
        [*COMMAND, "record", "face.mp4", *arguments, *where],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, problem in done.stderr) == (69, True), done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_a_replay_draws_the_frames_that_were_live(daemon: DaemonProcess, state: Path) -> None:
    """Byte for byte, at the times that the frames' headers say.

    Those are in microseconds, which now and then puts a control into the next step of the
    quantisation; hence a few frames may differ, in a step.
    """
    frames = []
    async with Viewer(daemon.http) as viewer, asyncio.timeout(20):
        await asyncio.to_thread(send, daemon, id="again", mix={"happy": 0.4})
        await asyncio.to_thread(send, daemon, type="state", state="speaking")
        async for frame in viewer:
            frames.append(frame)
            if frame.event is None and any(each.event == "again" for each in frames):
                break
    log = state / "logs" / "events.jsonl"
    async with asyncio.timeout(10):
        while '"again"' not in log.read_text():  # noqa: ASYNC110 - a thread of the daemon writes
            await asyncio.sleep(0.05)
    (run,) = read_runs([log], "main")
    emotions = EmotionTable.load(default_config_dir() / "emotions.toml")
    book = CharacterBook.load(default_config_dir() / "characters", emotions.labels)
    playback, renderer = Playback(run, emotions), MeshRenderer(None)
    prepared = renderer.prepare(book.get("astronaut").load().portrait)
    exact = [frame for frame in frames if frame.degraded is None]
    assert len(exact) > 5
    same = 0
    for frame in exact:
        moment = playback.at(run.opened.t_s + frame.pts_ms / 1000.0)
        assert moment.weights == pytest.approx(frame.emotion, abs=1e-3), frame.seq
        image = renderer.render(prepared, quantise(moment.controls), SIZE)
        same += encode(image, ImageFormat.JPEG, QUALITY) == frame.image
    assert same >= 0.8 * len(exact), f"{same} of {len(exact)}"


def test_the_log_of_a_daemon_is_replayed_from_the_shell(
    daemon: DaemonProcess, state: Path, tmp_path: Path
) -> None:
    """Cues of texts included; twice the same."""
    body = {"type": "text", "id": "t", "delta": "[fear:0.9] oh", "final": True}
    assert httpx.post(f"{daemon.http}/v1/events", json=body).is_success
    log = state / "logs" / "events.jsonl"
    said = []
    for out in ("one", "two"):
        command = [*COMMAND, "replay", str(log), "--fps", "3", "--size", "64"]
        command += ["--out", str(tmp_path / out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.partition("frames")[2])
    assert said[0] == said[1]
    text = (tmp_path / "one" / "frames.jsonl").read_text("utf-8")
    index = [json.loads(line) for line in text.splitlines()]
    assert max(line["emotion"]["fearful"] for line in index) > 0.3
    assert {"t.1", None} <= {line["event"] for line in index}
