"""Emotion tags inside streamed text, in four dialects; no I/O.

    [happy]
    [happy:0.7]
    <emotion name="happy" intensity="0.7"/>
    <|ACT {"emotion":{"name":"happy","intensity":0.7}}|>

A tag names a label or an alias, in any case. Attributes may come in either order, in double,
single or no quotes, with spaces around them. What is no such tag is text and stays as it is:
unknown names, footnotes `[1]`, HTML, and links `[happy](...)`, which is why a bracket at the very
end of a delta waits for one more character, or for `QUIET_S` in which none comes. White space
beside a tag is text, too.

Text is held back only while it may still become a tag, which is never longer than `MAX_HELD`, or
is the first half of a surrogate pair, whose second half the next delta may begin with: JavaScript
counts and cuts by halves. A half that stays alone becomes U+FFFD, for it cannot be sent.
Every other decision depends on the text alone: how it is cut into deltas makes no difference.
"""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.expression.emotions import MAX_NAME_CHARS, EmotionTable
from pipeline.errors import ErrorCode, InvalidEventError

TEXTS_PER_SOURCE: Final = 16
TEXTS: Final = 1024
"""Texts of which something is held back: of one producer, and of all."""
QUIET_S: Final = 0.3
"""A bracket that nothing has followed for so long is a tag: the face does not wait for the rest of
a sentence, and the tokens of a stream, a link's among them, come closer together."""
IDLE_S: Final = 60.0
"""A text that has not gone on for so long is forgotten, with what was held back of it."""

_ACT_CHARS: Final = 240
_SPACE: Final = r"\s{0,8}"
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]{1,8}(?:\.[0-9]{0,8})?|\.[0-9]{1,8})")


def _begun(word: str) -> str:
    """A pattern for every beginning of a word, the empty one included."""
    pattern = ""
    for character in reversed(word):
        pattern = f"(?:{re.escape(character)}{pattern})?"
    return pattern


_NAME: Final = rf"[^][<>:\r\n]{{0,{MAX_NAME_CHARS}}}"
_BRACKET: Final = re.compile(rf"\[({_NAME})(?::[ \t]{{0,4}}({_NUMBER.pattern})[ \t]{{0,4}})?\]")
_BRACKET_BEGUN: Final = re.compile(
    rf"\[({_NAME})(:[ \t]{{0,4}}[-+]?[0-9]{{0,8}}(?:\.[0-9]{{0,8}})?[ \t]{{0,4}})?"
)

_KEY: Final = r"(?:name|intensity)"
_VALUE: Final = r"""(?:"[^"<>]{0,64}"|'[^'<>]{0,64}'|[\w.+-]{1,64})"""
_VALUE_BEGUN: Final = r"""(?:"[^"<>]{0,64}|'[^'<>]{0,64}|[\w.+-]{0,64})"""
_ATTRIBUTE: Final = rf"\s{{1,8}}{_KEY}{_SPACE}={_SPACE}{_VALUE}"
_ELEMENT: Final = re.compile(
    rf"<emotion((?:{_ATTRIBUTE}){{1,2}}){_SPACE}/>", re.IGNORECASE | re.ASCII
)
_ELEMENT_BEGUN: Final = re.compile(
    rf"<{_begun('emotion')}"
    rf"|<emotion(?:{_ATTRIBUTE}){{0,2}}(?:{_SPACE}/?"
    rf"|\s{{1,8}}(?:{_begun('name')}|{_begun('intensity')})"
    rf"|\s{{1,8}}{_KEY}{_SPACE}(?:={_SPACE}{_VALUE_BEGUN})?)",
    re.IGNORECASE | re.ASCII,
)
_ATTRIBUTES: Final = re.compile(rf"({_KEY}){_SPACE}={_SPACE}({_VALUE})", re.IGNORECASE | re.ASCII)

_ACT_BODY: Final = rf"\{{(?:(?!\|>)[^<]){{0,{_ACT_CHARS}}}"
_ACT: Final = re.compile(rf"<\|ACT{_SPACE}({_ACT_BODY})\|>")
_ACT_BEGUN: Final = re.compile(rf"<{_begun('|ACT')}|<\|ACT{_SPACE}(?:{_ACT_BODY}\|?)?")

_OPENER: Final = re.compile(r"\[(?=[^][<>:\r\n]|\Z)|<(?=[eE|]|\Z)")

MAX_HELD: Final = 320
"""No text that may still become a tag is longer: three attributes, the last of them begun."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag that was found.

    Attributes:
        name: label or alias as it was written.
        intensity: as it was written, not clamped; 1 where it was not.
        at: how many characters of the clean delta come before it.
    """

    name: str
    intensity: float
    at: int


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    intensity: float
    end: int


class _Unsure:
    """More text decides."""


_UNSURE: Final = _Unsure()
_Verdict = _Found | _Unsure | None


class TagReader:
    """Reads one text, delta by delta.

    Attributes:
        held: the end of the text, where it may be the beginning of a tag.
    """

    def __init__(self, held: str = "") -> None:
        self.held = held

    def read(
        self, delta: str, emotions: EmotionTable, *, final: bool = False
    ) -> tuple[str, list[Tag]]:
        """Take one delta.

        Args:
            emotions: which names are known.
            final: nothing follows, so nothing is held back.

        Returns:
            The text without its tags as far as it is clear, and the tags, in order.
        """
        text, half = _cut_half(self.held + delta, final)
        at = 0
        clean: list[str] = []
        length = 0
        tags: list[Tag] = []
        while (opener := _OPENER.search(text, at)) is not None:
            begin = opener.start()
            verdict = _look(text, begin, emotions, final)
            end = begin + 1 if verdict is None else begin
            clean.append(text[at:end])
            length += end - at
            at = end
            if isinstance(verdict, _Found):
                tags.append(Tag(verdict.name, verdict.intensity, length))
                at = verdict.end
            elif isinstance(verdict, _Unsure):
                break
        else:
            clean.append(text[at:])
            at = len(text)
        self.held = text[at:] + half
        return "".join(clean), tags


class OpenTexts:
    """The texts of all producers, as far as something of them is held back."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[Hashable, str], tuple[str, float]] = OrderedDict()
        # Those that hold nothing but a whole bracket tag, and since when; oldest first.
        self._whole: OrderedDict[tuple[Hashable, str], tuple[Tag, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def read(
        self,
        source: Hashable,
        text_id: str,
        delta: str,
        emotions: EmotionTable,
        now_s: float,
        *,
        final: bool,
    ) -> tuple[str, list[Tag]]:
        """Take one delta of a producer's text; see `TagReader.read`.

        Args:
            source: the producer; texts of the same id from two of them are two texts.
            now_s: monotonic seconds.

        Raises:
            InvalidEventError: too many texts wait for the end of a tag; nothing has changed.
        """
        self._forget_idle(now_s)
        key = (source, text_id)
        held, _ = self._open.get(key, ("", now_s))
        reader = TagReader(held)
        clean, tags = reader.read(delta, emotions, final=final)
        if reader.held and key not in self._open:
            self._check_room(source, text_id)
        self._close(key)
        if reader.held:
            self._open[key] = (reader.held, now_s)
            tag = _whole_bracket(reader.held, emotions)
            if tag is not None:
                self._whole[key] = (tag, now_s)
        return clean, tags

    @property
    def decides_s(self) -> float | None:
        """When the next bracket is taken for a tag because nothing has followed it."""
        return next((since_s + QUIET_S for _, since_s in self._whole.values()), None)

    def decide(self, now_s: float) -> list[tuple[Hashable, str, Tag]]:
        """The brackets that nothing has followed for long enough: source, text's id, tag."""
        decided = []
        while (due_s := self.decides_s) is not None and due_s <= now_s:
            key, (tag, _) = next(iter(self._whole.items()))
            self._close(key)
            decided.append((*key, tag))
        return decided

    def _close(self, key: tuple[Hashable, str]) -> None:
        self._open.pop(key, None)
        self._whole.pop(key, None)

    def _forget_idle(self, now_s: float) -> None:
        while self._open:
            key, (_, used_s) = next(iter(self._open.items()))
            if now_s - used_s <= IDLE_S:
                break
            self._close(key)

    def _check_room(self, source: Hashable, text_id: str) -> None:
        own = sum(each == source for each, _ in self._open)
        if own >= TEXTS_PER_SOURCE or len(self._open) >= TEXTS:
            raise InvalidEventError(
                ErrorCode.RATE_LIMITED,
                f"{TEXTS_PER_SOURCE} texts of a producer, {TEXTS} of all, may wait for the end of "
                "a tag; end one with `final` first",
                field="id",
                event_id=text_id,
            )


def _cut_half(text: str, final: bool) -> tuple[str, str]:
    """The text with its surrogate halves joined, and the half at its end that waits for another."""
    if text.isascii():
        return text, ""
    half = text[-1] if "\ud800" <= text[-1] <= "\udbff" and not final else ""
    units = text[: len(text) - len(half)].encode("utf-16-le", "surrogatepass")
    return units.decode("utf-16-le", "replace"), half


# --- one candidate --------------------------------------------------------------------------


def _look(text: str, at: int, emotions: EmotionTable, final: bool) -> _Verdict:
    """Whether a tag begins at `at`: found, perhaps, or None for no.

    Once this is None, or found, it stays so whatever follows; until then it is unsure.
    """
    dialects: tuple[Callable[[str, int, EmotionTable, bool], _Verdict], ...]
    dialects = (_bracket,) if text[at] == "[" else (_element, _act)
    for dialect in dialects:
        verdict = dialect(text, at, emotions, final)
        if verdict is not None:
            return verdict
    return None


def _bracket(text: str, at: int, emotions: EmotionTable, final: bool) -> _Verdict:
    whole = _BRACKET.match(text, at)
    if whole is not None:
        name, number = whole.groups()
        end = whole.end()
        if not emotions.knows(name) or text.startswith("(", end):
            return None
        if end == len(text) and not final:
            return _UNSURE
        return _Found(name.strip(), 1.0 if number is None else float(number), end)
    begun = None if final else _BRACKET_BEGUN.fullmatch(text, at)
    if begun is None:
        return None
    name, number = begun.groups()
    possible = emotions.begins_name(name) if number is None else emotions.knows(name)
    return _UNSURE if possible else None


def _whole_bracket(text: str, emotions: EmotionTable) -> Tag | None:
    found = _bracket(text, 0, emotions, final=True) if _BRACKET.fullmatch(text) else None
    return Tag(found.name, found.intensity, 0) if isinstance(found, _Found) else None


def _element(text: str, at: int, emotions: EmotionTable, final: bool) -> _Verdict:
    whole = _ELEMENT.match(text, at)
    if whole is None:
        return _UNSURE if not final and _ELEMENT_BEGUN.fullmatch(text, at) else None
    pairs = [(key.lower(), value.strip("\"'")) for key, value in _ATTRIBUTES.findall(whole[1])]
    attributes = dict(pairs)
    name, number = attributes.get("name", ""), attributes.get("intensity", "1").strip()
    if len(attributes) < len(pairs) or not emotions.knows(name):
        return None
    if not _NUMBER.fullmatch(number):
        return None
    return _Found(name.strip(), float(number), whole.end())


def _act(text: str, at: int, emotions: EmotionTable, final: bool) -> _Verdict:
    whole = _ACT.match(text, at)
    if whole is None:
        return _UNSURE if not final and _ACT_BEGUN.fullmatch(text, at) else None
    try:
        body = json.loads(whole[1])
    except (ValueError, RecursionError):
        return None
    emotion = body.get("emotion")
    if not isinstance(emotion, Mapping):
        return None
    name, number = emotion.get("name"), emotion.get("intensity", 1.0)
    if not isinstance(name, str) or not emotions.knows(name):
        return None
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return None
    return _Found(name.strip(), float(number), whole.end())
