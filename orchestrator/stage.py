"""One live avatar: paced tick, sample the face, have it drawn, publish, give receipts.

A tick is begun a little before its deadline (see `pacing.Lead`), samples the face for the
deadline, and publishes at the deadline. One frame is in the making at a time; ticks that
went by meanwhile are skipped and counted. A cue that just missed a frame has the next one come a
little earlier. When nothing changes and nobody watches, the stage rests until something happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

import structlog

from orchestrator.acting import Acted, face_at, idle_life
from orchestrator.characters import Character, CharacterBook
from orchestrator.clock import Clock
from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.idle import IdleLife
from orchestrator.expression.performance import Performance
from orchestrator.expression.sequencer import FaceSample, Sequencer
from orchestrator.frame_hub import FrameHub
from orchestrator.intake import Intake
from orchestrator.journal import CastChanged, Journal, Opened, TableChanged, Took, unrecorded
from orchestrator.look import Look
from orchestrator.pacing import Lead, Pace
from orchestrator.receipts import Publication, Receipts
from orchestrator.settings import IdleSettings, StageSettings
from orchestrator.stage_bodies import hello_body, state_body
from orchestrator.stage_figures import StageFigures, TickTimes
from orchestrator.switching import Switch, Switches
from pipeline.ahead import Face
from pipeline.bodies import HelloBody, RendererBody, StateBody
from pipeline.errors import AvatarError, ErrorCode, InvalidEventError
from pipeline.faces import FaceDetector
from pipeline.fallback import FallbackLadder, Picture
from pipeline.ports import FrameSink, Metrics, Reply
from pipeline.types import (
    CharacterSwitch,
    EmotionEvent,
    ErrorInfo,
    FaceControls,
    Failure,
    FrameInfo,
    GetState,
    ImageFormat,
    Interrupt,
    Mood,
    Policy,
    Portrait,
    StageMessage,
    StateSnapshot,
)

log = structlog.get_logger()

INTEREST_S: Final = 5.0
REST_S: Final = 1.0
LOOK_AHEAD_S: Final = 3.0
LOOK_AGAIN_S: Final = 0.5
GRACE_SHARE: Final = 0.75  # of a period: a frame that comes later costs the next its tick
ANSWER_S: Final = 0.003  # beyond a period: a cue shows by then where frames take half a period


class Stage:
    """One character, one sequencer, one frame clock; implements `ports.StagePort`.

    Args:
        name: the stage's name on the wire.
        server: `name/version` for `hello`.
        settings: frame clock and picture.
        idle: idle life.
        emotions: what can be shown.
        characters: who can be shown.
        ladder: draws faces.
        files: thread for reading portraits.
        metrics: where figures go.
        clock: time.
        journal: is told of all that the faces depend on.
        detectors: find faces in portraits without landmarks.

    Attributes:
        first_frame: set when the first frame has been published.
        changed: called when something that survives a restart has changed.
        problem: None, or why a character that was read anew is not shown as it is now.
    """

    def __init__(
        self,
        name: str,
        *,
        server: str,
        settings: StageSettings,
        idle: IdleSettings,
        emotions: EmotionTable,
        characters: CharacterBook,
        ladder: FallbackLadder,
        files: Executor,
        metrics: Metrics,
        clock: Clock,
        journal: Journal = unrecorded,
        detectors: Sequence[FaceDetector] = (),
    ) -> None:
        self._name = name
        self._server = server
        self._settings = settings
        self._idle_settings = idle
        self._emotions = emotions
        self._characters = characters
        self._ladder = ladder
        ladder.upcoming = self._upcoming_faces
        ladder.recovered = self._look_again
        self._files = files
        self._detectors = detectors
        self._clock = clock
        self._journal = journal
        self.changed: Callable[[], None] = lambda: None
        self.problem: str | None = None

        self.first_frame = asyncio.Event()

        self._period_s = 1.0 / settings.fps
        self._sequencer = Sequencer(emotions)
        self._performance = Performance(emotions, IdleLife(0, enabled=False))
        self._receipts = Receipts(name, metrics)
        self._intake = Intake(
            name,
            emotions=emotions,
            sequencer=self._sequencer,
            performance=self._performance,
            receipts=self._receipts,
            metrics=metrics,
            clock=clock.now,
            note=self._note,
        )
        self._figures = StageFigures(name, settings.fps, metrics)
        self._hub = FrameHub(self._audience_changed)
        self._lead = Lead(self._period_s)
        self._tick_before: TickTimes | None = None
        self._wake = asyncio.Event()
        self._started_s = clock.now()
        self._progress_s = clock.now()
        self._sampled_s: float | None = None
        self._unshown_s: float | None = None  # when the oldest cue came that no face shows yet
        self._interest_until_s = 0.0
        self._seq = -1
        self._controls = FaceControls()
        self._character: Character | None = None
        self._portrait: Portrait | None = None
        self._switches = Switches()
        self._gone = False
        journal(Opened(name, self._started_s, server, settings, idle, emotions))

    # --- what adapters call ---------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    def hello(self) -> HelloBody:
        """The `hello` message."""
        return hello_body(
            server=self._server,
            stage=self._name,
            character=self.character_name,
            emotions=self._emotions,
            settings=self._settings,
            renderer=self.renderer(),
        )

    def submit(self, message: StageMessage, reply: Reply) -> None:
        """Take one message; every answer goes to `reply`."""
        now_s = self._clock.now()
        try:
            if self._gone:
                raise self._removed(getattr(message, "id", None))
            match message:
                case CharacterSwitch():
                    self._take_switch(message, reply)
                case GetState():
                    reply(StateSnapshot(message.id, self.snapshot()))
                case _:
                    self._intake.take(message, reply, now_s)
            if isinstance(message, Mood):
                self.changed()
        except InvalidEventError as error:
            self._intake.refuse(message, error, reply)
        self._wake_up()

    def snapshot(self) -> StateBody:
        """The body of GET /v1/state."""
        now_s = self._clock.now()
        newest = self._hub.newest
        return state_body(
            stage=self._name,
            seq=self._seq,
            frame=newest[0] if newest is not None else None,
            character=self.character_name,
            activity=self._performance.state,
            controls=self._controls,
            mood=self._performance.mood(now_s),
            cues=self._sequencer.cues(now_s),
            viewers=self._hub.count_by_kind(),
            renderer=self.renderer(),
            cache=self._ladder.cache_stats(),
            fps=self._figures.fps(now_s),
        )

    async def picture(self, image_format: ImageFormat) -> tuple[FrameInfo, bytes] | None:
        """The newest frame in that format. Whoever asks counts as watching for a while."""
        self._interest_until_s = self._clock.now() + INTEREST_S
        self._wake_up()
        newest = self._hub.newest
        if newest is None:
            return None
        info, picture = newest
        return info, await picture.encoded(image_format)

    def attach(self, sink: FrameSink) -> None:
        """Send frames to `sink` from now on, the newest at once."""
        self._hub.attach(sink)

    def detach(self, sink: FrameSink) -> None:
        """Stop sending; harmless if it is not attached."""
        self._hub.detach(sink)

    # --- what the daemon calls ------------------------------------------------------------

    @property
    def character_name(self) -> str:
        """The character that is on, or will be first."""
        return self._character.name if self._character else self._settings.character

    @property
    def portrait(self) -> Portrait:
        """The portrait on stage.

        Raises:
            InvalidEventError: `not_ready`: there is none yet.
        """
        if self._portrait is None:
            raise InvalidEventError(ErrorCode.NOT_READY, "the stage is being set up; try again")
        return self._portrait

    @property
    def look(self) -> Look:
        """How who is on stage shows emotions."""
        if self._character is None:
            return Look(self._emotions)
        return Look(self._emotions, self._character.gains, self._character.rest)

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of a frame."""
        return self._settings.size_px

    @property
    def quality(self) -> int:
        """Of JPEG and WebP, 1 to 100."""
        return self._settings.jpeg_quality

    @property
    def fps(self) -> float:
        """Of the frame clock."""
        return self._settings.fps

    @property
    def viewers(self) -> int:
        """How many sinks are attached."""
        return len(self._hub)

    def renderer(self) -> RendererBody:
        """Name, device and degraded state of what draws."""
        ladder = self._ladder
        return {"name": ladder.renderer, "device": ladder.device, "degraded": ladder.degraded}

    @property
    def degraded(self) -> str | None:
        """None, or why frames are not the wanted renderer's."""
        return self._ladder.degraded

    @property
    def seq(self) -> int:
        """Of the newest frame; -1 before the first."""
        return self._seq

    @property
    def published(self) -> bool:
        """A first frame has gone out."""
        return self._seq >= 0

    @property
    def progress_s(self) -> float:
        """Monotonic seconds of the last frame or deliberate rest; what the watchdog watches."""
        return self._progress_s

    def memory(self) -> dict[str, Any]:
        """What survives a restart."""
        now_s = self._clock.now()
        return {"character": self.character_name, "mood": self._performance.mood_memory(now_s)}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take up what an earlier run left.

        Raises:
            ValueError: it makes no sense.
        """
        now_s = self._clock.now()
        self._performance.restore_mood(memory.get("mood"), now_s)
        mood = self._performance.mood_memory(now_s)
        if mood is not None:
            self._note(Mood(None, **mood), None, now_s)

    def reload(self, emotions: EmotionTable, characters: CharacterBook) -> None:
        """Use new tables from the next frame on; running cues go on."""
        self._emotions = emotions
        self._characters = characters
        self._intake.use(emotions)
        self._sequencer.replace_emotions(emotions)
        self._performance.replace_emotions(emotions)
        now_s = self._clock.now()
        self._journal(TableChanged(self._name, now_s, self._sampled_s, emotions))
        self._switches.reread()
        self._wake_up()

    def replace_characters(self, characters: CharacterBook) -> None:
        """Switch to others from now on; who is on stage stays."""
        self._characters = characters

    @property
    def characters_in_use(self) -> frozenset[str]:
        """Who is on stage, and who is to come."""
        return self._switches.names | {self.character_name}

    def close(self) -> None:
        """The stage is removed: end what is owed to producers, and refuse what still comes."""
        self._gone = True
        pts_s = self._hub.newest[0].pts_s if self._hub.newest is not None else 0.0
        self._receipts.close(self._seq, pts_s, self._removed(None).message)
        for switch in self._switches.drain():
            self._intake.refuse(switch.message, self._removed(switch.message.id), switch.reply)

    def _removed(self, event_id: str | None) -> InvalidEventError:
        problem = f"the stage {self._name} has been removed"
        return InvalidEventError(ErrorCode.UNKNOWN_STAGE, problem, field="stage", event_id=event_id)

    def probe(self) -> None:
        """Look whether a failed renderer works again; a stage at rest draws nothing that would."""
        self._ladder.probe()
        self._note_degraded()

    async def introduce(self, character: Character) -> None:
        """Put the first character on stage.

        Raises:
            PortraitError: its picture cannot be used.
            RenderError: no renderer can show it.
        """
        await self._show(character, first=True)

    async def run(self) -> None:
        """Publish frames until cancelled."""
        self._figures.begin(len(self._hub))
        self._note_degraded()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._switch_characters(), name=f"{self._name}-switches")
                tasks.create_task(self._publish_frames(), name=f"{self._name}-frames")
        finally:
            await self._hub.close()

    # --- frames ---------------------------------------------------------------------------

    async def _publish_frames(self) -> None:
        pace = Pace(self._period_s, self._clock.now())
        while True:
            now_s = self._clock.now()
            self._progress_s = now_s
            self._intake.decide(now_s)
            if self._needed(now_s):
                await self._tick(pace, now_s)
            else:
                await self._rest(now_s)
                self._figures.rested()
                pace.restart(self._clock.now())

    def _needed(self, now_s: float) -> bool:
        """Somebody watches, or a frame must bring something about."""
        if not self.published or len(self._hub) or now_s < self._interest_until_s:
            return True
        if self._switches.due or self._performance.injecting:
            return True
        change_s = self._sequencer.next_change(now_s)
        return change_s is not None and change_s <= now_s + self._period_s

    async def _rest(self, now_s: float) -> None:
        changes = (self._sequencer.next_change(now_s), self._intake.decides_s)
        rest_s = min([REST_S, *(at_s - now_s for at_s in changes if at_s is not None)])
        self._wake.clear()
        try:
            async with asyncio.timeout(rest_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _tick(self, pace: Pace, now_s: float) -> None:
        due_s, skipped = pace.next(now_s)
        lead_s = self._lead.seconds
        if self._unshown_s is not None and lead_s < 0.5 * self._period_s:
            answer_s = self._unshown_s + self._period_s + ANSWER_S
            due_s = pace.pull(due_s, max(answer_s, now_s + lead_s))
        if skipped:
            self._figures.skipped(skipped, now_s, self._tick_before)
        begin_s = max(now_s, due_s - lead_s)
        await self._clock.sleep_until(begin_s)
        begun_s = self._clock.now()
        sample, controls = face_at(self._sequencer, self._performance, due_s)
        self._sampled_s, self._unshown_s = due_s, None
        self._switches.frame_begun()
        steps = partial(self._performance.steps, sample.weights, due_s)
        by_s = due_s + GRACE_SHARE * self._period_s
        picture = await self._ladder.picture(controls, sample.weights, steps, by_s=by_s)
        ready_s = self._clock.now()
        if not picture.cached:
            self._lead.observe(ready_s - begun_s)
        await self._clock.sleep_until(due_s)
        await self._publish(sample, picture, due_s)
        sending_s = self._clock.now() - max(due_s, ready_s)
        self._tick_before = TickTimes(begun_s - begin_s, ready_s - begun_s, sending_s)

    def _look_again(self) -> None:
        """Publish for a moment though nobody watches: what draws has changed."""
        self._interest_until_s = max(self._interest_until_s, self._clock.now() + LOOK_AGAIN_S)
        self._wake_up()

    def _upcoming_faces(self) -> Iterator[Face]:
        """What the cues on the timeline will show soon, simplified."""
        now_s = self._clock.now()
        coming = self._sequencer.upcoming(now_s, LOOK_AHEAD_S, self._period_s)
        return self._performance.steps_ahead(coming, now_s)

    async def _publish(self, sample: FaceSample, picture: Picture, due_s: float) -> None:
        published_s = self._clock.now()
        self._seq += 1
        info = FrameInfo(
            seq=self._seq,
            pts_s=due_s - self._started_s,
            ts_ms=self._clock.wall_ms(),
            width=picture.width,
            height=picture.height,
            emotion={label: picture.weights.get(label, 0.0) for label in self._emotions.labels},
            event=sample.newest if picture.exact else None,
            cached=picture.cached,
            degraded=picture.degraded,
        )
        self._figures.published(published_s)
        self._note_degraded()
        self._controls = picture.controls
        await self._hub.publish(info, picture)
        self.first_frame.set()
        neutral = picture.weights.get("neutral", 0.0)
        self._receipts.published(
            sample, Publication(info.seq, info.pts_s, published_s, picture.exact, neutral)
        )
        self._switches.frame_published(info.seq)

    def _note_degraded(self) -> None:
        self._figures.degraded(self._ladder.degraded is not None)

    def _audience_changed(self) -> None:
        if not self._gone:  # the figures of a stage that has been removed are gone, too
            self._figures.viewers(len(self._hub))
        self._wake_up()

    # --- characters -----------------------------------------------------------------------

    def _take_switch(self, message: CharacterSwitch, reply: Reply) -> None:
        character = self._characters.get(message.character, message.id)
        self._switches.ask(Switch(character, message, reply))

    async def _switch_characters(self) -> None:
        while True:
            switch = await self._switches.next()
            if switch is None:
                await self._read_anew()
                continue
            prepared = False
            try:
                await self._show(self._newest(switch.character))
                prepared = True
                self.problem = None
            except AvatarError as error:
                log.error("character_not_shown", character=switch.character.name, error=str(error))
                problem = ErrorInfo(ErrorCode.NOT_READY.value, str(error), "character")
                switch.reply(Failure(switch.message.id, problem))
            finally:
                self._switches.over(switch, prepared=prepared)
            if prepared:
                self.changed()
                self._wake_up()

    async def _read_anew(self) -> None:
        """Show who is on stage as the files are now."""
        if self._character is None or self._character.name not in self._characters.names:
            return
        try:
            await self._show(self._newest(self._character))
            self.problem = None
        except AvatarError as error:
            log.error("character_not_shown", character=self._character.name, error=str(error))
            self.problem = str(error)
        self._look_again()

    def _newest(self, character: Character) -> Character:
        """As it was read last: there may have been a reload while it waited."""
        name = character.name
        return self._characters.get(name) if name in self._characters.names else character

    async def _show(self, character: Character, *, first: bool = False) -> None:
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._files, character.load, self._detectors)
        for warning in loaded.warnings:
            log.warning("portrait_warning", character=character.name, warning=warning)
        faces = Performance(
            self._emotions, IdleLife(0, enabled=False), character.gains, character.rest
        )
        later = faces.every_step() if self._ladder.wants_steps else ()
        await self._ladder.show(loaded.portrait, faces.key_faces(), later, accept_still=first)
        self._character, self._portrait = character, loaded.portrait
        own_seed = self._settings.idle_seed < 0
        seed = character.idle_seed if own_seed else self._settings.idle_seed
        idle = idle_life(self._idle_settings, seed)
        self._performance.cast(idle, character.gains, character.rest)
        now_s, key = self._clock.now(), loaded.portrait.key
        self._journal(CastChanged(self._name, now_s, self._sampled_s, character, seed, key))
        log.info(
            "character_on_stage",
            stage=self._name,
            character=character.name,
            landmarks=loaded.portrait.landmarks.source,
        )

    # --- small things ---------------------------------------------------------------------

    def _note(self, message: Acted, source: Reply | None, now_s: float) -> None:
        if self._unshown_s is None and _shows_at_once(message):
            self._unshown_s = now_s
        self._journal(Took(self._name, now_s, self._sampled_s, message, source))

    def _wake_up(self) -> None:
        self._wake.set()


def _shows_at_once(message: Acted) -> bool:
    """Somebody waits for the next frame to show what it asks for."""
    if isinstance(message, EmotionEvent):
        return message.at_s <= 0.0 and message.policy is not Policy.QUEUE
    return isinstance(message, Interrupt)
