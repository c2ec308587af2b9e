"""The `mesh` renderer: one portrait photo, warped and layered, in numpy and OpenCV."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, cast

import cv2
import numpy as np

from pipeline.errors import RenderError
from pipeline.mesh import drive, layers, mouth, shading
from pipeline.mesh.arrays import f32, minus, sampled, sampled_field, times
from pipeline.mesh.fields import enlarged, inverted
from pipeline.mesh.rig import OVERSAMPLING, Rig, build
from pipeline.types import ARKIT_INDEX, FaceControls, Float32Array, Image, Portrait

DEFAULT_SIZE_PX: Final = (512, 512)
_SIZES_KEPT: Final = 3
_LARGEST_PX: Final = 2048
_MOUTH_QUIET: Final = 0.06


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
        size_px: (width, height) that `prepare` makes ready; other sizes on first use.
    """

    name: Final = "mesh"
    device: Final = "cpu"

    def __init__(self, size_px: tuple[int, int] = DEFAULT_SIZE_PX) -> None:
        self._size_px = size_px

    def prepare(self, portrait: Portrait) -> MeshPortrait:
        """Take the portrait apart: fields, eyes, mouth. About half a second.

        Raises:
            RenderError: its landmarks do not describe a face that can be animated.
        """
        prepared = MeshPortrait(portrait)
        _guarded(prepared, self._size_px)
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
    for eye, state in zip(rig.eyes, instructions.eyes, strict=True):
        eye.draw(state, rig.texture)
    _draw_folds(rig, float(instructions.rows[drive.RELAX]))
    face, *around_mouth = rig.split(instructions.rows)
    frame = rig.base.copy()
    grid = rig.grid
    view = frame[grid.top : grid.top + grid.height, grid.left : grid.left + grid.width]
    backward = enlarged(inverted(face, rig.identity, grid.stride), grid.width, grid.height)
    places = cv2.scaleAdd(backward, -OVERSAMPLING, rig.pixels)
    view[:] = sampled(rig.texture, cast(Float32Array, places))
    _draw_mouth(rig, instructions, tuple(around_mouth), frame)
    gain = shading.brightness(rig.wrinkles, instructions.rows)
    if gain is not None:
        view[:] = layers.shaded(
            view, sampled_field(gain, minus(rig.view_pixels, backward)), rig.skin
        )
    return frame


def _draw_folds(rig: Rig, relaxed: float) -> None:
    """Take the folds of the resting smile out of the skin as far as the smile has gone."""
    for fold in rig.folds:
        fold.draw(relaxed, rig.texture)
        for sheet in (rig.mouth.upper, rig.mouth.lower):
            fold.draw(relaxed, sheet, (rig.mouth.left, rig.mouth.top))


def _draw_mouth(
    rig: Rig, instructions: drive.Drive, parts: tuple[Float32Array, ...], frame: Image
) -> None:
    """Put the lips, and what shows between them, over the frame."""
    show = min(instructions.mouth / _MOUTH_QUIET, 1.0)
    if show <= 0.0:
        return
    inner = rig.inner
    target = frame[inner.top : inner.top + inner.height, inner.left : inner.left + inner.width]
    upper, lower, skull = (_mouth_places(rig, part) for part in parts)
    top, bottom = sampled(rig.mouth.upper, upper), sampled(rig.mouth.lower, lower)
    top_edge, bottom_edge = layers.edge_of(top), layers.edge_of(bottom)
    view = _inside(rig, instructions.rows, skull)
    light = times(
        layers.look_up(mouth.UPPER_SHADOW, top_edge),
        layers.look_up(mouth.LOWER_SHADOW, bottom_edge),
    )
    view = layers.shaded(view, light, rig.flesh)
    view = layers.over(layers.colour_of(top), layers.look_up(mouth.COVERAGE, top_edge), view)
    view = layers.over(layers.colour_of(bottom), layers.look_up(mouth.COVERAGE, bottom_edge), view)
    view = _seamed(rig, view, top_edge, bottom_edge)
    if show < 1.0:
        view = cast(Image, cv2.addWeighted(view, show, target, 1.0 - show, 0.0))
    target[:] = view


def _seamed(rig: Rig, view: Image, top_edge: Image, bottom_edge: Image) -> Image:
    """Darken the line along which lips meet that are apart in the portrait."""
    if rig.seam <= 0.0:
        return view
    met = times(layers.look_up(mouth.SEAM, top_edge), layers.look_up(mouth.SEAM, bottom_edge))
    light = cv2.addWeighted(met, -rig.seam, met, 0.0, 1.0)
    return layers.shaded(view, cast(Float32Array, light), rig.flesh)


def _mouth_places(rig: Rig, forward: Float32Array) -> Float32Array:
    """Where in the mouth's patch every pixel round the mouth rests, for one of its fields."""
    rows, columns = rig.around.window(rig.inner)
    backward = inverted(forward, rig.around_identity, rig.around.stride)[rows, columns]
    scaled = np.ascontiguousarray(backward) * np.float32(OVERSAMPLING)
    return minus(rig.mouth_pixels, enlarged(scaled, rig.inner.width, rig.inner.height))


def _inside(rig: Rig, rows: Float32Array, skull: Float32Array) -> Image:
    """Cavity, tongue and teeth, without lips."""
    view = sampled(rig.mouth.cavity, skull)
    jaw = sampled(rig.mouth.jaw, skull - _jaw_shift(rig, rows))
    view = layers.over(layers.colour_of(jaw), mouth.opacity_of(jaw), view)
    teeth = sampled(rig.mouth.upper_teeth, skull)
    return layers.over(layers.colour_of(teeth), mouth.opacity_of(teeth), view)


def _jaw_shift(rig: Rig, rows: Float32Array) -> Float32Array:
    """How far tongue and lower teeth have moved with the jaw, in texture pixels: (2,)."""
    index = ARKIT_INDEX
    down = mouth.JAW_DROP * float(rows[index["jawOpen"]])
    aside = mouth.JAW_SHIFT * float(rows[index["jawLeft"]] - rows[index["jawRight"]])
    units = f32([aside, down])
    return (units @ rig.face.axes * np.float32(rig.face.unit * OVERSAMPLING)).astype(np.float32)
