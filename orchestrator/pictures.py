"""Single pictures by order: any face, any emotion, apart from what is live."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.look import Look
from orchestrator.stage import Stage
from orchestrator.uploads import Uploads
from pipeline.orders import PictureOrder, SinglePicture
from pipeline.picture import FormatEncoder
from pipeline.render_host import RenderHost
from pipeline.types import Portrait

SOURCE_NAME = "source_image"


class Pictures:
    """Takes orders for single pictures; implements `orders.PictureMaker`.

    Args:
        stage: finds a stage by name.
        host: draws, one picture at a time, in turn with the frames on stage.
        encoder: its thread encodes.
        uploads: checks source pictures.
    """

    def __init__(
        self,
        stage: Callable[[str | None], Stage],
        *,
        host: RenderHost,
        encoder: FormatEncoder,
        uploads: Uploads,
    ) -> None:
        self._stage = stage
        self._host = host
        self._encoder = encoder
        self._uploads = uploads

    async def draw(self, order: PictureOrder) -> list[SinglePicture]:
        """One picture for every label; see `orders.PictureMaker`."""
        stage = self._stage(order.stage)
        emotions = stage.look.emotions
        labels = dict.fromkeys(emotions.resolve(each, order.field) for each in order.expressions)
        portrait, look = await self._subject(order, stage)
        pictures = []
        for label in labels:
            face = look.face(label, order.intensity)
            drawing = await self._host.draw_once(portrait, face, stage.size_px)
            data = await self._encoder.encode(drawing.image, order.format, stage.quality)
            pictures.append(SinglePicture(label, data))
        return pictures

    async def _subject(self, order: PictureOrder, stage: Stage) -> tuple[Portrait, Look]:
        if order.source is None:
            return stage.portrait, stage.look
        loaded = await self._uploads.portrait(order.source, SOURCE_NAME)
        return loaded.portrait, Look(stage.look.emotions)
