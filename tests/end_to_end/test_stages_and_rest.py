"""Stages, characters and pictures by REST against the real daemon; by curl, too."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import struct
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from orchestrator.settings import default_config_dir
from tests.fakes import photos
from tests.fakes.daemon import DaemonProcess

README = Path(__file__).parents[2] / "README.md"
PORTRAIT = default_config_dir() / "characters" / "astronaut" / "portrait.jpg"
SETTINGS = {
    "AVATAR_IDLE__ENABLED": "false",
    "AVATAR_STAGES__LOBBY__FPS": "15",
    "AVATAR_STAGES__LOBBY__WIDTH": "256",
    "AVATAR_STAGES__LOBBY__HEIGHT": "256",
    "AVATAR_CHARACTERS__FETCH": "any",
}

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon with a second stage."""
    with DaemonProcess(tmp_path_factory.mktemp("state"), **SETTINGS) as process:
        yield process


def curl(daemon: DaemonProcess, path: str, *options: str) -> tuple[int, bytes]:
    """Status and body of a request by curl."""
    done = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", *options, f"{daemon.http}{path}"],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


def picture(data: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


async def received(connection: ClientConnection, *kinds: str) -> list[dict[str, Any]]:
    messages = []
    async with asyncio.timeout(20):
        while True:
            messages.append(json.loads(await connection.recv()))
            if messages[-1]["type"] in kinds:
                return messages


async def last_of(viewer: ClientConnection) -> None:
    """Take frames until the connection is closed."""
    async with asyncio.timeout(10):
        while True:
            await viewer.recv()


def header(message: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", message, 4)
    decoded = json.loads(message[8 : 8 + length])
    assert isinstance(decoded, dict)
    return decoded


# --- pictures -----------------------------------------------------------------------------


@needs_curl
def test_pictures_of_who_is_on_stage(daemon: DaemonProcess) -> None:
    """Happy is not neutral; the size is the stage's; every format is what it says."""
    status, neutral = curl(daemon, "/api/render", "-F", "expression=neutral")
    assert (status, picture(neutral).shape) == (200, (512, 512, 3))
    status, happy = curl(daemon, "/api/render", "-F", "expression=Joy", "-F", "intensity=1")
    assert difference(picture(happy), picture(neutral)) > 1.0
    status, half = curl(daemon, "/api/render", "-d", "expression=happy&intensity=0.5")
    assert (
        0.2
        < difference(picture(half), picture(neutral))
        < difference(picture(happy), picture(neutral))
    )
    status, small = curl(daemon, "/api/render?stage=lobby", "-F", "expression=sad")
    assert picture(small).shape == (256, 256, 3)
    for name, magic in (("png", b"\x89PNG"), ("webp", b"RIFF"), ("jpeg", b"\xff\xd8\xff")):
        _, data = curl(daemon, "/api/render", "-F", "expression=sad", "-F", f"format={name}")
        assert data.startswith(magic)


@needs_curl
def test_pictures_of_somebody_else(daemon: DaemonProcess) -> None:
    """The first time the face is looked for; the same file again is recognised."""
    source = ("-F", f"source_image=@{PORTRAIT}")
    status, happy = curl(daemon, "/api/render", *source, "-F", "expression=happy")
    assert (status, picture(happy).shape) == (200, (512, 512, 3))
    status, batch = curl(
        daemon, "/api/render/batch", *source, "-F", "expressions=happy", "-F", "expressions=angry"
    )
    assert status == 200
    with zipfile.ZipFile(io.BytesIO(batch)) as archive:
        assert archive.namelist() == ["happy.jpg", "angry.jpg"]
        assert archive.read("happy.jpg") == happy
        assert difference(picture(archive.read("angry.jpg")), picture(happy)) > 1.0


@pytest.mark.parametrize(
    ("files", "data", "status", "code"),
    [
        ({"source_image": b"GIF89a"}, {"expression": "happy"}, 400, "invalid_image"),
        ({"source_image": photos.png(np.full((64, 64, 3), 99, np.uint8))}, {"expression": "sad"},
         422, "no_face"),
        ({"source_image": bytes(17 * 2**20)}, {"expression": "sad"}, 413, "too_large"),
        ({}, {"expression": "hapy"}, 400, "unknown_expression"),
        ({}, {"expression": "happy", "intensity": "7"}, 400, "invalid_message"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be(
    daemon: DaemonProcess, files: dict[str, bytes], data: dict[str, str], status: int, code: str
) -> None:
    """Each refusal has its status, and the daemon goes on."""
    answer = httpx.post(f"{daemon.http}/api/render", files=files, data=data)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert httpx.get(f"{daemon.http}/ready").status_code == 200


# --- characters ---------------------------------------------------------------------------


@needs_curl
def test_a_character_comes_goes_on_stage_and_leaves(daemon: DaemonProcess) -> None:
    """By curl, from the upload to the thumbnail, the stage and the end."""
    form = ("-F", "name=ada", "-F", "title=Ada", "-F", f"portrait=@{PORTRAIT}")
    status, body = curl(daemon, "/v1/characters", *form)
    assert (status, json.loads(body)["uploaded"]) == (201, True)
    status, thumbnail = curl(daemon, "/v1/characters/ada/thumbnail.jpg")
    assert picture(thumbnail).shape == (192, 192, 3)
    switch = {"type": "character", "character": "ada"}
    events = f"{daemon.http}/v1/events?stage=lobby"
    assert httpx.post(events, json=switch, timeout=40).json()["type"] == "character.switched"
    listed = httpx.get(f"{daemon.http}/v1/characters").json()
    assert {each["name"]: each["stages"] for each in listed["characters"]} == {
        "astronaut": ["main"], "ada": ["lobby"],
    }  # fmt: skip
    assert curl(daemon, "/v1/characters/ada", "-X", "DELETE")[0] == 409
    httpx.post(events, json=switch | {"character": "astronaut"}, timeout=40)
    assert curl(daemon, "/v1/characters/ada", "-X", "DELETE")[0] == 204
    assert curl(daemon, "/v1/characters/ada/thumbnail.jpg")[0] == 404


def test_a_character_by_address(daemon: DaemonProcess) -> None:
    """Here from the daemon itself, which this one's settings allow."""
    asked = {"name": "eva", "url": f"{daemon.http}/v1/snapshot.jpg"}
    answer = httpx.post(f"{daemon.http}/v1/characters", json=asked, timeout=40)
    assert (answer.status_code, answer.json()["name"]) == (201, "eva")
    assert httpx.delete(f"{daemon.http}/v1/characters/eva").status_code == 204


# --- stages -------------------------------------------------------------------------------


async def test_stages_are_isolated_for_real_clients(daemon: DaemonProcess) -> None:
    """What happens on one is not seen, heard or counted on the other."""
    async with (
        connect(f"{daemon.ws}/v1/events?stage=lobby") as producer,
        connect(f"{daemon.ws}/v1/frames?stage=lobby", max_size=None) as lobby,
        connect(f"{daemon.ws}/v1/frames", max_size=None) as main,
    ):
        hello = json.loads(await producer.recv())
        assert (hello["stage"], hello["fps"], hello["width"]) == ("lobby", 15, 256)
        smile = {"type": "emotion", "id": "same", "emotion": "happy", "hold_ms": 300}
        await producer.send(json.dumps(smile))
        await received(producer, "emotion.peaked")
        # The same id with another body, on the other stage.
        other = {**smile, "emotion": "sad", "stage": "main", "intensity": 0.2}
        await producer.send(json.dumps(other))
        assert (await received(producer, "emotion.accepted"))[-1]["used"] == "sad"
        seen: dict[str, list[dict[str, Any]]] = {"main": [], "lobby": []}
        for name, viewer in (("main", main), ("lobby", lobby)):
            for _ in range(10):
                message = await viewer.recv()
                assert isinstance(message, bytes)
                seen[name].append(header(message))
        assert max(each["emotion"]["happy"] for each in seen["lobby"]) > 0.5
        assert all(each["emotion"]["happy"] == 0 for each in seen["main"])
        assert all(each["emotion"]["sad"] == 0 for each in seen["lobby"])
        assert {each["width"] for each in seen["main"]} == {512}
    async with httpx.AsyncClient() as http:
        metrics = (await http.get(f"{daemon.http}/metrics")).text
    assert 'avatar_cues_accepted_total{stage="lobby"}' in metrics


async def test_a_stage_made_by_post_is_closed_for_everybody(daemon: DaemonProcess) -> None:
    """Viewers get 1001, cues end, and messages are told that the stage is unknown."""
    async with httpx.AsyncClient(base_url=daemon.http, timeout=40) as http:
        made = await http.post("/v1/stages", json={"name": "den", "fps": 20})
        assert made.status_code == 201, made.text
        assert (await http.get("/v1/snapshot.jpg?stage=den")).status_code == 200
    async with (
        connect(f"{daemon.ws}/v1/events?stage=den") as producer,
        connect(f"{daemon.ws}/v1/frames?stage=den", max_size=None) as viewer,
        connect(f"{daemon.ws}/v1/frames", max_size=None) as other,
        httpx.AsyncClient() as http,
    ):
        await received(producer, "hello")
        await producer.send(json.dumps({"type": "emotion", "id": "e", "emotion": "happy"}))
        await received(producer, "emotion.started")
        gone = await http.delete(f"{daemon.http}/v1/stages/den")
        assert gone.status_code == 204
        assert (await received(producer, "emotion.superseded"))[-1]["id"] == "e"
        with pytest.raises(ConnectionClosed) as closed:
            await last_of(viewer)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        await producer.send(json.dumps({"type": "emotion", "id": "late", "emotion": "happy"}))
        (late,) = await received(producer, "error", "emotion.rejected")
        assert (late["id"], late["error"]["code"]) == ("late", "unknown_stage")
        await producer.send(json.dumps({"type": "get_state", "stage": "main"}))
        await received(producer, "state_snapshot")
        await other.recv()
        metrics = (await http.get(f"{daemon.http}/metrics")).text
        assert 'stage="den"' not in metrics


def test_stages_and_characters_survive_a_restart(tmp_path: Path) -> None:
    """Made by POST, both come back, and each stage with who was on it."""
    small = {"AVATAR_STAGE__WIDTH": "128", "AVATAR_STAGE__HEIGHT": "128"}
    with DaemonProcess(tmp_path, **small) as first:
        files = {"portrait": PORTRAIT.read_bytes()}
        added = httpx.post(
            f"{first.http}/v1/characters", data={"name": "ada"}, files=files, timeout=40
        )
        assert added.status_code == 201, added.text
        asked = {"name": "den", "fps": 12, "width": 160, "height": 120}
        assert httpx.post(f"{first.http}/v1/stages", json=asked, timeout=40).is_success
        switch = {"type": "character", "character": "ada"}
        switched = httpx.post(f"{first.http}/v1/events?stage=den", json=switch, timeout=40)
        assert switched.json()["type"] == "character.switched"
        first.stop()
    with DaemonProcess(tmp_path, **small) as second:
        stages = httpx.get(f"{second.http}/v1/stages").json()["stages"]
        found = [(s["name"], s["character"], s["fps"], s["width"], s["made"]) for s in stages]
        assert found == [
            ("main", "astronaut", 30.0, 128, False),
            ("den", "ada", 12.0, 160, True),
        ]
        while not httpx.get(f"{second.http}/ready?stage=den").is_success:
            time.sleep(0.05)
        image = httpx.get(f"{second.http}/v1/snapshot.jpg?stage=den").content
        assert picture(image).shape == (120, 160, 3)


@needs_curl
@pytest.mark.parametrize("section", ["Stages", "Characters", "Pictures by REST"])
def test_the_commands_of_the_readme_work(
    daemon: DaemonProcess, tmp_path: Path, section: str
) -> None:
    """Each line of the section's shell block, one after the other."""
    (text,) = re.findall(rf"\n## {section}\n(.*?)\n## ", README.read_text("utf-8"), re.DOTALL)
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    shutil.copy(PORTRAIT, tmp_path / "me.jpg")
    # The daemon of this test has a stage of that name in its settings.
    for line in block.replace("lobby", "hall").splitlines():
        command = line.replace("http://127.0.0.1:8081", daemon.http).replace("curl ", "curl -sf ")
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
