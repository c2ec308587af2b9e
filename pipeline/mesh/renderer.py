"""The `mesh` renderer: one portrait photo, warped and layered, in numpy and OpenCV."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np

from pipeline.errors import RenderError
from pipeline.memory import give_back
from pipeline.mesh import drive, layers, mouth, shading
from pipeline.mesh.arrays import sampled_field
from pipeline.mesh.rig import Rig, build
from pipeline.types import FaceControls, Image, Portrait

DEFAULT_SIZE_PX: Final = (512, 512)
_SIZES_KEPT: Final = 3
_LARGEST_PX: Final = 2048


@dataclass(frozen=True, slots=True, eq=False)
class MeshPortrait:
    """A portrait and its rigs, newest size last."""

    portrait: Portrait
    rigs: OrderedDict[tuple[int, int], Rig] = field(default_factory=OrderedDict)

    def rig(self, size_px: tuple[int, int]) -> Rig:
        """The rig for frames of `size_px`, built on first use."""
        rig = self.rigs.get(size_px)
        if rig is None:
            rig = self.rigs[size_px] = build(self.portrait, size_px)
            while len(self.rigs) > _SIZES_KEPT:
                self.rigs.popitem(last=False)
        self.rigs.move_to_end(size_px)
        return rig


class MeshRenderer:
    """Draws a portrait with any face controls on the CPU; implements `pipeline.ports.Renderer`.

    Zero controls show the portrait as it is. Deterministic: the same arguments give the same
    bytes. Nearly all of a frame's time is spent in a few OpenCV calls that release the GIL.

    Args:
        size_px: (width, height) that `prepare` makes ready; None leaves every size to its first
            frame.
    """

    name: Final = "mesh"
    device: Final = "cpu"

    def __init__(self, size_px: tuple[int, int] | None = DEFAULT_SIZE_PX) -> None:
        self._size_px = size_px
        # A frame is many short calls: threads inside them cost more than they bring, and frames
        # are drawn in parallel with everything else.
        cv2.setNumThreads(1)

    def prepare(self, portrait: Portrait) -> MeshPortrait:
        """Take the portrait apart: fields, eyes, mouth. About half a second.

        Raises:
            RenderError: its landmarks do not describe a face that can be animated.
        """
        prepared = MeshPortrait(portrait)
        if self._size_px is not None:
            _guarded(prepared, self._size_px)
            give_back()
        return prepared

    def render(self, prepared: object, controls: FaceControls, size_px: tuple[int, int]) -> Image:
        """Draw one frame: (height, width, 3) uint8 RGB for `size_px = (width, height)`.

        Raises:
            RenderError: `prepared` is not this renderer's, or it could not be drawn.
        """
        if not isinstance(prepared, MeshPortrait):
            raise RenderError("expected a portrait prepared by the mesh renderer")
        rig = _guarded(prepared, size_px)
        try:
            return draw(rig, controls)
        except cv2.error as error:
            raise RenderError(f"mesh: {error}") from error

    def close(self) -> None:
        """Nothing to free."""


def _guarded(prepared: MeshPortrait, size_px: tuple[int, int]) -> Rig:
    if not all(16 <= side <= _LARGEST_PX for side in size_px):
        raise RenderError(f"frame size: expected 16 to {_LARGEST_PX} pixels, got {size_px}")
    try:
        return prepared.rig(size_px)
    except (cv2.error, np.linalg.LinAlgError) as error:
        raise RenderError(f"mesh: {error}") from error


def draw(rig: Rig, controls: FaceControls) -> Image:
    """One frame of a rig, (h, w, 3) uint8 RGB."""
    instructions = drive.drive(controls, rig.smile)
    draw_texture(rig, instructions)
    face, upper, skull, lower = rig.split(instructions.rows)
    frame = rig.base.copy()
    nodes = rig.face.nodes(face)
    slot = () if mouth.hides_all_below(instructions.mouth) else (rig.mouth.slot.inner,)
    for part in (*rig.parts, *slot):
        part.cut(frame)[:] = layers.colour_of(rig.face.sampled(rig.texture, nodes, part))
    rig.mouth.draw(frame, (upper, skull, lower), instructions.jaw, instructions.mouth)
    light = shading.brightness(rig.wrinkles, instructions.rows)
    if light is not None:
        lit, gain = light
        place, rests = rig.wrinkled_places(nodes, lit)
        skin = place.cut(frame)
        skin[:] = layers.shaded(skin, sampled_field(gain, rests), rig.skin)
    return frame


def draw_texture(rig: Rig, instructions: drive.Drive) -> None:
    """Draw what changes while the face is at rest: eyes, and the folds of a resting smile."""
    for eye, state in zip(rig.eyes, instructions.eyes, strict=True):
        eye.draw(state, rig.texture)
    for fold in rig.folds:
        fold.draw(float(instructions.rows[drive.RELAX]))
