"""The daemon as a process: real sockets, real frames, real signals."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.fakes.daemon import DaemonProcess


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon without idle life, so that what moves is what was asked for."""
    state = tmp_path_factory.mktemp("state")
    with DaemonProcess(state, AVATAR_IDLE__ENABLED="false") as process:
        yield process


async def received(connection: ClientConnection, *kinds: str) -> list[dict[str, Any]]:
    """Messages up to the first of one of these types."""
    messages = []
    async with asyncio.timeout(20):
        while True:
            messages.append(json.loads(await connection.recv()))
            if messages[-1]["type"] in kinds:
                return messages


def parsed(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and image of an avf1 message, read as protocol section 2 says."""
    assert message[:4] == b"AVF1"
    (length,) = struct.unpack_from("<I", message, 4)
    return json.loads(message[8 : 8 + length]), message[8 + length :]


def picture(image: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


async def test_an_event_changes_the_face_that_viewers_see(daemon: DaemonProcess) -> None:
    """The frames that the receipts name differ from the neutral one as they say."""
    async with (
        connect(f"{daemon.ws}/v1/events") as producer,
        connect(f"{daemon.ws}/v1/frames", max_size=None) as viewer,
    ):
        hello = json.loads(await producer.recv())
        assert hello["type"] == "hello"
        before, neutral = parsed(await viewer.recv())
        await producer.send(
            json.dumps({"type": "emotion", "id": "e1", "emotion": "amazement", "hold_ms": 800})
        )
        frames: dict[int, tuple[dict[str, Any], bytes]] = {}

        async def watch() -> None:
            async for message in viewer:
                assert isinstance(message, bytes)
                header, image = parsed(message)
                frames[header["seq"]] = (header, image)

        watching = asyncio.create_task(watch())
        messages = await received(producer, "emotion.finished")
        watching.cancel()
    by_type = {message["type"]: message for message in messages}
    assert list(by_type) == [
        "emotion.accepted", "emotion.started", "emotion.peaked", "emotion.finished",
    ]  # fmt: skip
    accepted, started, peaked = list(by_type.values())[:3]
    assert (accepted["used"], accepted["mapped_from"]) == ("surprised", "amazement")
    assert before["seq"] < started["seq"] < peaked["seq"]
    maximum = hello["emotions"]["surprised"]["max"]
    for receipt, share in ((started, 0.1), (peaked, 0.9)):
        header, _ = frames[receipt["seq"]]
        assert header["emotion"]["surprised"] >= share * maximum - 1e-6
        assert header["event"] == "e1"
        assert header["degraded"] is None
    difference = np.abs(picture(frames[peaked["seq"]][1]).astype(int) - picture(neutral)).mean()
    assert difference > 1.5
    assert 0 < started["latency_ms"] < peaked["latency_ms"]


async def test_every_format_and_framing(daemon: DaemonProcess) -> None:
    """jpeg, webp and png, with and without header, are the same face at 512x512."""
    magics = {"jpeg": b"\xff\xd8\xff", "webp": b"RIFF", "png": b"\x89PNG"}
    pictures = []
    for image_format, magic in magics.items():
        query = f"format={image_format}&max_fps=5"
        async with connect(f"{daemon.ws}/v1/frames?{query}", max_size=None) as viewer:
            header, image = parsed(await asyncio.wait_for(viewer.recv(), 10))
        assert header["format"] == image_format
        async with connect(f"{daemon.ws}/v1/frames?{query}&framing=bare", max_size=None) as viewer:
            bare = await asyncio.wait_for(viewer.recv(), 10)
        for data in (image, bare):
            assert data.startswith(magic)
            pictures.append(picture(data).astype(int))
    for other in pictures[1:]:
        assert other.shape == (512, 512, 3)
        assert np.abs(other - pictures[0]).mean() < 3.0


def test_the_http_answers(daemon: DaemonProcess) -> None:
    """Health, readiness, state, characters, expressions, metrics, snapshot, page."""
    with httpx.Client(base_url=daemon.http) as client:
        health = client.get("/health").json()
        assert (health["status"], health["renderer"], health["degraded"]) == ("ok", "mesh", None)
        assert client.get("/ready").status_code == 200
        assert client.get("/v1/state").json()["character"] == "astronaut"
        characters = client.get("/v1/characters").json()
        assert "astronaut" in json.dumps(characters)
        expressions = client.get("/expressions").json()
        assert expressions["expressions"][0] == "neutral"
        assert len(expressions["expressions"]) >= 7
        assert "avatar_frames_published_total" in client.get("/metrics").text
        snapshot = client.get("/v1/snapshot.jpg")
        assert snapshot.headers["content-type"] == "image/jpeg"
        assert picture(snapshot.content).shape == (512, 512, 3)
        assert "<html" in client.get("/").text
        missing = client.get("/v1/nothing")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"]


def test_events_by_post(daemon: DaemonProcess) -> None:
    """POST /v1/events accepts, and refuses with the protocol's error."""
    with httpx.Client(base_url=daemon.http) as client:
        good = client.post("/v1/events", json={"type": "emotion", "emotion": "grief"})
        assert good.status_code == 202
        assert good.json()["type"] == "emotion.accepted"
        assert good.json()["used"] == "sad"
        bad = client.post("/v1/events", json={"type": "emotion", "emotion": "hapy"})
        assert 400 <= bad.status_code < 500
        assert bad.json()["error"]["code"] == "unknown_emotion"
        assert "happy" in bad.json()["error"]["suggestions"]


async def test_a_bad_message_closes_nothing(daemon: DaemonProcess) -> None:
    """After every kind of nonsense the same connection still works."""
    async with connect(f"{daemon.ws}/v1/events") as producer:
        await producer.recv()
        for text, code in (
            ("{", "invalid_json"),
            ("[]", "invalid_message"),
            ('{"type":"dance"}', "unknown_type"),
            ('{"type":"emotion","emotion":"happy","intensity":"much"}', "invalid_message"),
            ('{"type":"emotion","emotion":"happy","stage":"other"}', "unknown_stage"),
        ):
            await producer.send(text)
            answer = json.loads(await producer.recv())
            assert answer["error"]["code"] == code
            assert answer["error"]["message"]
        await producer.send('{"type":"ping","t":[1,2]}')
        assert json.loads(await producer.recv()) == {"type": "pong", "t": [1, 2]}


def test_mjpeg_streams_pictures(daemon: DaemonProcess) -> None:
    """/v1/stream.mjpg is a multipart stream of JPEG files."""
    with httpx.stream("GET", f"{daemon.http}/v1/stream.mjpg") as response:
        assert response.headers["content-type"].startswith("multipart/x-mixed-replace")
        collected = b""
        for chunk in response.iter_raw():
            collected += chunk
            if collected.count(b"\xff\xd8\xff") >= 3:
                break
    assert b"Content-Length" in collected


def test_send_prints_the_receipts(daemon: DaemonProcess) -> None:
    """`send` ends with 0 after the cue's end, and with 1 when it is refused."""
    command = [sys.executable, "-m", "orchestrator", "send", "--url", daemon.http]
    done = subprocess.run(
        [*command, "joy", "--intensity", "0.5", "--hold-ms", "50"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kinds = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert kinds[0] == "emotion.accepted"
    assert kinds[-1] == "emotion.finished"
    refused = subprocess.run(
        [*command, "hapy"], capture_output=True, text=True, timeout=30, check=False
    )
    assert refused.returncode == 1
    assert "unknown_emotion" in refused.stdout


async def test_sigterm_with_200_viewers(tmp_path: Path) -> None:
    """Everything is closed in order within 5 s, exit 0, although a second SIGTERM comes."""
    with DaemonProcess(tmp_path) as process:
        viewers = await asyncio.gather(
            *(connect(f"{process.ws}/v1/frames?max_fps=2", max_size=None) for _ in range(200))
        )
        async with connect(f"{process.ws}/v1/events") as producer:
            await producer.recv()
            process.signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
            process.signal(signal.SIGTERM)
            await asyncio.gather(*(each.wait_closed() for each in viewers))
            await producer.wait_closed()
            status = await asyncio.to_thread(process.wait)
        assert status == 0
        assert {each.close_code for each in viewers} == {1001}
        assert producer.close_code == 1001
        # By the daemon's own clock: this process shares its two cores with other tests.
        begun, ended = (
            datetime.fromisoformat(process.logged(event)[0]["timestamp"])
            for event in ("stopping", "stopped")
        )
        assert (ended - begun).total_seconds() < 5.0
        assert not [line for line in process.log if line.get("level") in ("error", "critical")]


async def test_character_and_mood_survive_a_kill(tmp_path: Path) -> None:
    """After kill -9 the next run shows the character and mood of the last one."""
    characters = tmp_path / "characters"
    astronaut = Path(__file__).parents[2] / "config" / "characters" / "astronaut"
    characters.mkdir()
    for name in ("one", "two"):
        (characters / f"{name}.toml").write_text(
            f'portrait = "{astronaut}/portrait.jpg"\nlandmarks = "{astronaut}/landmarks.json"\n'
        )
    settings = {"AVATAR_CHARACTERS__DIR": str(characters), "AVATAR_STAGE__CHARACTER": "one"}
    with DaemonProcess(tmp_path / "state", **settings) as process:
        async with connect(f"{process.ws}/v1/events") as producer:
            assert json.loads(await producer.recv())["character"] == "one"
            await producer.send('{"type":"character","id":"c","character":"two"}')
            await received(producer, "character.switched")
            mood = {"type": "mood", "valence": 0.8, "arousal": -0.5, "decay_ms": 600_000}
            await producer.send(json.dumps(mood))
            await received(producer, "mood.ok")
            await asyncio.sleep(0.5)
        process.signal(signal.SIGKILL)
        process.wait()
    with DaemonProcess(tmp_path / "state", **settings) as process:
        await asyncio.sleep(1.5)
        async with httpx.AsyncClient() as client:
            state = (await client.get(f"{process.http}/v1/state")).json()
        assert state["character"] == "two"
        assert state["mood"]["valence"] == pytest.approx(0.8, abs=0.1)
        assert process.stop() == 0


async def test_sighup_reloads_and_keeps_what_runs_if_it_is_wrong(tmp_path: Path) -> None:
    """A new alias works after SIGHUP; a broken file changes nothing and is logged."""
    emotions = tmp_path / "emotions.toml"
    bundled = Path(__file__).parents[2] / "config" / "emotions.toml"
    emotions.write_text(bundled.read_text())
    with DaemonProcess(tmp_path / "state", AVATAR_EMOTIONS__FILE=str(emotions)) as process:

        async def post(label: str) -> int:
            async with httpx.AsyncClient() as client:
                body = {"type": "emotion", "emotion": label, "hold_ms": 0}
                return (await client.post(f"{process.http}/v1/events", json=body)).status_code

        async def logged(event: str) -> None:
            async with asyncio.timeout(10):
                while not process.logged(event):  # noqa: ASYNC110 - another process's log
                    await asyncio.sleep(0.05)

        assert await post("hurrah") >= 400
        emotions.write_text(bundled.read_text().replace('"joy"', '"joy", "hurrah"'))
        process.signal(signal.SIGHUP)
        await logged("reloaded")
        assert await post("hurrah") == 202
        emotions.write_text("happy = 3")
        process.signal(signal.SIGHUP)
        await logged("reload_refused")
        assert await post("hurrah") == 202
        assert process.stop() == 0


def run_refused(**environ: str) -> subprocess.CompletedProcess[str]:
    """`run` with settings that it must refuse."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AVATAR_")}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "run"],
        env=clean | environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_boot_that_can_never_succeed_has_its_own_status(tmp_path: Path) -> None:
    """Wrong settings and a missing character end with 78 and name the key."""
    state = {"AVATAR_STATE__DIR": str(tmp_path)}
    wrong = run_refused(AVATAR_STAGE__FPS="500", **state)
    assert (wrong.returncode, "stage.fps" in wrong.stderr) == (78, True)
    missing = run_refused(AVATAR_STAGE__CHARACTER="nobody", AVATAR_SERVER__PORT="0", **state)
    assert (missing.returncode, "stage.character" in missing.stderr) == (78, True)
    open_door = run_refused(AVATAR_SERVER__HOST="0.0.0.0", AVATAR_SERVER__PORT="0", **state)
    assert (open_door.returncode, "auth.token" in open_door.stderr) == (78, True)


def test_a_taken_port_is_worth_another_try(tmp_path: Path) -> None:
    """An old process may be about to let go of it: 69, which systemd starts again, and its name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        busy = run_refused(AVATAR_SERVER__PORT=port, AVATAR_STATE__DIR=str(tmp_path))
    assert busy.returncode == 69
    assert f"server.port: TCP port {port} is in use" in busy.stderr
    assert "Traceback" not in busy.stderr


def test_usage_errors_have_their_own_status() -> None:
    """An unknown sub-command ends with 64."""
    command = [sys.executable, "-m", "orchestrator", "dance"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 64
