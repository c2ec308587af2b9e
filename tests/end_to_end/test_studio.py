"""The studio page in a real browser, served by the real daemon in a process of its own."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.fakes.browser import CHROMIUM
from tests.fakes.studio import COUNT_PLOTTED, PHONE, StudioDaemon, Visit

pytest.importorskip("playwright.async_api")

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),  # with the browser's
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]


def changed_share(one: list[float], other: list[float]) -> float:
    """Share of the picture that differs clearly, 0..1."""
    return sum(abs(a - b) > 20 for a, b in zip(one, other, strict=True)) / len(one)


async def test_a_click_changes_the_face(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """A click on "surprised" changes the picture far beyond idle life, and its receipts appear."""
    async with visit(studio_daemon.url) as studio:
        await studio.set_times(hold=2500)
        await studio.until_caption("neutral")
        rest = await studio.face()
        await asyncio.sleep(0.5)
        idle = changed_share(rest, await studio.face())
        await studio.page.click("button[data-emotion=surprised]")
        receipts = await studio.logged(
            "emotion", "accepted", "started", "peaked", emotion="surprised"
        )
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
        assert {url for url in studio.requested if not url.startswith(studio_daemon.url)} == set()


async def test_frames_keep_coming(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """The page shows newer and newer frames and says at a glance what it shows."""
    async with visit(studio_daemon.url) as studio:
        canvas = studio.page.locator("#face-canvas")
        first = int(await canvas.get_attribute("data-seq") or 0)
        await asyncio.sleep(1.0)
        later = int(await canvas.get_attribute("data-seq") or 0)

        assert later > first
        assert await studio.page.inner_text("#link") == "Live"
        assert await studio.page.inner_text("#renderer") == "mesh"
        assert int(await studio.page.inner_text("#fps")) > 0
        assert (await studio.page.inner_text("#cached")).endswith("%")


async def test_buttons_are_what_the_daemon_offers(
    studio_daemon: StudioDaemon, visit: Visit
) -> None:
    """There is a button for each emotion of `hello`, and a policy for each of its policies."""
    async with visit(studio_daemon.url) as studio:
        labels = await studio.page.locator("#emotions .emotion").evaluate_all(
            "(buttons) => buttons.map((button) => button.dataset.emotion)"
        )
        policies = await studio.page.locator("#policy option").all_text_contents()

        assert {
            "neutral", "happy", "sad", "surprised", "angry", "disgusted", "fearful"
        } <= set(labels)  # fmt: skip
        assert policies == ["replace", "queue", "blend", "override"]


async def test_chosen_times_are_sent(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """With short times chosen, the cue finishes at once and says so; nonsense is not sent."""
    async with visit(studio_daemon.url) as studio:
        await studio.set_times(attack=60, hold=60, decay=60)
        await studio.page.click("button[data-emotion=sad]")
        await studio.logged("finished", emotion="sad")
        await studio.page.fill("#attack", "-5")
        await studio.page.click("button[data-emotion=angry]")
        await asyncio.sleep(0.3)

        assert await studio.page.locator('#log [data-emotion="angry"]').count() == 0


async def test_keyboard(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """Digits trigger emotions, Escape interrupts, and digits typed into a field are only typed."""
    async with visit(studio_daemon.url) as studio:
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
async def test_phone(studio_daemon: StudioDaemon, visit: Visit, scheme: str) -> None:
    """On a phone nothing sticks out, the buttons fit a finger, and the scheme is followed."""
    async with visit(studio_daemon.url, size=PHONE, scheme=scheme) as studio:
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


async def test_token_and_stage_go_to_the_sockets(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """Token and stage of the page's address go to both sockets; the token leaves the address."""
    async with visit(f"{studio_daemon.url}?token=s%26cret&stage=main") as studio:
        assert len(studio.sockets) == 2
        assert all("token=s%26cret" in url and "stage=main" in url for url in studio.sockets)
        assert studio.page.url == f"{studio_daemon.url}?stage=main"


async def test_a_wrong_stage_is_named(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """Where the daemon refuses, the page says why instead of trying for ever in silence."""
    async with visit(f"{studio_daemon.url}?stage=nowhere", live=False) as studio:
        await studio.until("refused")

        assert "nowhere" in await studio.page.inner_text("#veil-text")


async def test_broken_frames_are_refused(studio_daemon: StudioDaemon, visit: Visit) -> None:
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
    async with visit(studio_daemon.url) as studio:
        assert await studio.page.evaluate(outcome) == [0, 7, "img"]


async def test_the_page_comes_back_with_the_daemon(tmp_path: Path, visit: Visit) -> None:
    """Without the token the page asks for it; with it, it outlives a daemon's restart."""
    own = StudioDaemon(tmp_path, AVATAR_AUTH__TOKEN="s&cret")
    try:
        own.start()
        async with visit(own.url, live=False) as stranger:
            await stranger.until("refused")
            assert "token" in await stranger.page.inner_text("#veil-text")
            await stranger.page.fill("#token", "guessed")
            await stranger.page.click("#token-form button")
            await stranger.page.get_by_text("The daemon does not know this token").wait_for()
            await stranger.page.fill("#token", "s&cret")
            await stranger.page.click("#token-form button")
            await stranger.until("live")
            await stranger.page.reload()
            await stranger.until("live")
            await stranger.page.wait_for_selector("#characters img[src^='blob:']", state="attached")
            assert "cret" not in stranger.page.url

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
