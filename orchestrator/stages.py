"""The stages of one daemon: `main`, those of the settings, and those made at run time.

They share renderers, frame cache and encoder, and nothing else: each has its own messages, frames,
faces, ids, ladder and frame clock. A loop that breaks is started again and disturbs no other
stage; only `main`, which the daemon cannot do without, is run by the daemon itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from orchestrator.characters import Character, CharacterBook
from orchestrator.expression.emotions import EmotionTable
from orchestrator.settings import (
    MAIN_STAGE,
    STAGE_NAME_PATTERN,
    Settings,
    StageOverrides,
    StageSettings,
)
from orchestrator.stage import Stage
from orchestrator.stage_kit import OpenStage, StageKit
from pipeline.bodies import StageBody
from pipeline.errors import AvatarError, ConfigError, ErrorCode, InvalidEventError, PortraitError

log = structlog.get_logger()

FIRST_FRAME_S: Final = 2.0
"""How long who opens a stage waits for it to publish."""


@dataclass(slots=True)
class StageHooks:
    """Whom to tell.

    Attributes:
        changed: something that survives a restart has changed.
        removed: the stage is gone; its viewers are to be let go.
    """

    changed: Callable[[], None] = lambda: None
    removed: Callable[[Stage], None] = lambda stage: None


class StageSet:
    """The stages by name, in the order in which they were opened; `main` is the first.

    Methods belong to the event loop's thread.

    Args:
        settings: `[stage]`, `[stages]` and `limits.stages`.
        kit: what they share.
        emotions: what can be shown.
        characters: who can be shown.
    """

    def __init__(
        self,
        settings: Settings,
        kit: StageKit,
        emotions: EmotionTable,
        characters: CharacterBook,
    ) -> None:
        self._settings = settings
        self._kit = kit
        self._emotions = emotions
        self._characters = characters
        self.hooks = StageHooks()
        self._open: dict[str, OpenStage] = {}
        self._opening: dict[str, str] = {}  # to the character that will be on
        self._closed = False

    # --- looking up -----------------------------------------------------------------------

    def __iter__(self) -> Iterator[Stage]:
        return (each.stage for each in self._open.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._open)

    @property
    def main(self) -> Stage | None:
        """The stage that always is; None until it has been opened."""
        found = self._open.get(MAIN_STAGE)
        return found.stage if found is not None else None

    def get(self, name: str | None) -> Stage:
        """The stage of that name, `main` for None.

        Raises:
            InvalidEventError: `unknown_stage`; `not_ready` while it is being opened.
        """
        found = self._open.get(MAIN_STAGE if name is None else name)
        if found is not None:
            return found.stage
        if not self._open or name in self._opening:
            raise InvalidEventError(ErrorCode.NOT_READY, "the stage is being set up; try again")
        raise unknown_stage(MAIN_STAGE if name is None else name, self.names)

    def uses(self, character: str) -> tuple[str, ...]:
        """The stages on which that character is, or is about to be."""
        on = [each.name for each in self if character in each.characters_in_use]
        return (*on, *(name for name, coming in self._opening.items() if coming == character))

    def body(self, name: str) -> StageBody:
        """What GET /v1/stages says of a stage.

        Raises:
            InvalidEventError: as `get`.
        """
        stage = self.get(name)
        width, height = stage.size_px
        return {
            "name": stage.name,
            "character": stage.character_name,
            "fps": stage.fps,
            "width": width,
            "height": height,
            "viewers": stage.viewers,
            "degraded": stage.degraded,
            "made": self._open[stage.name].made is not None,
        }

    # --- opening and closing --------------------------------------------------------------

    async def open(self, memory: Mapping[str, Any]) -> Stage:
        """Open `main`, then the stages of the settings, then those that a run before has made.

        Args:
            memory: stage name to what an earlier run remembered of it.

        Returns:
            `main`.

        Raises:
            ConfigError: the character of `main` or of a stage of the settings cannot be shown.
        """
        main = await self._set_up(MAIN_STAGE, self._settings.stage, memory.get(MAIN_STAGE))
        self._open[MAIN_STAGE] = main
        for name, overrides in self._settings.stages.items():
            settings = overrides.over(self._settings.stage)
            self._open[name] = await self._set_up(name, settings, memory.get(name))
        for name, remembered in memory.items():
            if name not in self._open:
                await self._restore(name, remembered)
        return main.stage

    def run(self) -> None:
        """Run all stages but `main`, which is the daemon's to run."""
        for name, each in self._open.items():
            if name != MAIN_STAGE:
                each.start()

    async def create(self, name: str, overrides: StageOverrides) -> Stage:
        """Open a stage at run time and run it; it comes back after a restart.

        Raises:
            InvalidEventError: `invalid_message` (its name), `conflict` (there is one of that
                name, or there are as many as allowed), `unknown_character`, or `not_ready`.
            PortraitError: its character's picture cannot be used.
            RenderError: no renderer can show it.
        """
        self._check_new(name)
        settings = overrides.over(self._settings.stage)
        character = self._characters.get(settings.character)
        made = await self._introduced(name, settings, character, overrides)
        if self._closed:
            made.let_go()
            raise InvalidEventError(ErrorCode.NOT_READY, "the daemon is stopping")
        self._open[name] = made
        made.start()
        self.hooks.changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_FRAME_S):
                await made.stage.first_frame.wait()
        log.info("stage_created", stage=name, character=character.name)
        return made.stage

    async def remove(self, name: str) -> None:
        """Close a stage that was made at run time: its viewers go, its messages are refused.

        Raises:
            InvalidEventError: `unknown_stage`; `conflict` for `main` and those of the settings.
        """
        self.get(name)
        gone = self._open[name]
        if gone.made is None:
            why = "always there" if name == MAIN_STAGE else f"of the settings ([stages.{name}])"
            raise InvalidEventError(
                ErrorCode.CONFLICT,
                f"the stage {name} is {why}; only those made by POST can be deleted",
                field="name",
            )
        del self._open[name]
        gone.stage.close()
        self.hooks.removed(gone.stage)
        self.hooks.changed()
        await gone.stop()
        gone.let_go()
        self._kit.metrics.forget(stage=name)
        log.info("stage_removed", stage=name)

    async def close(self) -> None:
        """End what `run` and `create` have started; idempotent."""
        self._closed = True
        await asyncio.gather(*(each.stop() for each in self._open.values()))

    def let_go(self) -> None:
        """Let go of the portraits on all stages, once nothing is published any more."""
        for each in self._open.values():
            each.let_go()

    # --- all of them ----------------------------------------------------------------------

    def memory(self) -> dict[str, Any]:
        """Stage name to what survives a restart."""
        memory = {}
        for name, each in self._open.items():
            memory[name] = each.stage.memory()
            if each.made is not None:
                memory[name]["made"] = msgspec.to_builtins(each.made)
        return memory

    def reload(self, emotions: EmotionTable, characters: CharacterBook) -> None:
        """Use new tables from the next frame on."""
        self._emotions, self._characters = emotions, characters
        for stage in self:
            stage.reload(emotions, characters)

    def replace_characters(self, characters: CharacterBook) -> None:
        """Who can be shown has changed; who is on stage has not."""
        self._characters = characters
        for stage in self:
            stage.replace_characters(characters)

    def probe(self) -> None:
        """Look on every stage whether a failed renderer works again."""
        for stage in self:
            stage.probe()

    # --- one of them ----------------------------------------------------------------------

    def _check_new(self, name: str) -> None:
        if not re.fullmatch(STAGE_NAME_PATTERN, name):
            raise InvalidEventError(
                ErrorCode.INVALID_MESSAGE,
                "a stage's name has 1 to 64 of a-z, 0-9, '-' and '_'",
                field="name",
            )
        if not self._open or self._closed:
            raise InvalidEventError(ErrorCode.NOT_READY, "the daemon is starting or stopping")
        if name in self._open or name in self._opening:
            problem = f"there is a stage {name} already"
            raise InvalidEventError(ErrorCode.CONFLICT, problem, field="name")
        if len(self._open) + len(self._opening) >= self._settings.limits.stages:
            raise InvalidEventError(
                ErrorCode.CONFLICT,
                f"there are {self._settings.limits.stages} stages, as many as limits.stages allows",
            )

    async def _set_up(self, name: str, settings: StageSettings, remembered: object) -> OpenStage:
        """A stage of the settings, with the character that was on it last if that can be."""
        memory = remembered if isinstance(remembered, dict) else {}
        last = memory.get("character")
        if isinstance(last, str) and last != settings.character:
            try:
                character = self._characters.get(last)
                return await self._introduced(name, settings, character, None, memory)
            except AvatarError as error:
                log.warning("character_not_restored", character=last, error=str(error), stage=name)
        try:
            character = self._characters.get(settings.character)
            return await self._introduced(name, settings, character, None, memory)
        except (InvalidEventError, PortraitError) as error:
            table = "stage" if name == MAIN_STAGE else f"stages.{name}"
            raise ConfigError(f"{table}.character", str(error)) from error

    async def _restore(self, name: str, remembered: object) -> None:
        """A stage that was made at run time, as far as what is remembered makes sense."""
        made = remembered.get("made") if isinstance(remembered, dict) else None
        if not isinstance(remembered, dict) or made is None:
            return
        try:
            overrides = msgspec.convert(made, StageOverrides)
            self._check_new(name)
            settings = overrides.over(self._settings.stage)
            wanted = remembered.get("character")
            character = self._remembered(wanted, settings.character, self._settings.stage.character)
            stage = await self._introduced(name, settings, character, overrides, remembered)
        except (AvatarError, ValueError) as error:
            log.warning("stage_not_restored", stage=name[:64], error=str(error))
        else:
            self._open[name] = stage

    def _remembered(self, *names: object) -> Character:
        """The first of these that there is."""
        for name in names[:-1]:
            if isinstance(name, str) and name in self._characters.names:
                return self._characters.get(name)
        return self._characters.get(str(names[-1]))

    async def _introduced(
        self,
        name: str,
        settings: StageSettings,
        character: Character,
        made: StageOverrides | None,
        memory: Mapping[str, Any] | None = None,
    ) -> OpenStage:
        tables = self._emotions, self._characters
        self._opening[name] = character.name
        try:
            opened = await OpenStage.introduce(
                self._kit,
                name,
                settings,
                tables,
                character,
                made=made,
                memory=memory,
                changed=self._note_change,
            )
        finally:
            del self._opening[name]
        if tables[0] is not self._emotions:  # read anew meanwhile
            opened.stage.reload(self._emotions, self._characters)
        opened.stage.replace_characters(self._characters)
        return opened

    def _note_change(self) -> None:
        self.hooks.changed()


def unknown_stage(name: str, names: tuple[str, ...]) -> InvalidEventError:
    """The refusal of what is for a stage that is not there."""
    return InvalidEventError(
        ErrorCode.UNKNOWN_STAGE,
        f"there is no stage {name[:64]!r}; there is {', '.join(names)}",
        field="stage",
        suggestions=names[:3],
    )
