"""Pictures from outside to checked portraits: in a thread of their own, each only once."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Sequence
from functools import partial

from cachetools import LRUCache

from pipeline.faces import FaceDetector
from pipeline.portrait import LoadedPortrait, portrait_from_bytes
from pipeline.render_worker import RenderWorker


class Uploads:
    """Decodes pictures and finds their faces, one at a time.

    A picture that comes again is recognised by the hash of its bytes.

    Args:
        max_bytes: of a picture file.
        max_pixels: of a picture.
        detectors: find the faces.
        remembered: portraits that are kept; a portrait has 3 MiB at most.
    """

    def __init__(
        self,
        max_bytes: int,
        max_pixels: int,
        detectors: Sequence[FaceDetector] = (),
        *,
        remembered: int = 16,
    ) -> None:
        self._detectors = detectors
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._known: LRUCache[bytes, LoadedPortrait] = LRUCache(remembered)
        self._worker = RenderWorker("uploads")
        self.worked_out = 0

    async def portrait(self, data: bytes, name: str) -> LoadedPortrait:
        """The portrait in a picture file.

        Args:
            name: for messages.

        Raises:
            PortraitError: it cannot be used.
            RenderError: too many wait (`JobDroppedError`).
        """
        return await self._worker.run(partial(self._portrait, data, name), owner=object())

    async def close(self, deadline_s: float) -> bool:
        """Let the picture in hand be finished and end the thread.

        Returns:
            False if it is still at work after `deadline_s`.
        """
        return await self._worker.close(deadline_s)

    def _portrait(self, data: bytes, name: str) -> LoadedPortrait:
        self._worker.allow(float("inf"))  # bounded by the size of pictures
        digest = hashlib.sha256(data).digest()
        known = self._known.get(digest)
        if known is None:
            try:
                known = portrait_from_bytes(
                    data,
                    name,
                    max_bytes=self._max_bytes,
                    max_pixels=self._max_pixels,
                    detectors=self._detectors,
                )
            except Exception as error:
                _let_go_of_pictures(error)
                raise
            self._known[digest] = known
            self.worked_out += 1
        return known


def _let_go_of_pictures(error: BaseException | None) -> None:
    """Empty the frames that an error and its causes came through.

    They hold the decoded picture, a hundred megabytes and more, and live as long as the error
    does: until the garbage collector comes by, which does not know how large they are.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
