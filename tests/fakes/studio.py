"""The studio page in a real browser, and the real daemon behind it in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes.browser import CHROMIUM, FLAGS

ROOT: Final = Path(__file__).parents[2]
DESKTOP: Final = (1280, 800)
PHONE: Final = (390, 844)
START_S: Final = 60.0

Visit = Callable[..., contextlib.AbstractAsyncContextManager["Studio"]]
"""`async with visit(url) as studio`."""

# Grey levels of the face at 64 x 64, read from the canvas that the visitor sees.
READ_FACE = """() => {
  const small = document.createElement("canvas");
  small.width = small.height = 64;
  const context = small.getContext("2d");
  context.drawImage(document.getElementById("face-canvas"), 0, 0, 64, 64);
  const {data} = context.getImageData(0, 0, 64, 64);
  return Array.from({length: 4096}, (_, i) => (data[4*i] + data[4*i + 1] + data[4*i + 2]) / 3);
}"""
# How many pixels of the plot are closer to this emotion's colour than to any other's.
COUNT_PLOTTED = """async (label) => {
  const {colourOf} = await import(new URL("studio/palette.js", document.baseURI));
  const plot = document.getElementById("trace");
  const context = plot.getContext("2d");
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = colourOf(label, true);
  probe.fillRect(0, 0, 1, 1);
  const wanted = probe.getImageData(0, 0, 1, 1).data;
  const {data} = context.getImageData(0, 0, plot.width, plot.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const near = [0, 1, 2].every((k) => Math.abs(data[i + k] - wanted[k]) < 24);
    if (near && data[i + 3] > 200) count += 1;
  }
  return count;
}"""


class StudioDaemon:
    """`python -m orchestrator run` on a port of its own."""

    def __init__(self, state_dir: Path, **settings: str) -> None:
        self.state_dir = state_dir
        self._settings = settings
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it publishes frames."""
        log = self.state_dir / "daemon.log"
        environment = os.environ | {
            "AVATAR_SERVER__PORT": str(self.port),
            "AVATAR_STATE__DIR": str(self.state_dir),
            **self._settings,
        }
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", "run"],
                cwd=ROOT, env=environment, stdout=output, stderr=output,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the daemon did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait for its end; harmless when it has ended already."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process = None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


@dataclass
class Studio:
    """One open studio page, and what went wrong or abroad on it."""

    page: Any
    problems: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)

    def listen(self) -> None:
        page = self.page
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("websocket", lambda opened: self.sockets.append(opened.url))

    def _console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(message.text)

    async def until(self, state: str) -> None:
        """Wait until the face is in that state: live, lost, refused."""
        await self.page.wait_for_selector(f"#face[data-state={state}]", timeout=20_000)

    async def until_caption(self, start: str) -> None:
        """Wait until what is on the face is described like that."""
        from playwright.async_api import expect

        caption = self.page.locator("#caption")
        await expect(caption).to_have_text(re.compile(f"^{start}"), timeout=15_000)

    async def logged(self, *kinds: str, emotion: str | None = None) -> list[str]:
        """Wait for a line of each kind, about that emotion, and return the last of each."""
        texts = []
        for kind in kinds:
            about = f'[data-emotion="{emotion}"]' if emotion else ""
            line = self.page.locator(f'#log li[data-kind="{kind}"]{about}').last
            await line.wait_for(timeout=15_000)
            texts.append(await line.inner_text())
        return texts

    async def set_times(self, **times_ms: int) -> None:
        """Fill in the timing section."""
        await self.page.locator("#timing").evaluate("(details) => { details.open = true; }")
        for name, value in times_ms.items():
            await self.page.fill(f"#{name}", str(value))

    async def face(self) -> list[float]:
        """Grey levels of what is on the canvas."""
        levels: list[float] = await self.page.evaluate(READ_FACE)
        return levels


class Chromium:
    """One browser for many tests; each connects to it and has a context of its own."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, "--headless", "--remote-debugging-port=0",
             f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.address = f"http://127.0.0.1:{self._port(folder / 'DevToolsActivePort')}"

    def _port(self, file: Path) -> int:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int(file.read_text().splitlines()[0])
            time.sleep(0.05)
        self.close()
        raise AssertionError("Chromium did not say where it listens")

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
