"""Several stages in one daemon: opened, closed, remembered, and isolated from each other."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from orchestrator.characters import CharacterBook
from orchestrator.clock import SystemClock
from orchestrator.expression.emotions import EmotionTable
from orchestrator.settings import (
    IdleSettings,
    LimitsSettings,
    Settings,
    StageOverrides,
    StageSettings,
    default_config_dir,
)
from orchestrator.stage import Stage
from orchestrator.stage_kit import StageKit
from orchestrator.stages import StageSet
from pipeline.errors import ConfigError, ErrorCode, InvalidEventError, RenderError
from pipeline.frame_cache import FrameCache
from pipeline.picture import FormatEncoder
from pipeline.ports import Metric
from pipeline.render_host import RendererSource, RenderHost
from pipeline.types import (
    CharacterSwitch,
    EmotionEvent,
    FrameInfo,
    Image,
    ImageFormat,
    Interrupt,
)
from tests.fakes.audience import Answers, Viewer
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.renderer import FakeRenderer
from tests.fakes.waiting import until

CONFIG = default_config_dir()
EMOTIONS = EmotionTable.load(CONFIG / "emotions.toml")
SIZE = StageSettings(character="first", width=64, height=64)


class Playhouse:
    """Stages around one fake renderer; everything between is real."""

    def __init__(self, book: CharacterBook, settings: Settings) -> None:
        self.metrics = RecordingMetrics()
        self.renderers: list[FakeRenderer] = []
        self.host = RenderHost([RendererSource("fake", self._make)], metrics=self.metrics)
        self.cache = FrameCache(8 * 2**20, self.metrics)
        self.encoder = FormatEncoder(self.cache, self.metrics)
        self.files = ThreadPoolExecutor(1)
        self.set = StageSet(
            settings,
            StageKit(
                server="test/0",
                idle=settings.idle,
                deadline_s=0.08,
                host=self.host,
                cache=self.cache,
                encoder=self.encoder,
                files=self.files,
                metrics=self.metrics,
                clock=SystemClock(),
            ),
            EMOTIONS,
            book,
        )
        self.book = book
        self.removed: list[Stage] = []
        self.changes = 0
        self.set.hooks.removed = self.removed.append
        self.set.hooks.changed = self._note_change
        self.trouble: Callable[[str], Image | None] = lambda portrait: None

    def _make(self) -> FakeRenderer:
        renderer = FakeRenderer("fake")
        renderer.always = lambda: self.trouble(renderer.rendered[-1][0])
        self.renderers.append(renderer)
        return renderer

    def _note_change(self) -> None:
        self.changes += 1

    def watch(self, name: str) -> Viewer:
        viewer = Viewer()
        self.set.get(name).attach(viewer)
        return viewer


def settings_with(**stages: StageOverrides) -> Settings:
    return Settings(
        stage=SIZE,
        stages=stages,
        idle=IdleSettings(enabled=False),
        limits=LimitsSettings(stages=4),
    )


@asynccontextmanager
async def playing(
    book: CharacterBook, settings: Settings | None = None, memory: dict[str, Any] | None = None
) -> AsyncIterator[Playhouse]:
    house = Playhouse(book, settings or settings_with())
    try:
        main = await house.set.open(memory or {})
        running = asyncio.create_task(main.run())
        house.set.run()
        try:
            yield house
        finally:
            running.cancel()
            await asyncio.wait([running])
            await house.set.close()
            house.set.let_go()
    finally:
        await house.encoder.close(5.0)
        await house.host.close(5.0)
        house.files.shutdown()


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> CharacterBook:
    """Two characters, with pictures that differ in a corner."""
    folder = tmp_path_factory.mktemp("characters")
    for name, crop in (("first", 0), ("second", 2)):
        shutil.copytree(CONFIG / "characters" / "astronaut", folder / name)
        toml = folder / name / "character.toml"
        toml.write_text(
            f'portrait = "portrait.jpg"\nlandmarks = "landmarks.json"\n'
            f"crop = [{crop}, 0, 800, 800]\n"
        )
    return CharacterBook.load(folder, EMOTIONS.labels)


def smile(event_id: str = "e1", emotion: str = "happy", **more: Any) -> EmotionEvent:
    return EmotionEvent(event_id, emotion, **{"attack_s": 0.05, "hold_s": 5.0, **more})


# --- isolated -----------------------------------------------------------------------------


async def test_messages_frames_and_ids_of_one_stage_never_appear_in_another(
    book: CharacterBook,
) -> None:
    """One smiles, the other does not; and each knows only its own ids."""
    async with playing(book, settings_with(lobby=StageOverrides(fps=20.0))) as house:
        main, lobby = Answers(), Answers()
        viewers = {name: house.watch(name) for name in ("main", "lobby")}
        house.set.get("main").submit(smile(), main)
        await until(lambda: "CuePeaked" in main.kinds())
        assert max(info.emotion["happy"] for info in viewers["main"].infos) > 0.7
        assert all(info.emotion["happy"] == 0.0 for info in viewers["lobby"].infos)
        assert all(info.event is None for info in viewers["lobby"].infos)
        assert house.set.get("lobby").snapshot()["cues"] == []
        # The same id with another body: on the same stage it would be refused.
        house.set.get("lobby").submit(smile(emotion="sad"), lobby)
        await until(lambda: "CuePeaked" in lobby.kinds())
        assert lobby.kinds()[0] == "CueAccepted"
        assert all(info.emotion["sad"] == 0.0 for info in viewers["main"].infos)


async def test_a_stage_whose_renders_fail_degrades_alone(book: CharacterBook) -> None:
    """Another character on the same renderer goes on as if nothing had happened."""
    async with playing(book, settings_with(lobby=StageOverrides(character="second"))) as house:
        broken = house.set.get("lobby").portrait.key

        def trouble(portrait: str) -> None:
            if portrait == broken:
                raise RenderError("no luck with this one")

        house.trouble = trouble
        main, lobby = house.watch("main"), house.watch("lobby")
        for name in ("main", "lobby"):
            house.set.get(name).submit(smile(), Answers())
        await until(lambda: any(info.degraded for info in lobby.infos))
        await until(lambda: any(info.emotion["happy"] > 0.7 for info in main.infos))
        assert [info.degraded for info in main.infos if info.degraded] == []
        assert house.set.get("main").degraded is None
        assert "no luck" in (house.set.get("lobby").degraded or "")
        assert house.metrics.gauge(Metric.DEGRADED, stage="main", rung="fake") == 1.0
        assert house.metrics.gauge(Metric.DEGRADED, stage="lobby", rung="fake") == 0.0
        assert house.metrics.gauge(Metric.STAGE_DEGRADED, stage="main") == 0.0
        assert house.metrics.gauge(Metric.STAGE_DEGRADED, stage="lobby") == 1.0


async def test_a_stage_whose_renders_are_slow_starves_nobody(book: CharacterBook) -> None:
    """They take turns: where one takes longer than its deadline, the other still gets drawn."""
    async with playing(book, settings_with(lobby=StageOverrides(character="second"))) as house:
        slow = house.set.get("lobby").portrait.key

        def trouble(portrait: str) -> None:
            if portrait == slow:
                time.sleep(0.15)

        house.trouble = trouble
        main, _ = house.watch("main"), house.watch("lobby")
        answers = Answers()
        for name in ("main", "lobby"):
            for number in range(8):
                event = smile(f"e{number}", at_s=number * 0.2, hold_s=0.05, decay_s=0.1)
                house.set.get(name).submit(event, answers if name == "main" else Answers())
        before = len(main.infos)
        await until(lambda: len(main.infos) - before > 30)
        fresh = [info for info in main.infos[before:] if info.degraded is None]
        assert len(fresh) > 10
        await until(lambda: answers.kinds().count("CueStarted") >= 3)


async def test_a_loop_that_breaks_is_started_again_and_disturbs_nobody(
    book: CharacterBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that is not `main` comes back by itself; `main` never notices."""
    monkeypatch.setattr("orchestrator.stage_kit.RESTART_S", 0.01)
    async with playing(book, settings_with(lobby=StageOverrides())) as house:
        main, lobby = house.watch("main"), house.watch("lobby")
        await until(lambda: main.infos and lobby.infos)

        class Bug:
            def offer(self, info: FrameInfo, image: bytes) -> bool:
                house.set.get("lobby").detach(self)  # type: ignore[arg-type]
                raise ZeroDivisionError

            kind, format = "websocket", ImageFormat.JPEG

        before = len(lobby.infos)
        with pytest.raises(ZeroDivisionError):  # the newest frame, at once
            house.set.get("lobby").attach(Bug())  # type: ignore[arg-type]
        bug = Bug()
        house.set.get("lobby")._hub._sinks[ImageFormat.JPEG][bug] = None  # type: ignore[index]
        with capture_logs() as logs:
            await until(lambda: len(lobby.infos) > before + 3)
        assert [line["stage"] for line in logs if line["event"] == "stage_broke"] == ["lobby"]
        seqs = [info.seq for info in main.infos]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


# --- coming and going ---------------------------------------------------------------------


async def test_a_stage_comes_at_run_time_with_what_it_was_asked_for(book: CharacterBook) -> None:
    """Its own size and rate; what was not asked for is as on `main`."""
    async with playing(book) as house:
        await house.set.create("den", StageOverrides(character="second", width=96, fps=10.0))
        viewer = house.watch("den")
        await until(lambda: viewer.infos)
        assert (viewer.infos[0].width, viewer.infos[0].height) == (96, 64)
        assert house.set.names == ("main", "den")
        assert house.set.body("den")["made"] is True
        assert house.set.get("den").hello()["fps"] == 10
        assert house.changes == 1


async def test_a_removed_stage_pays_its_debts_and_is_gone(book: CharacterBook) -> None:
    """Cues end, interrupts and switches are refused, viewers are let go, figures forgotten."""
    async with playing(book) as house:
        stage = await house.set.create("den", StageOverrides())
        cues, other = Answers(), Answers()
        stage.submit(smile("e1"), cues)
        await until(lambda: "CueStarted" in cues.kinds())
        stage.submit(Interrupt("i1", 5.0), other)
        stage.submit(CharacterSwitch("c1", "second"), other)
        await house.set.remove("den")
        assert cues.kinds()[-1] == "CueSuperseded"
        assert {each.id for each in other.all} == {"i1", "c1"}  # type: ignore[union-attr]
        assert house.removed == [stage]
        with pytest.raises(InvalidEventError) as gone:
            house.set.get("den")
        assert gone.value.code is ErrorCode.UNKNOWN_STAGE
        late = Answers()
        stage.submit(smile("e2"), late)
        assert late.code() == "unknown_stage"
        assert house.metrics.total(Metric.FRAMES_PUBLISHED, stage="den") == 0
        assert house.metrics.total(Metric.FRAMES_PUBLISHED, stage="main") > 0
        again = await house.set.create("den", StageOverrides())
        assert again is not stage
        again.submit(smile("e1", "sad"), late)
        assert late.kinds()[-1] == "CueAccepted"


async def test_main_and_those_of_the_settings_stay(book: CharacterBook) -> None:
    """They would come back with the next start."""
    async with playing(book, settings_with(lobby=StageOverrides())) as house:
        for name in ("main", "lobby"):
            with pytest.raises(InvalidEventError) as stays:
                await house.set.remove(name)
            assert stays.value.code is ErrorCode.CONFLICT
        with pytest.raises(InvalidEventError) as unknown:
            await house.set.remove("nobody")
        assert unknown.value.code is ErrorCode.UNKNOWN_STAGE


@pytest.mark.parametrize("name", ["", "nobody"])
async def test_an_unknown_name_is_told(book: CharacterBook, name: str) -> None:
    """The empty one as well: only who names none gets `main`."""
    async with playing(book) as house:
        with pytest.raises(InvalidEventError, match=f"no stage '{name}'; there is main") as unknown:
            house.set.get(name)
        assert unknown.value.code is ErrorCode.UNKNOWN_STAGE


@pytest.mark.parametrize("name", ["", "Den", "a b", "../x", "den\n", "dén", "x" * 65, "a\0"])
async def test_names_are_checked(book: CharacterBook, name: str) -> None:
    """1 to 64 of a-z, 0-9, '-' and '_', and nothing behind them."""
    async with playing(book) as house:
        with pytest.raises(InvalidEventError) as refused:
            await house.set.create(name, StageOverrides())
        assert (refused.value.code, refused.value.field) == (ErrorCode.INVALID_MESSAGE, "name")
        assert house.set.names == ("main",)


async def test_their_number_is_bounded_and_names_are_taken_once(book: CharacterBook) -> None:
    """Two that come at the same time count as two."""
    async with playing(book) as house:
        wanted = ["den", "den", "hall", "roof", "yard"]
        made = await asyncio.gather(
            *(house.set.create(name, StageOverrides()) for name in wanted), return_exceptions=True
        )
        assert [isinstance(each, Stage) for each in made] == [True, False, True, True, False]
        assert house.set.names == ("main", "den", "hall", "roof")


async def test_one_that_cannot_be_opened_leaves_nothing(book: CharacterBook) -> None:
    """Neither its name nor its place is taken."""
    async with playing(book) as house:
        with pytest.raises(InvalidEventError) as unknown:
            await house.set.create("den", StageOverrides(character="nobody"))
        assert unknown.value.code is ErrorCode.UNKNOWN_CHARACTER
        await house.set.create("den", StageOverrides())


async def test_who_is_about_to_be_on_is_in_use(book: CharacterBook) -> None:
    """From the moment that a stage is asked for; and it knows who came meanwhile."""
    async with playing(book) as house:
        creating = asyncio.create_task(house.set.create("den", StageOverrides(character="second")))
        await asyncio.sleep(0)
        assert house.set.uses("second") == ("den",)
        with pytest.raises(InvalidEventError) as opening:
            house.set.get("den")
        assert opening.value.code is ErrorCode.NOT_READY
        more = book.with_one(replace(book.get("first"), name="third"))
        house.set.replace_characters(more)
        stage = await creating
        assert house.set.uses("second") == ("den",)
        answers = Answers()
        stage.submit(CharacterSwitch("c", "third"), answers)
        await until(lambda: "CharacterSwitched" in answers.kinds())


# --- remembered ---------------------------------------------------------------------------


async def test_stages_survive_a_restart(book: CharacterBook) -> None:
    """Those made at run time come back as they were made, each with its own character."""
    async with playing(book, settings_with(lobby=StageOverrides())) as house:
        await house.set.create("den", StageOverrides(fps=12.0, width=96))
        answers = Answers()
        for name in ("den", "lobby"):
            house.set.get(name).submit(CharacterSwitch(f"c-{name}", "second"), answers)
        await until(lambda: len(answers.all) == 2)
        memory = house.set.memory()
    async with playing(book, settings_with(lobby=StageOverrides()), memory) as house:
        names = {stage.name: stage.character_name for stage in house.set}
        assert names == {"main": "first", "lobby": "second", "den": "second"}
        assert house.set.get("den").fps == 12.0
        assert house.set.get("den").size_px == (96, 64)
        assert house.set.memory() == memory


async def test_what_is_remembered_wrongly_stops_nothing(book: CharacterBook) -> None:
    """A stage that makes no sense is left out, one whose character has gone takes another."""
    memory: dict[str, Any] = {
        "main": {"character": "gone", "mood": "nonsense"},
        "old": {"character": "first", "mood": None},
        "Bad Name": {"made": {}},
        "worse": {"made": {"fps": "fast"}},
        "worst": 5,
        "den": {"character": "gone", "made": {"character": "gone as well"}},
    }
    async with playing(book, settings_with(), memory) as house:
        names = {stage.name: stage.character_name for stage in house.set}
        assert names == {"main": "first", "den": "first"}


async def test_a_character_of_the_settings_that_is_not_there_stops_the_boot(
    book: CharacterBook,
) -> None:
    """It names the key."""
    with pytest.raises(ConfigError, match=r"stages\.lobby\.character"):
        async with playing(book, settings_with(lobby=StageOverrides(character="nobody"))):
            pass


async def test_the_idle_seed_of_a_stage_wins_over_the_characters(book: CharacterBook) -> None:
    """Two stages with one character blink together unless one has a seed of its own."""
    settings = settings_with(same=StageOverrides(), other=StageOverrides(idle_seed=99))
    async with playing(book, settings) as house:
        seeds = [stage._performance._idle._seed for stage in house.set]
        assert seeds[0] == seeds[1] != seeds[2]


def test_settings_of_stages_are_those_of_main_but_for_what_they_set(tmp_path: Path) -> None:
    """An override of one key leaves the others alone."""
    assert StageOverrides(fps=5.0).over(SIZE) == StageSettings(
        character="first", width=64, height=64, fps=5.0
    )
