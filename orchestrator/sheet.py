"""The contact sheet of a character: what it can do, on one picture."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Final

from cachetools import LRUCache

from orchestrator.characters import Character, CharacterBook
from orchestrator.expression.emotions import NEUTRAL, EmotionTable
from orchestrator.look import Look
from pipeline.contact_sheet import contact_sheet
from pipeline.faces import FaceDetector
from pipeline.picture import FormatEncoder
from pipeline.render_host import RenderHost
from pipeline.types import FaceControls, Image, ImageFormat

SHEET_STEPS: Final = (0.25, 0.5, 0.75, 1.0)
HEAD_NAMES: Final = ("pitch", "yaw", "roll")
CELL_PX: Final = 160
COLUMNS: Final = 8
QUALITY: Final = 86
SHEETS_KEPT: Final = 4  # about half a megabyte each


def sheet_faces(look: Look) -> Iterator[tuple[str, FaceControls]]:
    """Every emotion at four intensities, then blink, gaze, jaw and head turns, each labelled."""
    for label in look.emotions.labels:
        for step in SHEET_STEPS:
            yield f"{label} {step:.2f}", look.face(label, step)
    still = look.face(NEUTRAL, 1.0)
    for step in SHEET_STEPS:
        yield f"blink {step:.2f}", with_controls(still, eyeBlinkLeft=step, eyeBlinkRight=step)
    yield "look left", with_controls(still, eyeLookOutLeft=0.8, eyeLookInRight=0.8)
    yield "look right", with_controls(still, eyeLookInLeft=0.8, eyeLookOutRight=0.8)
    yield "look up", with_controls(still, eyeLookUpLeft=0.8, eyeLookUpRight=0.8)
    yield "look down", with_controls(still, eyeLookDownLeft=0.8, eyeLookDownRight=0.8)
    for step in SHEET_STEPS:
        # On the portrait's own mouth: what brings its lips together would hold the jaw.
        yield f"jaw {step:.2f}", FaceControls.of(jawOpen=step)
    for name, angle in (("yaw", -12.0), ("yaw", 12.0), ("pitch", -10.0), ("pitch", 10.0)):
        yield f"{name} {angle:+.0f}", with_controls(still, **{name: angle})
    yield "roll -8", with_controls(still, roll=-8.0)
    yield "roll +8", with_controls(still, roll=8.0)
    yield "pucker", FaceControls.of(mouthPucker=0.9)
    yield "cheek puff", with_controls(still, cheekPuff=0.9)


def with_controls(face: FaceControls, **named: float) -> FaceControls:
    """A face with more controls and head angles on top."""
    head = {name: getattr(face, name) + named.pop(name, 0.0) for name in HEAD_NAMES}
    return FaceControls.clamped(face.weights + FaceControls.of(**named).weights, **head)


class Sheets:
    """Draws contact sheets of characters; implements `orders.SheetMaker`.

    One sheet at a time, and one picture of it at a time, in turn with the frames on stage, so a
    sheet takes longer on a busy daemon and holds nobody up.

    Args:
        book: everybody, as of now.
        emotions: the table, as of now.
        host: draws.
        encoder: its thread encodes.
        files: thread for reading portraits.
        detectors: find the faces of portraits that come without landmarks.
    """

    def __init__(
        self,
        book: Callable[[], CharacterBook],
        emotions: Callable[[], EmotionTable],
        *,
        host: RenderHost,
        encoder: FormatEncoder,
        files: Executor,
        detectors: Sequence[FaceDetector] = (),
    ) -> None:
        self._book = book
        self._emotions = emotions
        self._host = host
        self._encoder = encoder
        self._files = files
        self._detectors = detectors
        self._turn = asyncio.Lock()
        self._kept: LRUCache[str, tuple[Character, EmotionTable, bytes]] = LRUCache(SHEETS_KEPT)

    async def sheet(self, name: str) -> bytes:
        """A JPEG of everything that a character can do; see `orders.SheetMaker`."""
        self._book().get(name)
        async with self._turn:
            character, emotions = self._book().get(name), self._emotions()
            kept = self._kept.get(name)
            if kept is not None and kept[0] is character and kept[1] is emotions:
                return kept[2]
            data = await self._drawn(character, emotions)
            self._kept[name] = (character, emotions, data)
            return data

    async def _drawn(self, character: Character, emotions: EmotionTable) -> bytes:
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._files, character.load, self._detectors)
        look = Look(emotions, character.gains, character.rest)
        cells: list[tuple[str, Image]] = []
        for label, face in sheet_faces(look):
            drawing = await self._host.draw_once(loaded.portrait, face, (CELL_PX, CELL_PX))
            cells.append((label, drawing.image))
        sheet = await asyncio.to_thread(contact_sheet, cells, COLUMNS, CELL_PX)
        return await self._encoder.encode(sheet, ImageFormat.JPEG, QUALITY)
