"""One renderer of a fallback ladder: how it is doing, and what it is busy with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from pipeline.frame_maker import MadeFrame
from pipeline.health import RendererHealth
from pipeline.render_host import RendererSource

_FORGETS: Final = 0.9  # of a slow frame is remembered with each further one


@dataclass(slots=True, eq=False)
class Rung:
    """One renderer of one ladder.

    Attributes:
        probing: a frame that tells whether it works is under way.
        ahead: too slow for the stream; it draws faces ahead of need and serves from the cache.
        slow, quick: probes in a row that were slow, frames in a row that were quick.
        blocker: the job that kept the last picture waiting in vain. Until it is over, waiting
            again would only slow the stream down.
        late: that job is the stage's own.
        overdue: it has been noted that this job missed the deadline.
        drawing_ahead: the face that it draws ahead now.
        render_s: what its last frame took.
        took_s: about what its slowest recent frame took, waiting and encoding included.
    """

    source: RendererSource
    health: RendererHealth
    probing: bool = False
    ahead: bool = False
    slow: int = 0
    quick: int = 0
    blocker: asyncio.Future[object] | None = None
    late: bool = False
    overdue: bool = False
    drawing_ahead: asyncio.Future[MadeFrame] | None = None
    render_s: float = 0.0
    took_s: float = 0.0

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def background(self) -> bool:
        return self.source.background

    def took(self, seconds: float) -> None:
        """Note how long a frame took. What was slow a moment ago may well be so again."""
        self.took_s = max(seconds, _FORGETS * self.took_s)
