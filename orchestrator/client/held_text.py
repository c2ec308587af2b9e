"""What of a text the daemon still holds back, because it may become a tag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_CLOSERS: Final = (("[", "]"), ("<|", "|>"), ("<", ">"))


def held_back(text: str, clean: str, ats: Sequence[int]) -> str:
    """The end of `text` that is neither in `clean` nor in a tag.

    The daemon forgets what it holds when a connection is lost. A client that goes on over a
    new one sends it again, before what comes next.

    Args:
        text: what the daemon had held back before, and the delta that it read then.
        clean: what it answered.
        ats: for each tag that it took out, how many characters of `clean` come before it.

    Raises:
        ValueError: these do not belong together.
    """
    at = done = 0
    for tag_at in ats:
        at = _after_tag(text, _after(text, at, clean[done:tag_at]))
        done = tag_at
    return text[_after(text, at, clean[done:]) :]


def _after(text: str, at: int, piece: str) -> int:
    if not text.startswith(piece, at):
        raise ValueError(f"expected {piece!r} at {at} in {text!r}")
    return at + len(piece)


def _after_tag(text: str, at: int) -> int:
    for opener, closer in _CLOSERS:
        if text.startswith(opener, at):
            return text.index(closer, at) + len(closer)
    raise ValueError(f"expected a tag at {at} in {text!r}")
