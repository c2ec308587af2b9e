"""The studio page in a real browser, served by the real daemon in a process of its own."""

from __future__ import annotations

import asyncio
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
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.fakes.browser import CHROMIUM, FLAGS

playwright_api = pytest.importorskip("playwright.async_api")

ROOT = Path(__file__).parents[2]
DESKTOP = (1280, 800)
PHONE = (390, 844)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]

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


class Daemon:
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
        caption = self.page.locator("#caption")
        await playwright_api.expect(caption).to_have_text(re.compile(f"^{start}"), timeout=15_000)

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


Visit = Callable[..., contextlib.AbstractAsyncContextManager[Studio]]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running daemon, the same for the tests of this module."""
    running = Daemon(tmp_path_factory.mktemp("state"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
async def visit() -> AsyncIterator[Visit]:
    """Open the studio in a browser: `async with visit(url) as studio`."""

    @contextlib.asynccontextmanager
    async def opened(
        url: str,
        size: tuple[int, int] = DESKTOP,
        scheme: Literal["light", "dark"] = "light",
        live: bool = True,
    ) -> AsyncIterator[Studio]:
        context = await browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
        )
        studio = Studio(await context.new_page())
        studio.listen()
        await studio.page.goto(url)
        if live:
            await studio.until("live")
            await studio.page.wait_for_selector("button.emotion")
        yield studio
        await context.close()

    async with playwright_api.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        await browser.close()


def changed_share(one: list[float], other: list[float]) -> float:
    """Share of the picture that differs clearly, 0..1."""
    return sum(abs(a - b) > 20 for a, b in zip(one, other, strict=True)) / len(one)


async def test_a_click_changes_the_face(daemon: Daemon, visit: Visit) -> None:
    """A click on "surprised" changes the picture far beyond idle life, and its receipts appear."""
    async with visit(daemon.url) as studio:
        await studio.set_times(hold=2500)
        await studio.until_caption("neutral")
        rest = await studio.face()
        await asyncio.sleep(0.5)
        idle = changed_share(rest, await studio.face())
        await studio.page.click("button[data-emotion=surprised]")
        receipts = await studio.logged("emotion", "accepted", "started", "peaked", emotion="surprised")
        await studio.until_caption("surprised")
        shown = changed_share(rest, await studio.face())
        weight = await studio.page.locator("button[data-emotion=surprised]").get_attribute(
            "data-weight"
        )
        plotted = await studio.page.evaluate(COUNT_PLOTTED, "surprised")

        assert shown > max(0.02, 2 * idle)
        assert "frame" in receipts[2]
        assert "frame" in receipts[3]
        assert float(weight or 0) > 0.4
        assert plotted > 20
        assert studio.problems == []
        assert {url for url in studio.requested if not url.startswith(daemon.url)} == set()


async def test_frames_keep_coming(daemon: Daemon, visit: Visit) -> None:
    """The page shows newer and newer frames and says at a glance what it shows."""
    async with visit(daemon.url) as studio:
        canvas = studio.page.locator("#face-canvas")
        first = int(await canvas.get_attribute("data-seq") or 0)
        await asyncio.sleep(1.0)
        later = int(await canvas.get_attribute("data-seq") or 0)

        assert later > first
        assert await studio.page.inner_text("#link") == "Live"
        assert await studio.page.inner_text("#renderer") == "mesh"
        assert int(await studio.page.inner_text("#fps")) > 0
        assert (await studio.page.inner_text("#cached")).endswith("%")


async def test_buttons_are_what_the_daemon_offers(daemon: Daemon, visit: Visit) -> None:
    """There is a button for each emotion of `hello`, and a policy for each of its policies."""
    async with visit(daemon.url) as studio:
        labels = await studio.page.locator("#emotions .emotion").evaluate_all(
            "(buttons) => buttons.map((button) => button.dataset.emotion)"
        )
        policies = await studio.page.locator("#policy option").all_text_contents()

        assert {
            "neutral", "happy", "sad", "surprised", "angry", "disgusted", "fearful"
        } <= set(labels)  # fmt: skip
        assert policies == ["replace", "queue", "blend", "override"]


async def test_chosen_times_are_sent(daemon: Daemon, visit: Visit) -> None:
    """With short times chosen, the cue finishes at once and says so; nonsense is not sent."""
    async with visit(daemon.url) as studio:
        await studio.set_times(attack=60, hold=60, decay=60)
        await studio.page.click("button[data-emotion=sad]")
        await studio.logged("finished", emotion="sad")
        await studio.page.fill("#attack", "-5")
        await studio.page.click("button[data-emotion=angry]")
        await asyncio.sleep(0.3)

        assert await studio.page.locator('#log [data-emotion="angry"]').count() == 0


async def test_keyboard(daemon: Daemon, visit: Visit) -> None:
    """Digits trigger emotions, Escape interrupts, and digits typed into a field are only typed."""
    async with visit(daemon.url) as studio:
        await studio.page.keyboard.press("2")
        await studio.logged("started", emotion="happy")
        await studio.page.keyboard.press("Escape")
        await studio.logged("superseded", emotion="happy")
        await studio.logged("interrupt.done")
        await studio.set_times(hold=4)
        await studio.page.locator("#hold").press("3")
        await asyncio.sleep(0.3)

        assert await studio.page.input_value("#hold") in {"43", "34"}
        assert await studio.page.locator('#log [data-emotion="sad"]').count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_phone(daemon: Daemon, visit: Visit, scheme: str) -> None:
    """On a phone nothing sticks out, the buttons fit a finger, and the scheme is followed."""
    async with visit(daemon.url, size=PHONE, scheme=scheme) as studio:
        await studio.set_times(hold=100)
        width = await studio.page.evaluate("document.documentElement.scrollWidth")
        heights = await studio.page.locator("#emotions button").evaluate_all(
            "(buttons) => buttons.map((button) => button.getBoundingClientRect().height)"
        )
        cut_off = await studio.page.locator("#emotions button span").evaluate_all(
            "(names) => names.filter((name) => name.scrollWidth > name.clientWidth).length"
        )
        ground = await studio.page.evaluate("getComputedStyle(document.body).backgroundColor")
        levels = [int(level) for level in ground[4:-1].split(",")]

        assert width <= PHONE[0]
        assert min(heights) >= 44
        assert cut_off == 0
        assert (max(levels) < 64) if scheme == "dark" else (min(levels) > 192)
        assert studio.problems == []


async def test_token_and_stage_go_to_the_sockets(daemon: Daemon, visit: Visit) -> None:
    """What the page's address says about token and stage is passed on to both sockets."""
    async with visit(f"{daemon.url}?token=s%26cret&stage=main") as studio:
        assert len(studio.sockets) == 2
        assert all("token=s%26cret" in url and "stage=main" in url for url in studio.sockets)


async def test_a_wrong_stage_is_named(daemon: Daemon, visit: Visit) -> None:
    """Where the daemon refuses, the page says why instead of trying for ever in silence."""
    async with visit(f"{daemon.url}?stage=nowhere", live=False) as studio:
        await studio.until("refused")

        assert "nowhere" in await studio.page.inner_text("#veil-text")


async def test_broken_frames_are_refused(daemon: Daemon, visit: Visit) -> None:
    """Whatever bytes come, the frame decoder returns a frame or raises FrameError."""
    outcome = """async () => {
      const {decodeFrame, FrameError} = await import(new URL("client.js", document.baseURI));
      const bytes = (...parts) => new Uint8Array(parts.flatMap((part) =>
        typeof part === "string" ? [...new TextEncoder().encode(part)] : part)).buffer;
      const cases = [bytes(), bytes("AVF"), bytes("AVF2", [2, 0, 0, 0], "{}"),
        bytes("AVF1", [9, 0, 0, 0], "{}"), bytes("AVF1", [255, 255, 255, 255]),
        bytes("AVF1", [2, 0, 0, 0], "[]"), bytes("AVF1", [1, 0, 0, 0], [255])];
      const refused = cases.filter((message) => {
        try {
          return !decodeFrame(message);
        } catch (error) {
          return error instanceof FrameError;
        }
      });
      const {header, image} = decodeFrame(bytes("AVF1", [9, 0, 0, 0], '{"seq":7}', "img"));
      return [cases.length - refused.length, header.seq, new TextDecoder().decode(image)];
    }"""
    async with visit(daemon.url) as studio:
        assert await studio.page.evaluate(outcome) == [0, 7, "img"]


async def test_the_page_comes_back_with_the_daemon(tmp_path: Path, visit: Visit) -> None:
    """Without the token the page says what is missing; with it, it outlives a daemon's restart."""
    own = Daemon(tmp_path, AVATAR_AUTH__TOKEN="s&cret")
    try:
        own.start()
        async with visit(own.url, live=False) as stranger:
            await stranger.until("refused")
            assert "token" in await stranger.page.inner_text("#veil-text")

        async with visit(f"{own.url}?token=s%26cret") as studio:
            own.stop(signal.SIGKILL)
            await studio.until("lost")
            assert await studio.page.inner_text("#link") == "Reconnecting"
            await studio.page.click("button[data-emotion=happy]")
            await studio.logged("offline")
            await studio.logged("not sent", emotion="happy")

            await asyncio.to_thread(own.start)
            await studio.until("live")
            await studio.page.click("button[data-emotion=happy]")
            await studio.logged("peaked", emotion="happy")
    finally:
        own.stop()
