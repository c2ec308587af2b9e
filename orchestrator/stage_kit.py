"""How a stage is made of what all stages share, and kept running by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import structlog

from orchestrator.characters import Character, CharacterBook
from orchestrator.clock import Clock
from orchestrator.expression.emotions import EmotionTable
from orchestrator.journal import Journal, unrecorded
from orchestrator.settings import IdleSettings, StageOverrides, StageSettings
from orchestrator.stage import Stage
from pipeline.faces import FaceDetector
from pipeline.fallback import FallbackLadder
from pipeline.frame_cache import FrameCache
from pipeline.picture import FormatEncoder
from pipeline.ports import Metrics
from pipeline.render_host import RenderHost

log = structlog.get_logger()

RESTART_S: Final = 1.0
"""Between two starts of a stage whose loop has broken."""


@dataclass(frozen=True, slots=True, eq=False)
class StageKit:
    """What all stages share.

    Attributes:
        server: `name/version` for `hello`.
        deadline_s: a picture is there by then, if only a stand-in.
        files: thread for reading portraits.
        detectors: find faces in portraits without landmarks.
        journal: is told of all that faces depend on.
    """

    server: str
    idle: IdleSettings
    deadline_s: float
    host: RenderHost
    cache: FrameCache
    encoder: FormatEncoder
    files: Executor
    metrics: Metrics
    clock: Clock
    journal: Journal = unrecorded
    detectors: Sequence[FaceDetector] = ()

    def ladder(self, name: str, settings: StageSettings) -> FallbackLadder:
        """What draws the pictures of one stage."""
        return FallbackLadder(
            self.host,
            self.cache,
            self.encoder,
            stage=name,
            size_px=settings.size_px,
            quality=settings.jpeg_quality,
            deadline_s=self.deadline_s,
            metrics=self.metrics,
            clock=self.clock.now,
        )

    def stage(
        self,
        name: str,
        settings: StageSettings,
        emotions: EmotionTable,
        characters: CharacterBook,
        ladder: FallbackLadder,
    ) -> Stage:
        """A stage with nobody on it yet."""
        return Stage(
            name,
            server=self.server,
            settings=settings,
            idle=self.idle,
            emotions=emotions,
            characters=characters,
            ladder=ladder,
            files=self.files,
            metrics=self.metrics,
            clock=self.clock,
            journal=self.journal,
            detectors=self.detectors,
        )


class OpenStage:
    """A stage with somebody on it, and what goes with it.

    Attributes:
        stage: itself.
        made: how it was made at run time; None for `main` and those of the settings.
    """

    def __init__(self, stage: Stage, ladder: FallbackLadder, made: StageOverrides | None) -> None:
        self.stage = stage
        self.made = made
        self._ladder = ladder
        self._running: asyncio.Task[None] | None = None

    @classmethod
    async def introduce(
        cls,
        kit: StageKit,
        name: str,
        settings: StageSettings,
        tables: tuple[EmotionTable, CharacterBook],
        character: Character,
        *,
        made: StageOverrides | None = None,
        memory: Mapping[str, Any] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> OpenStage:
        """Make a stage and put the first character on it.

        Args:
            tables: what can be shown, and who.
            memory: what an earlier run remembered of the stage.
            changed: called when something that survives a restart has changed.

        Raises:
            PortraitError: the character's picture cannot be used.
            RenderError: no renderer can show it.
        """
        ladder = kit.ladder(name, settings)
        stage = kit.stage(name, settings, *tables, ladder)
        stage.changed = changed
        try:
            stage.remember(memory or {})
        except ValueError as error:
            log.warning("mood_not_restored", stage=name, error=str(error))
        try:
            await stage.introduce(character)
        except BaseException:
            ladder.close()
            raise
        return cls(stage, ladder, made)

    def start(self) -> None:
        """Run the stage, over and over if its loop breaks; once is enough."""
        if self._running is None:
            work = self._keep_running()
            self._running = asyncio.create_task(work, name=f"stage-{self.stage.name}")

    async def stop(self) -> None:
        """End what `start` has begun; idempotent."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    def let_go(self) -> None:
        """Let go of the portrait, once nothing is published any more."""
        self._ladder.close()

    async def _keep_running(self) -> None:
        while True:
            try:
                await self.stage.run()
            except Exception:
                log.exception("stage_broke", stage=self.stage.name, again_in_s=RESTART_S)
            await asyncio.sleep(RESTART_S)
