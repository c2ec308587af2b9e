"""Character switches of one stage: from the request to the first frame that shows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from orchestrator.characters import Character
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.ports import Reply
from pipeline.types import CharacterSwitch, CharacterSwitched

WAITING_SWITCHES: Final = 4


@dataclass(frozen=True, slots=True)
class Switch:
    """One of them.

    Attributes:
        message: what asked for it.
        reply: where the answer goes.
    """

    character: Character
    message: CharacterSwitch
    reply: Reply


class Switches:
    """The switches of one stage, in order. One is prepared at a time, a few wait.

    A character that has been prepared is on the frames that are begun after that: those before
    may still show the one before it. Reading who is on stage anew comes after all that wait.
    """

    def __init__(self) -> None:
        self._waiting: deque[Switch] = deque()
        self._coming: list[Switch] = []  # waiting or being prepared
        self._prepared: list[Switch] = []
        self._appearing: list[Switch] = []  # with the frame in the making
        self._stale = False
        self._wanted = asyncio.Event()

    @property
    def names(self) -> frozenset[str]:
        """Who is still to come."""
        return frozenset(each.character.name for each in self._coming)

    @property
    def due(self) -> bool:
        """A frame must show somebody who has been prepared."""
        return bool(self._prepared)

    def ask(self, switch: Switch) -> None:
        """Have it done when its turn comes.

        Raises:
            InvalidEventError: too many wait; nothing has changed.
        """
        if len(self._waiting) >= WAITING_SWITCHES:
            raise InvalidEventError(
                ErrorCode.RATE_LIMITED,
                f"{WAITING_SWITCHES} switches already wait; send it again after character.switched",
                field="character",
                event_id=switch.message.id,
            )
        self._waiting.append(switch)
        self._coming.append(switch)
        self._wanted.set()

    def reread(self) -> None:
        """Have who is on stage then read anew, once nobody waits any more."""
        self._stale = True
        self._wanted.set()

    async def next(self) -> Switch | None:
        """Wait for the next one; `over` must follow. None: read who is on stage anew."""
        await self._wanted.wait()
        switch = self._waiting.popleft() if self._waiting else None
        if switch is None:
            self._stale = False
        if not self._waiting and not self._stale:
            self._wanted.clear()
        return switch

    def over(self, switch: Switch, *, prepared: bool) -> None:
        """Its character has been prepared, so the next frame shows it; or it failed."""
        self._coming = [each for each in self._coming if each is not switch]
        if prepared:
            self._prepared.append(switch)

    def frame_begun(self) -> None:
        """Who has been prepared by now is on this frame."""
        self._appearing += self._prepared
        self._prepared = []

    def frame_published(self, seq: int) -> None:
        """Tell those who asked."""
        shown, self._appearing = self._appearing, []
        for switch in shown:
            switch.reply(CharacterSwitched(switch.message.id, switch.character.name, seq))

    def drain(self) -> Iterator[Switch]:
        """Forget all of them, one after the other: no frame will follow."""
        switches = (*self._appearing, *self._prepared, *self._coming)
        self._coming, self._prepared, self._appearing = [], [], []
        self._waiting.clear()
        yield from switches
