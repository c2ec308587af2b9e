"""From one renderer's pictures to another's without a jump."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, replace
from typing import Final

from pipeline.frame_cache import FrameKey
from pipeline.picture import FormatEncoder, Picture

FADE_S: Final = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """The picture before."""

    renderer: str
    portrait: str
    jpeg: bytes
    at_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Fade:
    """A change of renderer under way: from this picture, since then."""

    before: bytes
    since_s: float


class CrossFade:
    """Mixes the pictures of a stage while its renderer changes; another portrait is a cut.

    Args:
        encoder: mixes and encodes, in its thread.
        quality: 1..100, of the JPEGs.
        patience_s: a picture that cannot be mixed within this time makes the change a cut.
        fade_s: how long a change takes.
    """

    def __init__(
        self, encoder: FormatEncoder, quality: int, patience_s: float, fade_s: float = FADE_S
    ) -> None:
        self._encoder = encoder
        self._quality = quality
        self._patience_s = patience_s
        self._fade_s = fade_s
        self._seen: _Seen | None = None
        self._fade: _Fade | None = None
        self._mixed = itertools.count()

    async def next(self, picture: Picture, now_s: float) -> Picture:
        """The picture, or on its way to it from what another renderer drew of the same portrait."""
        seen, renderer = self._seen, picture.key.family.renderer
        self._seen = _Seen(renderer, picture.portrait, picture.jpeg, now_s)
        if seen is None or seen.portrait != picture.portrait:
            self._fade = None
        elif seen.renderer != renderer and now_s > seen.at_s:
            self._fade = _Fade(seen.jpeg, seen.at_s)
        if self._fade is None:
            return picture
        share = (now_s - self._fade.since_s) / self._fade_s
        jpeg = await self._mix(self._fade.before, picture.jpeg, share) if share < 1.0 else None
        if jpeg is None:
            self._fade = None
            return picture
        self._seen = replace(self._seen, jpeg=jpeg)
        family = picture.key.family._replace(renderer=f"{renderer} fading in")
        code = picture.key.code + next(self._mixed).to_bytes(8, "little")
        return replace(picture, key=FrameKey(family, code), jpeg=jpeg)

    async def _mix(self, before: bytes, after: bytes, share: float) -> bytes | None:
        """None where it cannot be had in time."""
        future = self._encoder.crossfaded(before, after, share, self._quality)
        try:
            await asyncio.wait((future,), timeout=self._patience_s)
        finally:
            future.cancel()
        failed = future.cancelled() or future.exception() is not None
        return None if failed else future.result()
