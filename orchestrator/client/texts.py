"""The texts that a producer is sending: what is held back of each, and the cues of their tags."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from orchestrator.client.answers import Message, TextPiece
from orchestrator.client.errors import ClientError, ReceiptLostError
from orchestrator.client.held_text import held_back
from orchestrator.client.receipts import Cue

log = logging.getLogger("orchestrator.client")

_MAX_TEXTS: Final = 64
_MAX_CUES: Final = 256


@dataclass(frozen=True, slots=True)
class CleanText:
    """A piece of a text without its tags, and the cues that these became, in order.

    Attributes:
        text: all that is clear by now and was not before.
        cues: the tags' cues, with receipts of their own.
        at: for each cue, how many characters of `text` come before its tag.
    """

    text: str
    cues: tuple[Cue, ...]
    at: tuple[int, ...]


@dataclass(slots=True)
class _Text:
    held: str = ""
    carry: bool = False


class Texts:
    """Bounded: texts and cues beyond the bounds push out the oldest."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, _Text] = OrderedDict()
        self._cues: OrderedDict[str, Cue] = OrderedDict()

    def outgoing(self, message: Message) -> Message:
        """The message as it goes out: after a lost connection, with what was held back."""
        text = self._texts.get(message["id"])
        if text is None or not text.carry:
            return message
        text.carry = False
        return message | {"delta": text.held + message["delta"]}

    def answered(self, message: Message, piece: TextPiece) -> CleanText:
        """The daemon has read one message of a text."""
        text_id = message["id"]
        text = self._texts.pop(text_id, None) or _Text()
        ats = [cue.at for cue in piece.cues]
        try:
            text.held = held_back(text.held + message["delta"], piece.delta, ats)
        except ValueError as error:
            log.warning(
                "text %r: what the daemon holds back of it is not clear: %s", text_id, error
            )
            text.held = ""
        if not message["final"]:
            self._texts[text_id] = text
            if len(self._texts) > _MAX_TEXTS:
                self._texts.popitem(last=False)
        cues = tuple(Cue(each.id, each.emotion, each.intensity) for each in piece.cues)
        for cue in cues:
            self._cues[cue.id] = cue
        while len(self._cues) > _MAX_CUES:
            _, oldest = self._cues.popitem(last=False)
            oldest.fail(ReceiptLostError(f"cue {oldest.id!r}, one of too many"))
        return CleanText(piece.delta, cues, tuple(ats))

    def cue(self, cue_id: str) -> Cue | None:
        """The tag's cue of that id."""
        return self._cues.get(cue_id)

    def drop_cue(self, cue_id: str) -> None:
        """It has ended."""
        self._cues.pop(cue_id, None)

    def lost_connection(self) -> None:
        """Tags cannot be sent again one by one, so their receipts went with the connection."""
        for text in self._texts.values():
            text.carry = True
        self.fail_all(None)

    def fail_all(self, error: ClientError | None) -> None:
        """No receipt of a tag comes any more."""
        cues, self._cues = self._cues, OrderedDict()
        for cue in cues.values():
            cue.fail(error or ReceiptLostError(f"cue {cue.id!r}"))
