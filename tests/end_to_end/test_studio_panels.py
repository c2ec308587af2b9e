"""Every panel of the studio page, used as a visitor uses it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import photos
from tests.fakes.browser import CHROMIUM
from tests.fakes.studio import Studio, StudioDaemon, Visit

playwright_api = pytest.importorskip("playwright.async_api")
expect = playwright_api.expect

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),  # with the browser's
    pytest.mark.browser,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]

WAIT_MS = 15_000
NARROW = (360, 740)
TABS = ("perform", "speak", "sculpt", "cast", "measure")
MARKUP = '<img src=x onerror="document.title=1">'

# How much of a canvas is painted at all.
COUNT_PAINTED = """(canvas) => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
  return count;
}"""

# Texts whose contrast with what is behind them is below WCAG's AA, with the ratio. What lies on the
# picture is left out, and what is off.
LOW_CONTRAST = """() => {
  const probe = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = colour;
    probe.fillRect(0, 0, 1, 1);
    return probe.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgba("#fff");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest("#face, .unseen, .skip, :disabled, noscript")) continue;
    const style = getComputedStyle(node);
    const [one, other] = [light(rgba(style.color)), light(behind(node))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    const what = `${node.tagName} ${walker.currentNode.data.trim()}`;
    if (ratio < 4.5) found.push(`${what}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(found)];
}"""

UNLABELLED = """() => [...document.querySelectorAll("input, select, textarea, button")]
  .filter((node) => !node.labels?.length && !node.getAttribute("aria-label"))
  .filter((node) => !node.textContent.trim())
  .map((node) => node.outerHTML)"""


def fetched(daemon: StudioDaemon, path: str) -> Any:
    """What the daemon itself says, as JSON."""
    with urllib.request.urlopen(daemon.url + path, timeout=10) as answer:
        return json.load(answer)


async def text_of(studio: Studio, selector: str, pattern: str) -> None:
    """Wait until an element says that; a regular expression."""
    await playwright_api.expect(studio.page.locator(selector)).to_have_text(
        re.compile(pattern), timeout=WAIT_MS
    )


async def test_characters(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """A portrait that is dropped becomes a character: on stage, on a sheet, and deleted."""
    portrait = {
        "name": "Ada L.jpg",
        "mimeType": "image/jpeg",
        "buffer": photos.jpeg(photos.astronaut()),
    }
    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.click("#tab-cast")
        await page.click("#new-character > summary")
        await page.click("#character-form [type=submit]")
        await text_of(studio, "#drop .error", "Choose a portrait")

        dropped = base64.b64encode(portrait["buffer"]).decode()
        await page.evaluate(
            """([name, type, data]) => {
              const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
              const dataTransfer = new DataTransfer();
              dataTransfer.items.add(new File([bytes], name, {type}));
              const options = {dataTransfer, bubbles: true, cancelable: true};
              const event = (kind) => new DragEvent(kind, options);
              document.body.dispatchEvent(event("dragover"));
              document.body.dispatchEvent(event("drop"));
            }""",
            [portrait["name"], portrait["mimeType"], dropped],
        )
        assert await page.input_value("#new-name") == "ada-l"
        await page.fill("#new-name", "astronaut")
        await page.click("#character-form [type=submit]")
        await text_of(
            studio, ".field:has(> #new-name) .error", "There is a character astronaut already"
        )
        assert await page.get_attribute("#new-name", "aria-invalid") == "true"

        await page.fill("#new-name", "ada")
        await page.fill("#new-title", MARKUP)
        await page.click("#character-form [type=submit]")
        card = page.locator("#characters li[data-character=ada]")
        await expect(card.locator("b")).to_have_text(MARKUP, timeout=WAIT_MS)
        await card.get_by_role("button", name="Put").click()
        await studio.logged("character.switched")
        assert await page.input_value("#character-select") == "ada"
        assert fetched(studio_daemon, "v1/state")["character"] == "ada"

        await card.get_by_role("button", name="Contact").click()
        await page.wait_for_selector("#sheet-image:not([hidden])", timeout=WAIT_MS)
        width = await page.locator("#sheet-image").evaluate(
            "async (i) => (await i.decode(), i.naturalWidth)"
        )
        assert width > 1000
        await page.keyboard.press("Escape")

        await page.select_option("#character-select", "astronaut")
        await text_of(studio, "#characters li[data-character=astronaut] small", "on this stage")
        await card.get_by_role("button", name="Delete").click()
        await card.get_by_role("button", name="Delete").click()
        await expect(card).to_have_count(0, timeout=WAIT_MS)
        assert await page.title() == "Avatar Studio"
        assert [each for each in studio.problems if "409" not in each] == []


async def test_a_picture_without_a_face(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """Why a portrait is refused stands at the field, and what is no picture is not even sent."""
    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.click("#tab-cast")
        await page.click("#new-character > summary")
        wrong = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
        await page.set_input_files("#portrait", wrong)
        await text_of(studio, "#drop .error", "Expected a JPEG, PNG or WebP file, not text/plain")
        broken = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8 no picture"}
        await page.set_input_files("#portrait", broken)
        await page.click("#character-form [type=submit]")
        await text_of(studio, "#drop .error", "Portrait: ")


async def test_stages(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """A stage is opened, watched by its address, and closed; a wrong size is said at its field."""
    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.click("#tab-cast")
        await page.click("#new-stage > summary")
        await page.fill("#stage-name", "lobby")
        await page.fill("#stage-width", "63")
        await page.click("#stage-form [type=submit]")
        await text_of(studio, ".field:has(> #stage-width) .error", "even number from 64 to 2048")
        await page.fill("#stage-width", "192")
        await page.fill("#stage-height", "192")
        await page.click("#stage-form [type=submit]")
        row = page.locator("#stages li[data-stage=lobby]")
        await row.get_by_role("button", name="Watch").click(timeout=WAIT_MS)
        await text_of(
            studio, "#stages li[data-stage=lobby] small", "this one · astronaut · 192 × 192"
        )
        await studio.until("live")
        await expect(page.locator("#face-canvas")).to_have_attribute(
            "width", "192", timeout=WAIT_MS
        )
        assert "stage=lobby" in page.url
        assert await page.input_value("#stage-select") == "lobby"

        await page.go_back()
        await expect(page.locator("#stage-select")).to_have_value("main", timeout=WAIT_MS)
        await row.get_by_role("button", name="Close").click()
        await row.get_by_role("button", name="Close").click()
        await expect(row).to_have_count(0, timeout=WAIT_MS)
        assert [each["name"] for each in fetched(studio_daemon, "v1/stages")["stages"]] == ["main"]
        assert studio.problems == []


async def test_text(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """A text that streams in loses its tags, wherever they are cut, and each becomes a cue."""
    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.click("#tab-speak")
        await page.click("#text-send")
        await text_of(studio, "#speak .field .error", "Write something")
        await page.get_by_role("button", name="all four").click()
        await page.click("#text-stream")
        await expect(page.locator("#clean mark")).to_have_count(4, timeout=WAIT_MS)
        await expect(page.locator("#text-stop")).to_be_hidden(timeout=WAIT_MS)
        marks = await page.locator("#clean mark").all_text_contents()
        clean = await page.locator("#clean").evaluate(
            "(p) => [...p.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join('')"
        )
        assert marks == ["surprised 100 %", "happy 80 %", "fearful 70 %", "happy 50 %"]
        assert clean == " A letter!  From Ada! She is flying the thing herself. And she made it."
        await studio.logged("text", "text.clean", "state.ok")

        await page.fill("#text", MARKUP)
        await page.locator("#text").press("Control+Enter")
        await text_of(studio, "#clean", "onerror")
        assert await page.locator("#clean img, #log img").count() == 0
        assert studio.problems == []


async def test_free_controls(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """A control stays as long as it is held, with its twin; reset lets the face go."""

    def now() -> dict[str, float]:
        controls: dict[str, float] = fetched(studio_daemon, "v1/state")["controls"]
        return controls

    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.click("#tab-sculpt")
        regions = await page.locator("#regions details").evaluate_all(
            "(all) => all.map((each) => each.dataset.region)"
        )
        assert regions == [
            "Head pose", "Brows", "Gaze", "Eyes", "Cheeks", "Nose", "Jaw", "Mouth", "Tongue"
        ]  # fmt: skip
        assert await page.locator("#regions input").count() == 52 + 3
        before = await studio.face()
        await page.locator("input[name=jawOpen]").fill("0.9")
        await page.locator("input[name=browOuterUpLeft]").fill("0.8")
        await page.locator("input[name=yaw]").fill("-9")
        await text_of(studio, "#sculpt-state", "4 held")
        await page.wait_for_timeout(1_600)
        held = now()
        assert held["jawOpen"] == pytest.approx(0.9, abs=0.05)
        assert held["browOuterUpRight"] == pytest.approx(0.8, abs=0.05)
        assert held["yaw"] < -6
        after = await studio.face()
        assert sum(abs(a - b) > 20 for a, b in zip(before, after, strict=True)) > 60
        (line,) = await studio.logged("controls")
        assert "×" in line

        await page.click("#sculpt-reset")
        await text_of(studio, "#sculpt-state", "live face")
        await page.wait_for_timeout(1_600)
        assert now().get("jawOpen", 0.0) < 0.2
        assert studio.problems == []


async def test_state_mood_and_cues(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """States and moods are what the daemon then has; cues are listed until they are interrupted."""
    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.get_by_role("button", name="thinking").click()
        await expect(page.locator("#states [value=thinking]")).to_have_attribute(
            "aria-pressed", "true"
        )
        assert fetched(studio_daemon, "v1/state")["state"] == "thinking"
        await page.get_by_role("button", name="idle").click()
        pad = await page.locator("#mood-pad").bounding_box()
        await page.mouse.click(pad["x"] + pad["width"] * 0.9, pad["y"] + pad["height"] * 0.3)
        await text_of(studio, "#mood-now", r"now \+0\.[5-9]\d, \+0\.[1-5]\d")
        assert fetched(studio_daemon, "v1/state")["mood"]["valence"] > 0.5
        await page.click("#mood-reset")

        await studio.set_times(attack=50)
        await page.check("#hold-forever")
        await page.fill("#priority", "7")
        await page.locator("label[data-mix=surprised] input").fill("30")
        await page.click("button[data-emotion=happy]")
        await text_of(studio, "#cues li[data-emotion=happy] .left", "until replaced")
        await page.select_option("#policy", "queue")
        await page.click("button[data-emotion=sad]")
        await text_of(studio, "#cues li[data-emotion=sad] .phase", "waits")
        weights = fetched(studio_daemon, "v1/state")["weights"]
        assert weights["surprised"] > 0.1
        await page.fill("#priority", "2")
        await page.select_option("#policy", "replace")
        await page.click("button[data-emotion=angry]")
        await text_of(studio, ".field:has(> #priority) .error", "priority 7 is on")
        await page.click("#cues-interrupt")
        await expect(page.locator("#cues li")).to_have_count(0, timeout=WAIT_MS)
        assert studio.problems == []


async def test_measurements(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """Weights, intervals and latencies are plotted, and the daemon is described."""
    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.keyboard.press("4")
        await studio.logged("peaked", emotion="surprised")
        await page.click("#tab-measure")
        await text_of(studio, "#intervals-note", r"median [\d.]+ ms")
        await text_of(studio, "#latencies-note", r"median [\d.]+ m?s")
        for name in ("plot", "intervals", "latencies"):
            assert await page.locator(f"#{name}").evaluate(COUNT_PAINTED) > 1000, name
        for wanted in (
            "avatar-orchestrator",
            "mesh on cpu",
            "256 × 256",
            "Frame cache",
            "1 websocket",
        ):
            await text_of(studio, "#facts", wanted)
        assert await page.inner_text("#viewers") == "1"


async def test_messages(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """The log is filtered, paused, copied and shown as JSON; it never grows too long."""
    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.keyboard.press("2")
        await studio.logged("emotion", "accepted", emotion="happy")
        await page.select_option("#log-kind", "sent")
        assert await page.locator("#log li:not([data-way=sent])").count() == 0
        await page.click("#log-raw")
        assert '"type":"emotion"' in await page.locator("#log li").last.inner_text()
        await page.click("#log-copy")
        await text_of(studio, "#log-copy", "Copied")
        assert '"emotion":"happy"' in await page.evaluate("navigator.clipboard.readText()")
        await page.select_option("#log-kind", "all")
        await page.fill("#log-filter", "no such message")
        assert await page.locator("#log li").count() == 0
        await page.fill("#log-filter", "")
        await page.click("#log-pause")
        lines = await page.locator("#log li").count()
        await page.locator("#messages-title").click()
        await page.keyboard.press("3")
        await text_of(studio, "#log-pause", r"Resume \(\d+\)")
        assert await page.locator("#log li").count() == lines
        await page.click("#log-pause")
        await studio.logged("emotion", emotion="sad")
        await page.click("#clear")
        longest = await page.evaluate("""async () => {
          const {MessageLog} = await import(new URL("studio/log.js", document.baseURI));
          const log = new MessageLog();
          for (let i = 0; i < 3000; i += 1) log.event("online", `line ${i}`);
          return document.querySelectorAll("#log li").length;
        }""")
        assert longest == 200


async def test_tabs_theme_and_shortcuts(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """Everything is reached by keyboard; keys of one letter can be turned off, themes chosen."""
    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.focus("#tab-perform")
        for name in (*TABS[1:], TABS[0]):
            await page.keyboard.press("ArrowRight")
            assert await page.evaluate("document.activeElement.id") == f"tab-{name}"
            assert await page.locator(f"#{name}").is_visible()
        await page.keyboard.press("?")
        assert await page.locator("#shortcuts[open]").count() == 1
        await page.uncheck("#single-keys")
        await page.keyboard.press("Escape")
        await page.keyboard.press("2")
        await page.wait_for_timeout(300)
        assert await page.locator('#log [data-emotion="happy"]').count() == 0

        grounds = set()
        for theme in ("light", "dark", "auto"):
            await page.click("#theme")
            assert await page.get_attribute("#theme", "aria-label") == f"Theme: {theme}"
            grounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(grounds) == 2
        assert await page.evaluate(UNLABELLED) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_panel_is_legible(
    studio_daemon: StudioDaemon, visit: Visit, scheme: str
) -> None:
    """In light and dark, contrast is WCAG's AA; on a narrow phone nothing sticks out."""
    async with visit(studio_daemon.url, size=NARROW, scheme=scheme) as studio:
        page = studio.page
        for name in TABS:
            await page.click(f"#tab-{name}")
            await page.evaluate(
                "document.querySelectorAll('details').forEach((d) => (d.open = true))"
            )
            assert await page.evaluate("document.documentElement.scrollWidth") <= NARROW[0], name
            assert await page.evaluate(LOW_CONTRAST) == [], name
            face = await page.locator("#face").bounding_box()
            await page.evaluate("scrollTo(0, document.body.scrollHeight)")
            scrolled = await page.locator("#face").bounding_box()
            assert scrolled["height"] == face["height"] > 200
            assert scrolled["y"] > -10, "the face stays in sight"
            await page.evaluate("scrollTo(0, 0)")
        assert studio.problems == []


async def test_a_page_in_the_background_rests(studio_daemon: StudioDaemon, visit: Visit) -> None:
    """Frames stop coming to a page that nobody sees, and come again when somebody looks."""
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    async with visit(studio_daemon.url) as studio:
        page = studio.page
        await page.evaluate("""() => {
          const set = window.setTimeout;
          window.setTimeout = (call, ms, ...rest) => set(call, ms === 15000 ? 100 : ms, ...rest);
        }""")
        await page.evaluate(hide, True)
        async with asyncio.timeout(WAIT_MS / 1000):
            while fetched(studio_daemon, "v1/state")["viewers"].get("websocket", 0):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        await page.evaluate(hide, False)
        await studio.until("live")
        await text_of(studio, "#viewers", "^1$")


async def test_a_fallback_picture_is_announced(tmp_path: Path, visit: Visit) -> None:
    """Where the renderer is too late, picture and figures say so."""
    slow = StudioDaemon(
        tmp_path, AVATAR_RENDERER__DEADLINE_MS="1", AVATAR_CACHE__MAX_BYTES=str(2**20)
    )
    try:
        slow.start()
        async with visit(slow.url) as studio:
            await studio.page.keyboard.press("4")
            await text_of(studio, "#degraded", "Fallback picture: mesh: no frame within 1 ms")
            await text_of(studio, "#renderer-note", "degraded")
    finally:
        slow.stop()
