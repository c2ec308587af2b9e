"""The browser client in a real browser: against the running daemon, and one that misbehaves."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from adapters import frame_codec
from adapters.studio_page import STUDIO_DIR
from orchestrator.expression.tags import TagReader
from pipeline.types import FrameInfo, ImageFormat
from tests.fakes.browser import CHROMIUM, FLAGS
from tests.fakes.daemon import DaemonProcess
from tests.fakes.emotions import table
from tests.fakes.events_server import FakeDaemon, Message, ended, shown, text_clean
from tests.fakes.stage import JPEG

playwright_api = pytest.importorskip("playwright.async_api")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(40),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]

README = Path(__file__).parents[2] / "README.md"
# What every script can use; errors of the client come back as `[name, message, ...]`.
PRELUDE = """
const client = await import("/client.js");
const {Producer, Viewer} = client;
const failure = async (promise) => {
  try { await promise; } catch (error) { return error; }
  throw new Error("it did not fail");
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
"""

Script = Callable[..., Awaitable[Any]]


class Tab:
    """One page with the client in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    async def run(self, script: str, *arguments: Any) -> Any:
        """The script's result; `given` holds the arguments, `globalThis` lasts."""
        return await self.page.evaluate(f"async (given) => {{{PRELUDE}{script}}}", arguments)

    async def until(self, condition: str) -> None:
        """Wait for something of the page's own."""
        await self.page.wait_for_function(condition, timeout=15_000)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path_factory.mktemp("state"), AVATAR_IDLE__ENABLED="false") as process:
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    async with playwright_api.async_playwright() as driver:
        launched = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Any) -> AsyncIterator[Tab]:
    """An empty page."""
    opened = Tab(await browser.new_page())
    yield opened
    await opened.page.close()
    assert opened.problems == []


@pytest_asyncio.fixture(loop_scope="module")
async def fake(tab: Tab) -> AsyncIterator[FakeDaemon]:
    """A daemon with the page and the client beside it."""
    async with FakeDaemon() as running:
        running.files = {
            "/": ("text/html", "<!doctype html>"),
            "/client.js": ("text/javascript", (STUDIO_DIR / "client.js").read_text("utf-8")),
        }
        await tab.page.goto(running.url)
        yield running


async def test_with_the_running_daemon(daemon: DaemonProcess, tab: Tab) -> None:
    """A page of the daemon's own: every call is answered, frames are drawn and iterated."""
    await tab.page.goto(f"{daemon.http}/health")
    said = await tab.run("""
      const producer = new Producer();
      const hello = await producer.ready;
      const cue = await producer.emotion("JOY", 0.7, {attack_ms: 60, hold_ms: 60, decay_ms: 60});
      const receipts = [(await cue.started).seq, (await cue.peaked).seq, (await cue.ended).seq];
      const rejected = await failure(producer.emotion("hapy"));
      const held = await producer.emotion("sad", 1, {attack_ms: 5000, hold_ms: null});
      const by = await producer.emotion("angry", 1, {hold_ms: null});
      const early = await failure(held.peaked);
      await by.peaked;
      const interrupted = await producer.interrupt({fade_ms: 50});
      await producer.state("thinking");
      await producer.mood(0.3, 0.1, {decay_ms: 1000});
      producer.controls({jawOpen: 0.4}, {head: {yaw: 5}});
      const state = await producer.getState();
      const switched = await producer.character("astronaut");
      const ping = await producer.ping();
      const pieces = [];
      for await (const piece of producer.pipe(["See [1]: [hap", "py:0.5] so ", "good"])) {
        pieces.push(piece);
      }
      const tagged = pieces.flatMap(({cues}) => cues);
      await tagged[0].peaked;
      await producer.close();
      const closed = await failure(producer.ping());
      return {
        labels: Object.keys(hello.emotions),
        used: cue.accepted.used, from: cue.accepted.mapped_from,
        receipts, suggestions: rejected.suggestions, code: rejected.code, name: rejected.name,
        early: [early.name, early.ended.kind, early.ended.by === by.id],
        superseded: interrupted.superseded.length, state: state.state, on: switched.character,
        ping, text: pieces.map(({text}) => text).join(""), tagged: tagged.map((c) => c.emotion),
        closed: closed.name,
      };""")
    assert "happy" in said["labels"]
    assert (said["used"], said["from"]) == ("happy", "JOY")
    assert said["receipts"] == sorted(said["receipts"])
    assert (said["name"], said["code"]) == ("EmotionRejected", "unknown_emotion")
    assert said["suggestions"][0] == "happy"
    assert said["early"] == ["NotShownError", "superseded", True]
    assert (said["superseded"], said["state"], said["on"]) == (1, "thinking", "astronaut")
    assert said["ping"] > 0
    assert (said["text"], said["tagged"]) == ("See [1]:  so good", ["happy"])
    assert said["closed"] == "ClosedError"
    seen = await tab.run("""
      const canvas = document.createElement("canvas");
      const image = document.createElement("img");
      document.documentElement.append(canvas, image);
      const viewer = new Viewer(undefined, {maxFps: 15});
      viewer.drawTo(canvas);
      viewer.drawTo(image);
      const seqs = [];
      for await (const frame of viewer) {
        seqs.push(frame.header.seq);
        if (seqs.length > 4 && canvas.dataset.seq && image.dataset.seq) break;
      }
      const {value} = await viewer[Symbol.asyncIterator]().next();
      const bitmap = await value.bitmap();
      viewer.close();
      return {seqs, canvas: canvas.width, image: image.naturalWidth, bitmap: bitmap.width};""")
    assert seen["seqs"] == sorted(set(seen["seqs"]))
    assert (seen["canvas"], seen["image"], seen["bitmap"]) == (512, 512, 512)


async def test_a_refusal_says_why(daemon: DaemonProcess, tab: Tab) -> None:
    """An unknown stage ends it with the daemon's own words."""
    await tab.page.goto(f"{daemon.http}/health")
    said = await tab.run("""
      const producer = new Producer(undefined, {stage: "nowhere"});
      const viewer = new Viewer(undefined, {stage: "nowhere"});
      const asked = failure(producer.emotion("happy"));
      const iterated = failure((async () => { for await (const _ of viewer); })());
      const errors = [await failure(producer.ready), await asked, await iterated];
      errors.push(await failure(producer.ping()));
      return errors.map((error) => [error.name, error.status, error.message]);""")
    for name, status, message in said:
        assert (name, status) == ("ConnectError", 404)
        assert "nowhere" in message


async def test_the_page_of_the_readme(fake: FakeDaemon, tab: Tab, tmp_path: Path) -> None:
    """From another origin that is allowed: it shows the face, and its button has a receipt."""
    (page,) = re.findall(r"```html\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    origins = json.dumps([fake.url])
    with DaemonProcess(tmp_path, AVATAR_AUTH__ALLOWED_ORIGINS=origins) as daemon:
        assert "http://127.0.0.1:8081/" in page
        page = page.replace("http://127.0.0.1:8081", daemon.http)
        fake.files["/"] = ("text/html", f"<!doctype html>{page}")
        await tab.page.goto(fake.url)
        await tab.until("document.querySelector('img').naturalWidth > 0")
        await tab.page.click("button")
        await tab.until("document.title.startsWith('seen after')")


async def test_everything_unsettled_is_sent_again(fake: FakeDaemon, tab: Tab) -> None:
    """After a cut: what was unanswered and what has not ended; lost receipts are heard then."""
    await tab.run(
        """
      globalThis.producer = new Producer(given[0]);
      await producer.ready;
      globalThis.over = await producer.emotion("happy", 1, {id: "over"});
      globalThis.running = await producer.emotion("happy", 1, {id: "running"});""",
        fake.url,
    )
    await fake.say(ended("finished", "over"))
    await tab.run("await over.ended;")
    fake.answer = lambda _: []
    await tab.run("""
      globalThis.asked = producer.emotion("happy", 1, {id: "asked"});
      globalThis.state = producer.state("speaking");
      globalThis.pinged = failure(producer.ping());""")
    await fake.until_received("ping")
    before = [m for m in fake.received if m["type"] != "ping"]
    fake.received.clear()

    def answer(message: Message) -> list[Message]:
        repeated = [shown("started", "running", 7), shown("peaked", "running", 8)]
        extra = repeated if message.get("id") == "running" else []
        return fake.usual_answer(message) + extra

    fake.answer = answer
    fake.drop()
    said = await tab.run("""
      return [(await asked).id, await state, (await running.started).seq,
        (await running.peaked).seq, (await pinged).name];""")
    assert said == ["asked", None, 7, 8, "ReceiptLostError"]
    assert [m for m in fake.received if m["type"] != "ping"] == before[1:]


async def test_what_is_asked_meanwhile(fake: FakeDaemon, tab: Tab) -> None:
    """Without a connection calls wait; what was given up on is not sent; full is said at once."""
    await tab.run(
        """
      globalThis.producer = new Producer(given[0], {maxPending: 3});
      await producer.ready;""",
        fake.url,
    )
    await fake.go_away()
    await tab.until("!producer.connected")
    names = await tab.run("""
      const controller = new AbortController();
      const given_up = failure(producer.emotion("happy", 1, {id: "a", signal: controller.signal}));
      globalThis.kept = [producer.emotion("happy", 1, {id: "b"}), producer.state("idle")];
      controller.abort();
      globalThis.mood = producer.mood(1);
      return [(await given_up).name, (await failure(producer.mood(0))).name];""")
    assert names == ["AbortError", "FullError"]
    names = await tab.run("""
      const again = producer.emotion("happy", 1, {id: "b"});
      const wrong = producer.emotion("happy", 1, {id: "\\u00e9"});
      return [(await failure(again)).code, (await failure(wrong)).field];""")
    assert names == ["id_reused", "id"]
    await fake.come_back()
    assert await tab.run("return (await kept[0]).id;") == "b"
    assert "a" not in {message.get("id") for message in fake.received}


async def test_an_interrupt_that_arrived_is_not_sent_again(fake: FakeDaemon, tab: Tab) -> None:
    """It would end what was asked for after it."""
    await tab.run("globalThis.producer = new Producer(given[0]); await producer.ready;", fake.url)
    fake.answer = lambda _: []
    await tab.run("""
      globalThis.first = producer.interrupt();
      globalThis.later = producer.emotion("happy", 1, {id: "later"});
      first.catch(() => {});""")
    await fake.until_received("emotion")
    fake.received.clear()

    def answer(message: Message) -> list[Message]:
        if message["type"] == "get_state":
            cues = [{"id": "later"}]
            snapshot = {"type": "state_snapshot", "id": message["id"], "cues": cues, "queue": []}
            return [snapshot]
        return fake.usual_answer(message)

    fake.answer = answer
    fake.drop()
    said = await tab.run("return [(await later).id, (await failure(first)).name];")
    assert said == ["later", "ReceiptLostError"]
    assert [m["type"] for m in fake.received if m["type"] != "ping"] == ["get_state", "emotion"]


async def test_texts(fake: FakeDaemon, tab: Tab) -> None:
    """What was held back is sent again after a cut; a pipe that is left early is ended."""
    await tab.run("globalThis.producer = new Producer(given[0]); await producer.ready;", fake.url)
    fake.answer = lambda m: [text_clean(m, "Hi ")]
    assert await tab.run("return (await producer.text('Hi [hap')).text;") == "Hi "
    fake.drop()
    await fake.until(lambda: fake.accepted == 2)
    tag = {"id": "t.1", "emotion": "happy", "intensity": 1.0, "at": 0}
    fake.answer = lambda m: [text_clean(m, " you", tag), ended("superseded", "t.1", by="x")]
    said = await tab.run("""
      const rest = await producer.textFinal("py] you");
      return [rest.text, rest.at, (await rest.cues[0].ended).by];""")
    assert said == [" you", [0], "x"]
    assert [m["delta"] for m in fake.of("text")] == ["Hi [hap", "[happy] you"]
    fake.received.clear()
    fake.answer = fake.usual_answer
    await tab.run("for await (const piece of producer.pipe(['one', 'two'])) break;")
    assert [m["final"] for m in await fake.until_received("text", 2)] == [False, True]


async def test_what_is_held_back_is_what_the_daemon_holds(fake: FakeDaemon, tab: Tab) -> None:
    """Worked out from the answers alone, for many texts cut anywhere, as in Python."""
    pieces = ["[happy]", "[happy:0.7]", '<emotion name="sad"/>', "[", "]", "<", "hap", "é😀", " "]
    pieces += ['<|ACT {"emotion":{"name":"angry"}}|>', "|>", "a < b", "[1]", "[x](y)", "<b>", "<|"]
    emotions, chance = table(), random.Random(7)
    cases = []
    for _ in range(400):
        reader = TagReader()
        for _ in range(3):
            text = "".join(chance.choices(pieces, k=chance.randrange(8)))
            delta = text[: chance.randrange(len(text) + 1)]
            before = reader.held
            clean, tags = reader.read(delta, emotions)
            cases.append([before + delta, clean, [tag.at for tag in tags], reader.held])
    wrong = await tab.run(
        """
      const held = ([text, clean, ats]) => client.heldBack(text, clean, ats);
      return given[0].filter((each) => held(each) !== each[3]);""",
        cases,
    )
    assert wrong == []
    assert any(held for *_, held in cases)
    assert await tab.run("return client.heldBack('abc', 'x', []);") is None


async def test_too_large_and_closing(fake: FakeDaemon, tab: Tab) -> None:
    """A message that the daemon hangs up on fails alone; closing settles everything else."""
    said = await tab.run(
        """
      globalThis.producer = new Producer(given[0]);
      const large = failure(producer.text("x".repeat(70000)));
      globalThis.cue = await producer.emotion("happy", 1, {id: "e"});
      return [(await large).code, cue.id];""",
        fake.url,
    )
    assert said == ["too_large", "e"]
    fake.answer = lambda _: []
    names = await tab.run("""
      const asked = failure(producer.state("idle"));
      await producer.close({timeoutMs: 50});
      const errors = [await asked, await failure(cue.ended), await failure(producer.ping())];
      return errors.map((error) => error.name);""")
    assert names == ["ClosedError"] * 3
    await fake.until(lambda: not fake.connections)


async def test_a_viewer_that_is_slow_gets_the_newest(fake: FakeDaemon, tab: Tab) -> None:
    """And counts what went by, over a reconnect too; what is no frame is passed over."""

    def message(seq: int, dropped: int) -> bytes:
        info = FrameInfo(seq, seq / 30, 1e12, 1, 1, {"neutral": 1.0}, None, False, None)
        return frame_codec.encode(info, JPEG, ImageFormat.JPEG, dropped)

    await tab.run(
        """
      globalThis.viewer = new Viewer(given[0], {token: "t"});
      globalThis.bad = 0;
      viewer.addEventListener("bad", () => { bad += 1; });
      viewer.addEventListener("frame", ({detail}) => { globalThis.last = detail.header.seq; });
      globalThis.frames = viewer[Symbol.asyncIterator]();
      globalThis.first = frames.next();""",
        fake.url,
    )
    await fake.until(lambda: bool(fake.connections))
    await fake.say(message(1, 0))
    assert await tab.run("return (await first).value.header.seq;") == 1
    await fake.say(*(message(seq, 10) for seq in range(2, 8)), b"rubbish")
    await tab.until("bad === 1 && last === 7")
    taken = "const {value} = await frames.next(); return [value.header.seq, value.dropped];"
    assert await tab.run(taken) == [7, 10 + 5]
    fake.drop()
    await fake.until(lambda: fake.accepted == 2)
    await fake.say(message(3, 1))
    assert await tab.run(taken) == [3, 10 + 5 + 1]
    assert await tab.run("viewer.close(); return (await frames.next()).done;")
    assert all("token=t" in path for path, _ in fake.requests if path.startswith("/v1/"))
    assert json.dumps(fake.received) == "[]"
