"""Programs of others against the running daemon: ffmpeg, OpenCV, a browser, curl, websockets.

Each is skipped where it is not installed.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from orchestrator.settings import default_config_dir
from tests.fakes.browser import CHROMIUM, FLAGS
from tests.fakes.daemon import DaemonProcess

WIDTH, HEIGHT = 256, 192
PORTRAIT = default_config_dir() / "characters" / "astronaut" / "portrait.jpg"


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where the program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with DaemonProcess(
        tmp_path_factory.mktemp("state"),
        AVATAR_IDLE__ENABLED="false",
        AVATAR_STAGE__WIDTH=str(WIDTH),
        AVATAR_STAGE__HEIGHT=str(HEIGHT),
    ) as process:
        yield process


def run(*command: str, feed: bytes = b"") -> bytes:
    """What the program writes; it must end well."""
    done = subprocess.run(command, input=feed, capture_output=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def show(daemon: DaemonProcess, **fields: Any) -> None:
    """Let the face be something other than neutral for a while."""
    body = {"type": "emotion", "emotion": "surprised", "attack_ms": 100, "hold_ms": 30_000} | fields
    assert httpx.post(f"{daemon.http}/v1/events", json=body).is_success


def rest(daemon: DaemonProcess) -> None:
    """Let it be neutral again."""
    httpx.post(f"{daemon.http}/v1/events", json={"type": "interrupt", "fade_ms": 50})


# --- the stream ---------------------------------------------------------------------------


@needs("ffprobe")
def test_ffprobe_reads_the_stream(daemon: DaemonProcess) -> None:
    """It is motion JPEG of the stage's size, one frame after the other."""
    said = json.loads(
        run(
            "ffprobe",
            "-v",
            "error",
            "-f",
            "mpjpeg",
            "-read_intervals",
            "%+#15",
            "-count_frames",
            "-show_entries",
            "stream=codec_name,width,height,nb_read_frames",
            "-of",
            "json",
            f"{daemon.http}/v1/stream.mjpg",
        )
    )
    (stream,) = said["streams"]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("mjpeg", WIDTH, HEIGHT)
    assert int(stream["nb_read_frames"]) == 15


@needs("ffmpeg")
def test_ffmpeg_finds_out_by_itself_and_makes_a_video(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    """Without being told what the stream is; the frames are decoded without a complaint."""
    path = tmp_path / "face.avi"
    show(daemon)
    try:
        command = ["ffmpeg", "-v", "warning", "-xerror", "-i", f"{daemon.http}/v1/stream.mjpg"]
        done = subprocess.run(
            [*command, "-frames:v", "20", "-c:v", "copy", str(path)],
            capture_output=True,
            timeout=40,
            check=False,
        )
    finally:
        rest(daemon)
    assert done.returncode == 0, done.stderr
    frames = opened(str(path), 40)
    assert len(frames) == 20
    assert frames[0].shape == (HEIGHT, WIDTH, 3)


def test_opencv_captures_the_stream(daemon: DaemonProcess) -> None:
    """As computer vision programs do, and it sees the face change."""
    url = f"{daemon.http}/v1/stream.mjpg"
    (neutral,) = opened(url, 1)
    show(daemon)
    try:
        frames = opened(url, 20)
    finally:
        rest(daemon)
    assert len(frames) == 20
    assert frames[-1].shape == (HEIGHT, WIDTH, 3)
    assert np.abs(frames[-1].astype(int) - neutral).mean() > 1.5


def opened(source: str, most: int) -> list[np.ndarray]:
    """Up to so many frames of a file or stream, by OpenCV."""
    capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG)
    if not capture.isOpened() and cv2.CAP_FFMPEG not in cv2.videoio_registry.getBackends():
        pytest.skip("this OpenCV was built without FFmpeg")
    frames = []
    while len(frames) < most:
        read, frame = capture.read()
        if not read:
            break
        frames.append(frame)
    capture.release()
    return frames


# --- a browser ----------------------------------------------------------------------------

PAGE = """<!doctype html><title>a page of somebody else</title>
<img id="face" src="STREAM" width="256">"""
PIXELS = """() => {
    const image = document.querySelector("#face");
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/png");
}"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
async def test_an_img_in_a_browser_shows_the_stream(daemon: DaemonProcess) -> None:
    """On a page of the daemon's own origin; what is on it moves without a script."""
    playwright_api = pytest.importorskip("playwright.async_api")
    async with playwright_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = await browser.new_page()
            embedding = f"{daemon.http}/embedding.html"
            body = PAGE.replace("STREAM", "/v1/stream.mjpg")
            await page.route(
                embedding, lambda route: route.fulfill(body=body, content_type="text/html")
            )
            await page.goto(embedding, wait_until="commit")
            await page.wait_for_function(
                "document.querySelector('#face')?.naturalWidth > 0", timeout=20_000
            )

            async def shown() -> np.ndarray:
                url = await page.evaluate(PIXELS)
                data = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
                picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
                assert picture is not None
                return picture.astype(int)

            neutral = await shown()
            assert neutral.shape == (HEIGHT, WIDTH, 3)
            await asyncio.to_thread(show, daemon)
            async with asyncio.timeout(20):
                while np.abs(await shown() - neutral).mean() < 1.5:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(rest, daemon)
            await browser.close()


# --- curl ---------------------------------------------------------------------------------


def curl(*arguments: str) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    out = run("curl", "-sS", "--max-time", "30", "-w", "\n%{http_code} %{content_type}", *arguments)
    body, _, end = out.rpartition(b"\n")
    status, _, kind = end.decode().partition(" ")
    return int(status), kind, body


@needs("curl")
def test_curl_sends_events(daemon: DaemonProcess) -> None:
    """As a form, which curl calls everything, and as JSON; mistakes are answered."""
    events = f"{daemon.http}/v1/events"
    message = '{"type":"emotion","id":"curl-1","emotion":"joy","hold_ms":100}'
    status, kind, body = curl("-d", message, events)
    assert (status, kind.partition(";")[0]) == (202, "application/json")
    assert json.loads(body)["used"] == "happy"
    status, _, body = curl("--json", message, events)
    assert (status, json.loads(body)["duplicate"]) == (202, True)
    status, _, body = curl("-d", '{"type":"emotion","emotion":"hapy"}', events)
    assert (400 <= status < 500, "happy" in body.decode()) == (True, True)
    status, _, body = curl("-d", "{", events)
    assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_json")


@needs("curl")
def test_curl_asks_for_everything(daemon: DaemonProcess) -> None:
    """Every GET of the protocol answers, with the type that belongs to it."""
    for path, wanted in (
        ("/health", "application/json"),
        ("/ready", "application/json"),
        ("/metrics", "text/plain"),
        ("/v1/state", "application/json"),
        ("/v1/characters", "application/json"),
        ("/v1/stages", "application/json"),
        ("/expressions", "application/json"),
        ("/openapi.json", "application/json"),
        ("/asyncapi.json", "application/json"),
        ("/v1/snapshot.jpg", "image/jpeg"),
        ("/", "text/html"),
        ("/client.js", "text/javascript"),
    ):
        status, kind, body = curl("--compressed", daemon.http + path)
        assert (status, kind.partition(";")[0]) == (200, wanted), path
        assert body, path
    assert curl(f"{daemon.http}/nothing")[0] == 404


@needs("curl")
def test_curl_has_pictures_made(daemon: DaemonProcess) -> None:
    """One of the character, one of an uploaded photo, and several in an archive."""
    status, kind, own = curl("-F", "expression=sad", f"{daemon.http}/api/render")
    assert (status, kind, own[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    photo = ["-F", f"source_image=@{PORTRAIT}", "-F", "format=png"]
    status, kind, uploaded = curl(*photo, "-F", "expression=joy", f"{daemon.http}/api/render")
    assert (status, kind, uploaded[:4]) == (200, "image/png", b"\x89PNG")
    labels = ["-F", "expressions=happy", "-F", "expressions=angry"]
    status, kind, packed = curl(*labels, f"{daemon.http}/api/render/batch")
    assert (status, kind) == (200, "application/zip")
    assert len(zipfile.ZipFile(io.BytesIO(packed)).namelist()) == 2
    status, _, body = curl("-F", "expression=nothing", f"{daemon.http}/api/render")
    assert (status, json.loads(body)["error"]["code"]) == (400, "unknown_expression")


@needs("curl")
def test_curl_manages_characters_and_stages(daemon: DaemonProcess) -> None:
    """Upload, put on a stage of its own, watch, and remove both."""
    characters, stages = f"{daemon.http}/v1/characters", f"{daemon.http}/v1/stages"
    status, _, body = curl("-F", "name=ada", "-F", f"portrait=@{PORTRAIT}", characters)
    assert status == 201, body
    status, _, body = curl("--json", '{"name":"side","character":"ada","fps":10}', stages)
    assert (status, json.loads(body)["character"]) == (201, "ada"), body
    status, kind, picture = curl(f"{daemon.http}/v1/snapshot.jpg?stage=side")
    assert (status, kind, picture[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    assert curl("-X", "DELETE", f"{stages}/side")[0] == 204
    assert curl("-X", "DELETE", f"{characters}/ada")[0] == 204
    assert b"ada" not in curl(characters)[2]


@needs("curl")
def test_curl_watches_the_stream(daemon: DaemonProcess) -> None:
    """Parts with JPEG files, for as long as it wants."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "1.5", f"{daemon.http}/v1/stream.mjpg"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 28  # its time was over
    assert done.stdout.count(b"Content-Type: image/jpeg") > 5


# --- a WebSocket shell --------------------------------------------------------------------


async def test_the_websockets_command_line_speaks_to_it(daemon: DaemonProcess) -> None:
    """Typed messages, answers on the terminal; its own lines have escape codes around them."""
    shell = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "websockets", f"{daemon.ws}/v1/events",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert shell.stdin is not None
    assert shell.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(30):
            for typed, answer in (
                (None, b'"type":"hello"'),
                ('{"type":"emotion","id":"typed","emotion":"fear","hold_ms":50,"decay_ms":50}',
                 b'"type":"emotion.finished","id":"typed"'),
                ('{"type":"emotion","emotion":"hapy"}', b'"type":"emotion.rejected"'),
                ("no JSON", b'"code":"invalid_json"'),
            ):  # fmt: skip
                if typed is not None:
                    shell.stdin.write(typed.encode() + b"\n")
                    await shell.stdin.drain()
                while answer not in said:
                    piece = await shell.stdout.read(4096)
                    assert piece, said
                    said += piece
            shell.stdin.close()
            await shell.wait()
    finally:
        if shell.returncode is None:
            shell.kill()
            await shell.wait()
    assert said.index(b'"emotion.accepted"') < said.index(b'"emotion.started"')
