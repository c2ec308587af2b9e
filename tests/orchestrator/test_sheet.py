"""Contact sheets: what is on them, and that they are drawn no more often than needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from orchestrator.characters import CharacterBook
from orchestrator.expression.emotions import EmotionTable
from orchestrator.look import Look
from orchestrator.settings import default_config_dir
from orchestrator.sheet import Sheets, sheet_faces
from pipeline.decoding import decode_image
from pipeline.errors import InvalidEventError
from pipeline.frame_cache import FrameCache
from pipeline.picture import FormatEncoder
from pipeline.types import FaceControls, Portrait
from tests.fakes.metrics import RecordingMetrics

CONFIG = default_config_dir()
EMOTIONS = EmotionTable.load(CONFIG / "emotions.toml")
BOOK = CharacterBook.load(CONFIG / "characters", EMOTIONS.labels)


class CountingHost:
    """As much of `RenderHost` as a sheet needs; counts what it draws."""

    def __init__(self) -> None:
        self.drawn: list[FaceControls] = []

    async def draw_once(
        self, portrait: Portrait, controls: FaceControls, size_px: tuple[int, int]
    ) -> Any:
        self.drawn.append(controls)
        return SimpleNamespace(image=np.full((size_px[1], size_px[0], 3), 200, np.uint8))


class Studio:
    """Sheets around a host that counts."""

    def __init__(self, files: ThreadPoolExecutor, encoder: FormatEncoder) -> None:
        self.host = CountingHost()
        self.emotions = EMOTIONS
        self.sheets = Sheets(
            lambda: BOOK,
            lambda: self.emotions,
            host=cast(Any, self.host),
            encoder=encoder,
            files=files,
        )


@pytest.fixture
async def studio() -> AsyncIterator[Studio]:
    metrics = RecordingMetrics()
    encoder = FormatEncoder(FrameCache(2**20, metrics), metrics)
    with ThreadPoolExecutor(1) as files:
        yield Studio(files, encoder)
        await encoder.close(1.0)


def test_every_emotion_is_on_it_at_four_intensities() -> None:
    """The sheet shows each label of the table, and what is no emotion besides."""
    faces = dict(sheet_faces(Look(EMOTIONS)))
    for label in EMOTIONS.labels:
        assert [name for name in faces if name.startswith(f"{label} ")] == [
            f"{label} 0.25", f"{label} 0.50", f"{label} 0.75", f"{label} 1.00"
        ]  # fmt: skip
    assert faces["yaw -12"].yaw == pytest.approx(-12.0)
    assert {"blink 1.00", "look left", "jaw 0.50", "roll +8", "cheek puff"} <= faces.keys()


async def test_a_sheet_is_drawn_once_until_something_changes(studio: Studio) -> None:
    """A second request costs nothing; after the emotion table was read anew it is drawn anew."""
    first = await studio.sheets.sheet("astronaut")
    faces = len(studio.host.drawn)
    assert await studio.sheets.sheet("astronaut") == first
    assert len(studio.host.drawn) == faces == len(list(sheet_faces(Look(EMOTIONS))))
    assert decode_image(first, name="sheet").shape[1] > 8 * 160

    studio.emotions = EmotionTable.load(CONFIG / "emotions.toml")
    await studio.sheets.sheet("astronaut")
    assert len(studio.host.drawn) == 2 * faces


async def test_nobody_of_that_name_costs_nothing(studio: Studio) -> None:
    """An unknown name is refused before anything is drawn."""
    with pytest.raises(InvalidEventError, match="nobody"):
        await studio.sheets.sheet("nobody")
    assert studio.host.drawn == []
