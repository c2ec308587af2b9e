"""The stage in virtual time: honest receipts, paced frames, rest, character switches."""

import asyncio
import gc
import math
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from orchestrator.characters import CharacterBook
from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.injection import MAX_SOURCES
from orchestrator.pacing import BACK_STEP_S, PULL_SHARE
from orchestrator.settings import IdleSettings, StageSettings, default_config_dir
from orchestrator.stage import ANSWER_S, Stage
from pipeline.fallback import FallbackLadder
from pipeline.ports import Metric
from pipeline.types import (
    Activity,
    CharacterSwitch,
    CueAccepted,
    DirectControls,
    EmotionEvent,
    GetState,
    ImageFormat,
    Interrupt,
    Mood,
    Policy,
    StateChange,
    TextDelta,
)
from tests.fakes.audience import Answers, Viewer
from tests.fakes.clock import VirtualClock
from tests.fakes.ladder import FakeLadder, FakePicture
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.waiting import until

CONFIG = default_config_dir()
EMOTIONS = EmotionTable.load(CONFIG / "emotions.toml")
PERIOD_S = 1 / 30


class Theatre:
    """A stage with everything around it faked."""

    def __init__(self, book: CharacterBook, idle: bool = False, render_s: float = 0.0) -> None:
        self.clock = VirtualClock()
        self.ladder = FakeLadder(self.clock, render_s)
        self.metrics = RecordingMetrics()
        self.files = ThreadPoolExecutor(1)
        self.answers = Answers()
        self.stage = Stage(
            "main",
            server="test/0",
            settings=StageSettings(),
            idle=IdleSettings(enabled=idle),
            emotions=EMOTIONS,
            characters=book,
            ladder=cast(FallbackLadder, self.ladder),
            files=self.files,
            metrics=self.metrics,
            clock=self.clock,
        )
        self.viewer = Viewer()

    def send(self, **fields: Any) -> None:
        fields.setdefault("id", f"e{len(self.answers.all)}")
        self.stage.submit(EmotionEvent(**fields), self.answers)

    async def until(self, condition: Any, turns: int = 20_000) -> None:
        for _ in range(turns):
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError(f"never happened; answers: {self.answers.all}")

    async def frames(self, count: int) -> None:
        wanted = self.stage.seq + count
        await self.until(lambda: self.stage.seq >= wanted)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> CharacterBook:
    """The bundled character under two names."""
    folder = tmp_path_factory.mktemp("characters")
    astronaut = CONFIG / "characters" / "astronaut"
    for name in ("first", "second"):
        (folder / f"{name}.toml").write_text(
            f'portrait = "{astronaut}/portrait.jpg"\nlandmarks = "{astronaut}/landmarks.json"\n'
        )
    return CharacterBook.load(folder, EMOTIONS.labels)


@asynccontextmanager
async def playing(book: CharacterBook, **options: Any) -> AsyncIterator[Theatre]:
    """A running stage with one viewer."""
    theatre = Theatre(book, **options)
    await theatre.stage.introduce(book.get("first"))
    theatre.stage.attach(theatre.viewer)
    running = asyncio.create_task(theatre.stage.run())
    try:
        await theatre.frames(2)
        yield theatre
        assert not running.done(), running
    finally:
        running.cancel()
        await asyncio.wait([running])
        theatre.files.shutdown()


async def test_receipts_name_the_frames_that_show_the_change(book: CharacterBook) -> None:
    """started and peaked carry the seq of the first frame at 10 % and 90 % of the change."""
    async with playing(book) as theatre:
        sent_s = theatre.clock.now()
        theatre.send(id="a", emotion="joy", intensity=1.0, hold_s=0.5)
        await theatre.until(lambda: "CueFinished" in theatre.answers.kinds())
        assert theatre.answers.kinds() == ["CueAccepted", "CueStarted", "CuePeaked", "CueFinished"]
        goal = EMOTIONS["happy"].maximum
        shown = {info.seq: info.emotion["happy"] for info in theatre.viewer.infos}
        for kind, change in (("CueStarted", 0.1), ("CuePeaked", 0.9)):
            receipt = theatre.answers.one(kind)
            assert shown[receipt.seq] >= change * goal
            assert shown[receipt.seq - 1] < change * goal
            info = next(i for i in theatre.viewer.infos if i.seq == receipt.seq)
            assert info.event == "a"
            assert receipt.pts_s == info.pts_s
            published_s = info.pts_s + theatre.stage._started_s
            assert receipt.latency_s == pytest.approx(published_s - sent_s, abs=2e-3)
        finished = theatre.answers.one("CueFinished")
        assert shown[finished.seq] == 0.0
        assert shown[finished.seq - 1] > 0.0
        assert theatre.metrics.values(Metric.STARTED_SECONDS, stage="main")
        assert theatre.metrics.total(Metric.CUES_ENDED, stage="main", ending="finished") == 1


async def test_the_figures_tell_who_watches_and_what_is_wanted(book: CharacterBook) -> None:
    """Frames wanted per second and viewers, as they are now, are there without a single event."""
    async with playing(book) as theatre:
        gauge = theatre.metrics.gauge
        assert gauge(Metric.FPS_WANTED, stage="main") == StageSettings().fps
        assert gauge(Metric.VIEWERS, stage="main") == 1
        assert gauge(Metric.STAGE_DEGRADED, stage="main") == 0
        another = Viewer()
        theatre.stage.attach(another)
        assert gauge(Metric.VIEWERS, stage="main") == 2
        theatre.stage.detach(another)
        theatre.stage.detach(theatre.viewer)
        assert gauge(Metric.VIEWERS, stage="main") == 0
        theatre.stage.close()
        theatre.metrics.forget(stage="main")
        theatre.stage.attach(another)
        assert gauge(Metric.VIEWERS, stage="main") is None, "a removed stage comes back"
        theatre.stage.detach(another)


async def test_latency_of_a_planned_cue_counts_from_its_start(book: CharacterBook) -> None:
    """A cue with at_ms is not late because it was sent early."""
    async with playing(book) as theatre:
        theatre.send(id="later", emotion="happy", at_s=2.0)
        await theatre.until(lambda: "CueStarted" in theatre.answers.kinds())
        assert theatre.answers.one("CueStarted").latency_s < 0.15


async def test_a_producer_that_comes_back_hears_what_it_missed(book: CharacterBook) -> None:
    """Sent again over another connection: the receipts so far, then the rest; never twice."""
    async with playing(book) as theatre:
        event = EmotionEvent("e1", "happy", attack_s=0.1, hold_s=1.0, decay_s=0.1)
        theatre.stage.submit(event, theatre.answers)
        await theatre.until(lambda: "CueStarted" in theatre.answers.kinds())
        second, third = Answers(), Answers()  # the first still seems to be alive
        theatre.stage.submit(event, second)
        assert second.kinds() == theatre.answers.kinds()
        assert second.one("CueAccepted").duplicate
        await theatre.until(lambda: "CueFinished" in theatre.answers.kinds())
        assert second.kinds() == ["CueAccepted", "CueStarted", "CuePeaked", "CueFinished"]
        theatre.stage.submit(event, third)
        assert third.kinds() == second.kinds()
        theatre.stage.submit(event, third)
        assert third.kinds() == [*second.kinds(), "CueAccepted"]


async def test_a_resent_event_happens_once(book: CharacterBook) -> None:
    """Same id and body: accepted as duplicate, nothing else; other body: refused."""
    async with playing(book) as theatre:
        for _ in range(3):
            theatre.send(id="a", emotion="happy", hold_s=0.1)
        accepted = [r for r in theatre.answers.all if type(r).__name__ == "CueAccepted"]
        assert [each.duplicate for each in accepted] == [False, True, True]
        theatre.send(id="a", emotion="sad", hold_s=0.1)
        assert theatre.answers.one("CueRejected").error.code == "id_reused"
        await theatre.until(lambda: "CueFinished" in theatre.answers.kinds())
        await theatre.frames(5)
        assert theatre.answers.kinds().count("CueStarted") == 1
        assert theatre.answers.kinds().count("CueFinished") == 1


async def test_receipts_follow_a_producer_that_lost_its_connection(book: CharacterBook) -> None:
    """Whoever resends the event over a new connection gets its receipts, those past and to come."""
    async with playing(book) as theatre:
        event = EmotionEvent(id="a", emotion="happy", hold_s=0.2)
        lost, found = Answers(), Answers()
        theatre.stage.submit(event, lost)
        await theatre.until(lambda: "CuePeaked" in lost.kinds())
        lost.closed = True
        theatre.stage.submit(event, found)
        await theatre.until(lambda: "CueFinished" in found.kinds())
        assert found.kinds() == ["CueAccepted", "CueStarted", "CuePeaked", "CueFinished"]
        assert "CueFinished" not in lost.kinds()


async def test_an_ending_is_told_to_whoever_asks_again_and_once(book: CharacterBook) -> None:
    """Over a new connection all that was missed; the connections of before are not kept."""
    async with playing(book) as theatre:
        event = EmotionEvent(id="a", emotion="happy", hold_s=0.0)
        connections, found = [Answers()], Answers()
        theatre.stage.submit(event, connections[0])
        await theatre.until(lambda: "CueFinished" in connections[0].kinds())
        lost = weakref.ref(connections.pop())
        gc.collect()
        assert lost() is None
        for _ in range(2):
            theatre.stage.submit(event, found)
        kinds = ["CueAccepted", "CueStarted", "CuePeaked", "CueFinished", "CueAccepted"]
        assert found.kinds() == kinds


async def test_a_resent_event_stays_accepted_when_its_emotion_has_gone(book: CharacterBook) -> None:
    """A reload takes nothing back."""
    async with playing(book) as theatre:
        zesty = replace(EMOTIONS["happy"], label="zesty", aliases=())
        before = [EMOTIONS[label] for label in EMOTIONS.labels]
        theatre.stage.reload(EmotionTable([*before, zesty]), book)
        theatre.send(id="a", emotion="zesty")
        theatre.stage.reload(EMOTIONS, book)
        theatre.send(id="a", emotion="zesty")
        again = theatre.answers.all[-1]
        assert isinstance(again, CueAccepted)
        assert (again.used, again.duplicate) == ("zesty", True)


async def test_unknown_emotion_changes_nothing(book: CharacterBook) -> None:
    """It is rejected with suggestions and the id stays free."""
    async with playing(book) as theatre:
        theatre.send(id="a", emotion="hapy")
        error = theatre.answers.one("CueRejected").error
        assert error.code == "unknown_emotion"
        assert "happy" in error.suggestions
        await theatre.frames(10)
        assert all(info.emotion["neutral"] == 1.0 for info in theatre.viewer.infos)
        theatre.send(id="a", emotion="happy")
        assert "CueAccepted" in theatre.answers.kinds("a")


async def test_interrupt_is_done_when_the_face_is_at_rest(book: CharacterBook) -> None:
    """interrupt.done names a neutral frame, at most one frame after the fade, and who it ended."""
    async with playing(book) as theatre:
        theatre.send(id="a", emotion="angry", hold_s=60.0)
        theatre.send(id="b", emotion="sad", policy=Policy.QUEUE)
        await theatre.until(lambda: "CuePeaked" in theatre.answers.kinds())
        theatre.stage.submit(Interrupt("stop", 0.12), theatre.answers)
        await theatre.until(lambda: "InterruptDone" in theatre.answers.kinds())
        done = theatre.answers.one("InterruptDone")
        assert done.superseded == ("a", "b")
        assert done.latency_s <= 0.12 + 2 * PERIOD_S
        shown = {info.seq: info.emotion["neutral"] for info in theatre.viewer.infos}
        assert shown[done.seq] == 1.0
        assert shown[done.seq - 1] < 1.0
        for cue in ("a", "b"):
            assert theatre.answers.one("CueSuperseded", cue).by == "stop"


async def test_a_degraded_frame_earns_no_receipt(book: CharacterBook) -> None:
    """While another face is shown nothing counts as started; the ending still comes."""
    async with playing(book) as theatre:
        theatre.ladder.degraded = "fake: broken"
        theatre.send(id="a", emotion="happy", hold_s=0.3)
        await theatre.until(lambda: "CueFinished" in theatre.answers.kinds())
        assert theatre.answers.kinds() == ["CueAccepted", "CueFinished"]
        assert theatre.viewer.infos[-1].degraded == "fake: broken"
        assert theatre.viewer.infos[-1].event is None
        assert set(theatre.viewer.infos[-1].emotion) == set(EMOTIONS.labels)
        theatre.ladder.degraded = None
        theatre.send(id="b", emotion="happy", hold_s=0.3)
        await theatre.until(lambda: "CueFinished" in theatre.answers.kinds("b"))
        assert "CueStarted" in theatre.answers.kinds("b")


async def test_no_change_says_so(book: CharacterBook) -> None:
    """Neutral on a neutral face starts and peaks with its first frame."""
    async with playing(book) as theatre:
        theatre.send(id="a", emotion="neutral")
        await theatre.until(lambda: "CuePeaked" in theatre.answers.kinds())
        started, peaked = theatre.answers.one("CueStarted"), theatre.answers.one("CuePeaked")
        assert started.no_change
        assert peaked.no_change
        assert started.seq == peaked.seq


async def test_frames_are_published_on_their_deadlines(book: CharacterBook) -> None:
    """With renders of changing length seq is gapless and pts stays on the grid of the clock."""
    async with playing(book, render_s=0.02) as theatre:
        await theatre.frames(60)
        infos = theatre.viewer.infos[-60:]
        assert [i.seq for i in infos] == list(range(infos[0].seq, infos[0].seq + 60))
        steps = {round(b.pts_s - a.pts_s, 6) for a, b in pairwise(infos)}
        assert steps == {round(PERIOD_S, 6)}
        assert theatre.metrics.total(Metric.TICKS_SKIPPED, stage="main", reason="late") <= 2


async def test_a_cue_that_just_missed_a_frame_has_the_next_one_come_earlier(
    book: CharacterBook,
) -> None:
    """It shows a period and 3 ms after it came, wherever in the tick that was."""
    async with playing(book) as theatre:
        draw, render_s = theatre.ladder.picture, 0.010
        theatre.ladder.render_s = render_s
        await theatre.frames(20)

        async def interrupted(*args: Any, **options: Any) -> FakePicture:
            """A cue comes while every seventh picture is drawn."""
            number, rest = divmod(theatre.ladder.pictures, 7)
            begun_s = theatre.clock.now()
            if rest == 0:
                await theatre.clock.sleep_until(begun_s + number * 0.618 % 1.0 * render_s)
                label = ("happy", "surprised")[number % 2]
                theatre.send(id=f"c{number}", emotion=label, attack_s=0.0, hold_s=math.inf)
            theatre.ladder.render_s = render_s - (theatre.clock.now() - begun_s)
            return await draw(*args, **options)

        theatre.ladder.picture = interrupted  # type: ignore[method-assign]
        await theatre.frames(7 * 42)
        started = [r for r in theatre.answers.all if type(r).__name__ == "CueStarted"]
        assert len(started) >= 40
        latencies_s = [each.latency_s for each in started]
        assert max(latencies_s) <= PERIOD_S + ANSWER_S + 1e-6
        assert max(latencies_s) > PERIOD_S  # some would have come later
        moments = [info.pts_s for info in theatre.viewer.infos]
        intervals_s = [after - before for before, after in pairwise(moments)]
        assert min(intervals_s) >= (1.0 - PULL_SHARE) * PERIOD_S - 1e-6
        assert max(intervals_s) <= PERIOD_S + BACK_STEP_S + 1e-6


async def test_late_ticks_are_skipped_and_counted(book: CharacterBook) -> None:
    """Renders of two periods give half the frames, none queued up."""
    async with playing(book) as theatre:
        theatre.ladder.render_s = 2.2 * PERIOD_S
        await theatre.frames(5)
        begun_s, seq = theatre.clock.now(), theatre.stage.seq
        await theatre.frames(20)
        per_frame_s = (theatre.clock.now() - begun_s) / (theatre.stage.seq - seq)
        assert 2.2 * PERIOD_S - 1e-6 <= per_frame_s <= 3 * PERIOD_S
        skipped = theatre.metrics.total(Metric.TICKS_SKIPPED, stage="main", reason="late")
        assert skipped >= 20


async def test_a_jerk_is_logged_with_where_the_time_went(book: CharacterBook) -> None:
    """Several ticks missed at once: one line that tells a slow picture from a taken loop."""
    async with playing(book) as theatre:
        theatre.ladder.render_s = 4.5 * PERIOD_S
        with capture_logs() as lines:
            await theatre.frames(20)
    told = [line for line in lines if line["event"] == "ticks_skipped"]
    assert [line["ticks"] for line in told] == [4]
    assert told[0]["drawing_ms"] == pytest.approx(150.0, abs=1.0)
    assert told[0]["woken_late_ms"] == pytest.approx(0.0, abs=1.0)


async def test_at_rest_it_does_not_render(book: CharacterBook) -> None:
    """When nobody watches and nothing changes no picture is drawn, until an event comes."""
    async with playing(book, idle=True) as theatre:
        theatre.stage.detach(theatre.viewer)
        await theatre.frames(0)
        for _ in range(50):
            await asyncio.sleep(0)
        drawn = theatre.ladder.pictures
        await asyncio.sleep(0.05)
        assert theatre.ladder.pictures == drawn
        theatre.send(id="a", emotion="happy", hold_s=0.1)
        await theatre.until(lambda: "CueFinished" in theatre.answers.kinds())
        assert theatre.ladder.pictures > drawn + 10


async def test_whoever_asks_for_a_picture_counts_as_watching(book: CharacterBook) -> None:
    """A snapshot of a stage at rest sets it going for a while."""
    async with playing(book) as theatre:
        theatre.stage.detach(theatre.viewer)
        for _ in range(50):
            await asyncio.sleep(0)
        seq = theatre.stage.seq
        found = await theatre.stage.picture(ImageFormat.PNG)
        assert found is not None
        assert found[1] == b"png"
        await theatre.until(lambda: theatre.stage.seq > seq + 30)


async def test_the_old_face_stays_until_the_new_one_is_ready(book: CharacterBook) -> None:
    """Frames go on during a switch; character.switched names the first frame of the new one."""
    async with playing(book) as theatre:
        theatre.ladder.gate = asyncio.Event()
        theatre.stage.submit(CharacterSwitch("s", "second"), theatre.answers)
        seq = theatre.stage.seq
        await until(lambda: theatre.stage.seq >= seq + 30)
        assert theatre.answers.all == []
        assert theatre.stage.character_name == "first"
        theatre.ladder.gate.set()
        await until(lambda: bool(theatre.answers.all))
        switched = theatre.answers.one("CharacterSwitched")
        assert switched.character == "second"
        assert theatre.stage.character_name == "second"
        assert theatre.stage.memory()["character"] == "second"


async def test_who_waited_during_a_reload_comes_as_read_last(
    book: CharacterBook, tmp_path: Path
) -> None:
    """What was asked for before a reload shows the files as they are after it."""
    astronaut = CONFIG / "characters" / "astronaut"
    where = f'portrait = "{astronaut}/portrait.jpg"\nlandmarks = "{astronaut}/landmarks.json"\n'
    (tmp_path / "first.toml").write_text(where)
    (tmp_path / "second.toml").write_text(f"{where}idle_seed = 77\n")
    async with playing(book) as theatre:
        theatre.ladder.gate = asyncio.Event()
        for id_, name in zip("stuvw", ("first", *["second"] * 4), strict=True):
            theatre.stage.submit(CharacterSwitch(id_, name), theatre.answers)
            await asyncio.sleep(0)  # the first begins, four wait
        theatre.stage.reload(EMOTIONS, CharacterBook.load(tmp_path, EMOTIONS.labels))
        theatre.ladder.gate.set()
        await until(lambda: "CharacterSwitched" in theatre.answers.kinds("w"))
        assert theatre.stage._character is not None
        assert theatre.stage._character.idle_seed == 77


async def test_a_reload_undoes_no_switch(book: CharacterBook) -> None:
    """Who was asked for before or after it stays, and is read anew last of all."""
    for reload_first in (True, False):
        async with playing(book) as theatre:
            if reload_first:
                theatre.stage.reload(EMOTIONS, book)
            theatre.stage.submit(CharacterSwitch("s", "second"), theatre.answers)
            if not reload_first:
                theatre.stage.reload(EMOTIONS, book)
            await until(lambda stage=theatre.ladder: len(stage.shown) == 3)
            await theatre.frames(3)
            assert theatre.stage.character_name == "second"
            assert len(theatre.ladder.shown) == 3
            assert theatre.answers.one("CharacterSwitched").character == "second"


async def test_a_switch_that_fails_keeps_the_old_face(book: CharacterBook) -> None:
    """Unknown characters are refused at once, unshowable ones when that is found out."""
    async with playing(book) as theatre:
        theatre.stage.submit(CharacterSwitch("s", "secnd"), theatre.answers)
        unknown = theatre.answers.one("Failure", "s").error
        assert unknown.code == "unknown_character"
        assert unknown.suggestions[0] == "second"
        theatre.ladder.refuses = "no memory"
        theatre.stage.submit(CharacterSwitch("t", "second"), theatre.answers)
        await until(lambda: bool(theatre.answers.kinds("t")))
        assert "no memory" in theatre.answers.one("Failure", "t").error.message
        assert theatre.stage.character_name == "first"


async def test_key_faces_are_drawn_ahead(book: CharacterBook) -> None:
    """Neutral comes first, then the peak of each emotion."""
    async with playing(book) as theatre:
        weights = [dict(weights) for _, weights in theatre.ladder.ahead]
        assert weights[0] == {"neutral": 1.0}
        peaks = {
            label: w for each in weights[1:] for label, w in each.items() if label != "neutral"
        }
        assert peaks == {
            label: EMOTIONS[label].maximum for label in EMOTIONS.labels if label != "neutral"
        }


async def test_the_snapshot_and_hello_tell_what_is_on(book: CharacterBook) -> None:
    """GET /v1/state's body has every field of the protocol; hello describes the emotions."""
    async with playing(book) as theatre:
        theatre.send(id="a", emotion="happy", hold_s=float("inf"))
        theatre.send(id="b", emotion="sad", policy=Policy.QUEUE)
        await theatre.until(lambda: "CuePeaked" in theatre.answers.kinds())
        theatre.stage.submit(GetState("g"), theatre.answers)
        body = theatre.answers.one("StateSnapshot").body
        assert {"seq", "pts_ms", "character", "state", "weights", "controls", "cues", "queue",
                "viewers", "renderer", "cache", "fps"} <= set(body)  # fmt: skip
        assert [cue["id"] for cue in body["cues"]] == ["a"]
        assert body["cues"][0]["remaining_ms"] is None
        assert [cue["id"] for cue in body["queue"]] == ["b"]
        assert body["controls"]["mouthSmileLeft"] > 0.3
        assert body["viewers"] == {"websocket": 1}
        assert body["fps"] == pytest.approx(30.0, abs=1.0)
        assert all(weight == round(weight, 4) for weight in body["weights"].values())
        hello = theatre.stage.hello()
        assert hello["protocol"] == "1.0"
        assert hello["emotions"]["surprised"]["attack_ms"] == 150
        assert "joy" in hello["emotions"]["happy"]["aliases"]
        assert len(hello["controls"]) == 52


async def test_mood_is_taken_and_remembered(book: CharacterBook) -> None:
    """A mood changes the face slightly and is in the memory of the next run."""
    async with playing(book) as theatre:
        theatre.stage.submit(Mood("m", 0.9, 0.2, 600.0), theatre.answers)
        assert theatre.answers.kinds() == ["MoodOk"]
        await theatre.frames(90)
        assert theatre.stage.snapshot()["controls"]["mouthSmileLeft"] > 0.02
        other = Theatre(book)
        other.stage.remember(theatre.stage.memory())
        other.clock.now_s += 5.0
        assert other.stage.snapshot()["mood"]["valence"] == pytest.approx(0.9, abs=0.05)
        other.files.shutdown()


async def test_reload_uses_the_new_table(book: CharacterBook, tmp_path: Path) -> None:
    """After a reload new aliases are understood; the running cue goes on."""
    async with playing(book) as theatre:
        theatre.send(id="a", emotion="happy", hold_s=0.5)
        text = (CONFIG / "emotions.toml").read_text().replace('"joy"', '"joy", "hurrah"')
        (tmp_path / "emotions.toml").write_text(text)
        theatre.stage.reload(EmotionTable.load(tmp_path / "emotions.toml"), book)
        theatre.send(id="b", emotion="hurrah", policy=Policy.QUEUE)
        assert theatre.answers.one("CueAccepted", "b").used == "happy"
        await theatre.until(lambda: "CueFinished" in theatre.answers.kinds("a"))


# --- text ---------------------------------------------------------------------------------


def write(theatre: Theatre, *deltas: str, id_: str = "t", final: bool = True) -> None:
    """Send a text in pieces."""
    for number, delta in enumerate(deltas):
        last = final and number == len(deltas) - 1
        theatre.stage.submit(TextDelta(id_, delta, last), theatre.answers)


async def test_tags_in_a_text_become_cues_with_receipts(book: CharacterBook) -> None:
    """The clean text names the cue before its receipts come; they are those of an emotion."""
    async with playing(book) as theatre:
        write(theatre, "Oh, [jo", "y:0.5] how [nice]", " to see you.")
        cleans = [reply for reply in theatre.answers.all if type(reply).__name__ == "TextClean"]
        assert (
            "".join(getattr(reply, "delta", "") for reply in cleans)
            == "Oh,  how [nice] to see you."
        )
        (cue,) = [cue for reply in cleans for cue in getattr(reply, "cues", ())]
        assert (cue.id, cue.emotion, cue.intensity, cue.at) == ("t.1", "happy", 0.5, 0)
        assert theatre.answers.kinds()[:3] == ["TextClean", "TextClean", "CueAccepted"]
        await theatre.until(lambda: "CueFinished" in theatre.answers.kinds("t.1"))
        expected = ["CueAccepted", "CueStarted", "CuePeaked", "CueFinished"]
        assert theatre.answers.kinds("t.1") == expected
        peaked = theatre.answers.one("CuePeaked").seq
        shown = {info.seq: info.emotion["happy"] for info in theatre.viewer.infos}
        assert shown[peaked] == pytest.approx(0.5 * EMOTIONS["happy"].maximum, rel=0.12)


async def test_a_tag_at_the_end_of_what_was_sent_shows_without_more(book: CharacterBook) -> None:
    """A sentence that stops at a tag moves the face, watched or not, though no `final` comes."""
    async with playing(book) as theatre:
        write(theatre, "That is [happy]", final=False)
        assert theatre.answers.kinds() == ["TextClean"]
        await theatre.until(lambda: "CuePeaked" in theatre.answers.kinds("t.1"))
        assert theatre.answers.kinds()[:3] == ["TextClean", "TextClean", "CueAccepted"]


async def test_cues_of_a_text_have_ids_of_their_own(book: CharacterBook) -> None:
    """The same text id again counts on; long ids are cut, and stay different."""
    async with playing(book) as theatre:
        theatre.send(id="t.2", emotion="sad")
        write(theatre, "[happy] [sad] ")
        write(theatre, "[angry]")
        for last in "ab":
            write(theatre, "[happy]", id_="x" * 63 + last)
        cues = [cue for reply in theatre.answers.all for cue in getattr(reply, "cues", ())]
        ids = [cue.id for cue in cues]
        assert ids[:3] == ["t.1", "t.3", "t.4"]
        assert len(set(ids)) == len(ids) == 5
        assert all(len(each) <= 64 for each in ids)
        assert theatre.answers.kinds().count("CueAccepted") == 6


async def test_a_cue_of_a_text_can_be_outranked(book: CharacterBook) -> None:
    """Its tag is taken out all the same, and the producer learns why nothing shows."""
    async with playing(book) as theatre:
        theatre.send(id="a", emotion="angry", priority=9, hold_s=60.0)
        write(theatre, "No [happy] way")
        assert theatre.answers.one("TextClean").delta == "No  way"
        assert theatre.answers.one("CueRejected", "t.1").error.code == "outranked"


async def test_very_many_tags_in_one_delta_are_not_all_played(book: CharacterBook) -> None:
    """All are taken out, the first 64 become cues, and the text's id gets an error."""
    async with playing(book) as theatre:
        write(theatre, "[happy]" * 1000 + "!")
        clean = theatre.answers.one("TextClean")
        assert (clean.delta, len(clean.cues)) == ("!", 64)
        assert theatre.answers.one("Failure", "t").error.code == "rate_limited"
        assert theatre.answers.kinds().count("CueAccepted") == 64


async def test_texts_of_two_producers_do_not_mix(book: CharacterBook) -> None:
    """The same text id over two connections is two texts."""
    async with playing(book) as theatre:
        other = Answers()
        write(theatre, "[hap", final=False)
        theatre.stage.submit(TextDelta("t", "py] you", True), other)
        assert other.one("TextClean").delta == "py] you"
        write(theatre, "py] me")
        cues = [cue for reply in theatre.answers.all for cue in getattr(reply, "cues", ())]
        assert [cue.id for cue in cues] == ["t.1"]


# --- state --------------------------------------------------------------------------------


async def test_a_state_shows_on_the_face_and_in_the_snapshot(book: CharacterBook) -> None:
    """Thinking looks up and aside, speaking leaves an emotion a third of its mouth."""
    async with playing(book) as theatre:
        assert theatre.stage.hello()["states"] == ["idle", "listening", "thinking", "speaking"]
        assert theatre.stage.snapshot()["state"] == "idle"
        theatre.send(id="a", emotion="surprised", hold_s=60.0)
        await theatre.frames(60)
        jaw = theatre.stage.snapshot()["controls"]["jawOpen"]
        theatre.stage.submit(StateChange("s", Activity.THINKING), theatre.answers)
        assert "StateOk" in theatre.answers.kinds("s")
        assert theatre.stage.snapshot()["state"] == "thinking"
        await theatre.frames(30)
        thinking = theatre.stage.snapshot()["controls"]
        assert thinking["eyeLookUpLeft"] > 0.25
        assert thinking["eyeLookOutLeft"] > 0.25
        assert thinking["jawOpen"] == pytest.approx(jaw, abs=1e-3)
        theatre.stage.submit(StateChange(None, Activity.SPEAKING), theatre.answers)
        await theatre.frames(30)
        speaking = theatre.stage.snapshot()["controls"]
        assert speaking["jawOpen"] == pytest.approx(jaw / 3, abs=1e-3)
        assert speaking.get("eyeLookUpLeft", 0.0) < 0.05


# --- direct controls ----------------------------------------------------------------------


async def test_controls_move_the_face_and_lapse(book: CharacterBook) -> None:
    """A stage that nobody watches draws them while they last, and one face without them."""
    async with playing(book) as theatre:
        theatre.stage.detach(theatre.viewer)
        for _ in range(50):
            await asyncio.sleep(0)
        drawn, sent_s = theatre.ladder.pictures, theatre.clock.now()
        theatre.stage.submit(DirectControls(weights={"jawOpen": 0.8}), theatre.answers)
        await theatre.until(lambda: theatre.ladder.pictures >= drawn + 20)
        assert theatre.stage.snapshot()["controls"]["jawOpen"] == pytest.approx(0.8, abs=0.01)
        await theatre.until(lambda: "jawOpen" not in theatre.stage.snapshot()["controls"])
        assert theatre.clock.now() - sent_s == pytest.approx(1.2, abs=0.1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert theatre.ladder.pictures <= drawn + 1.2 / PERIOD_S + 3
        assert theatre.answers.all == []


async def test_controls_of_two_producers_are_told_apart(book: CharacterBook) -> None:
    """Each has its own newest message; equal replies are one producer."""
    async with playing(book) as theatre:
        other = Answers()
        for _ in range(3):
            theatre.stage.submit(DirectControls(weights={"jawOpen": 0.8}), theatre.answers)
            theatre.stage.submit(DirectControls(weights={"cheekPuff": 0.4}), other)
        await theatre.frames(10)
        controls = theatre.stage.snapshot()["controls"]
        assert controls["jawOpen"] == pytest.approx(0.8, abs=0.01)
        assert controls["cheekPuff"] == pytest.approx(0.4, abs=0.01)


async def test_too_many_producers_of_controls_are_refused(book: CharacterBook) -> None:
    """The one that is too many gets an error, and the face stays as it is."""
    async with playing(book) as theatre:
        for _ in range(MAX_SOURCES):
            theatre.stage.submit(DirectControls(weights={}), Answers())
        theatre.stage.submit(DirectControls("c", weights={"jawOpen": 1.0}), theatre.answers)
        assert theatre.answers.one("Failure", "c").error.code == "rate_limited"
