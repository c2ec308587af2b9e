"""Character switches of one stage: from the request to the first frame that shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from orchestrator.characters import Character
from pipeline.errors import ErrorCode, InvalidEventError
from pipeline.ports import Reply
from pipeline.types import CharacterSwitch, CharacterSwitched, StageReply

WAITING_SWITCHES: Final = 4


@dataclass(frozen=True, slots=True)
class Switch:
    """One of them.

    Attributes:
        message: what asked for it; None if the stage itself did.
        reply: where the answer goes.
    """

    character: Character
    message: CharacterSwitch | None = None
    reply: Reply | None = None

    def answer(self, reply: StageReply) -> None:
        """Tell whoever asked, if anybody did."""
        if self.reply is not None:
            self.reply(reply)


class Switches:
    """The switches of one stage, in order. One is prepared at a time, a few wait.

    A character that has been prepared is on the frames that are begun after that: those before
    may still show the one before it.
    """

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Switch] = asyncio.Queue(WAITING_SWITCHES)
        self._coming: list[Switch] = []  # waiting or being prepared
        self._prepared: list[Switch] = []
        self._appearing: list[Switch] = []  # with the frame in the making

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
        try:
            self._waiting.put_nowait(switch)
        except asyncio.QueueFull:
            raise InvalidEventError(
                ErrorCode.RATE_LIMITED,
                f"{WAITING_SWITCHES} switches already wait; send it again after character.switched",
                field="character",
                event_id=switch.message.id if switch.message is not None else None,
            ) from None
        self._coming.append(switch)

    async def next(self) -> Switch:
        """Wait for the next one; `over` must follow."""
        return await self._waiting.get()

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
            if switch.message is not None:
                name = switch.character.name
                switch.answer(CharacterSwitched(switch.message.id, name, seq))

    def drain(self) -> Iterator[Switch]:
        """Forget all of them, one after the other: no frame will follow."""
        switches = (*self._appearing, *self._prepared, *self._coming)
        self._coming, self._prepared, self._appearing = [], [], []
        yield from switches
