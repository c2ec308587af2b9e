"""The mouth: skin that ends at the lips, drawn over what is between them.

Drawn from the back: the face's own warp, the inside of the mouth, the upper sheet of skin, and over
everything the lower one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, cast

import cv2
import numpy as np

from pipeline.mesh import layers, lips, teeth
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, sampled, times
from pipeline.mesh.fields import Grid, Window
from pipeline.mesh.layers import Tint
from pipeline.mesh.light import Light
from pipeline.types import Float32Array, Image

_JAW_DROP: Final = 0.28  # of the lower teeth at `jawOpen` 1, in face units
_JAW_SHIFT: Final = 0.09
_QUIET: Final = 0.03  # activity up to which all of it fades in
_MOVED: Final = 0.40  # activity from which nothing between the lips is as in the photo
_COVERAGE: Final = layers.coverage_table(0.012)
_UPPER_SHADOW: Final = layers.shadow_table(0.022, 0.42)
_LOWER_SHADOW: Final = layers.shadow_table(0.010, 0.30)
_SEAM: Final = layers.closeness_table(0.016)
_SEAM_DEPTH: Final = 0.42  # of the line between lips that were apart in the portrait
_APART: Final = 0.05  # this far apart they have no line of their own to close along
_COVERED: Final = 180  # from here on in a fourth channel nothing behind shows, nor the rim itself
_FLESH: Final = (1.0, 1.35, 1.45)  # shadows in a mouth are red


@dataclass(frozen=True, slots=True, eq=False)
class Mouth:
    """One mouth, taken apart.

    Attributes:
        upper, lower: sheets of skin, (h, w, 4) uint8 in pixels of the texture patch.
        skull, jaw: what is behind them, (h, w, 4) uint8 likewise.
        photo: what the portrait shows there, (h, w, 4) uint8.
        slot: where something other than skin can show.
        skin: where the lower sheet can show; the slot lies inside it.
        jaw_axes: rows: the jaw's way sideways and down at full strength, in texture pixels.
        seam: how dark the line between closed lips gets.
        flesh: tint of shadows in the mouth.
    """

    upper: Image
    lower: Image
    skull: Image
    photo: Image
    jaw: Image
    slot: Window
    skin: Window
    jaw_axes: Float32Array
    seam: float
    flesh: Tint

    def draw(
        self,
        frame: Image,
        fields: tuple[Float32Array, Float32Array, Float32Array],
        jaw: tuple[float, float],
        activity: float,
    ) -> None:
        """Draw over a frame that shows the face already.

        Args:
            frame: (H, W, 3) uint8.
            fields: forward fields of the upper sheet and the skull over `slot.outer`, of the
                lower sheet over `skin.outer`.
            jaw: how far it is open (0..1), and aside (-1..1, positive to the character's left).
            activity: how much moves the mouth; 0 leaves the frame as it is.
        """
        upper, skull, lower = fields
        show = min(activity / _QUIET, 1.0)
        if show <= 0.0:
            return
        target = self.skin.inner.cut(frame)
        before = target.copy() if show < 1.0 else target
        slot = self.slot.inner
        above = self.slot.sampled(self.upper, self.slot.nodes(upper), slot)
        opening = slot.cut(frame)
        opening[:] = layers.colour_of(above)
        nodes = self.skin.nodes(lower)
        reach = self._reach(nodes)
        below = self.skin.sampled(self.lower, nodes, reach)
        rim = layers.edge_of(below)
        gap = self._gap(layers.edge_of(above), self._over_slot(rim, reach))
        if gap is not None:
            view = gap.part.cut(frame)
            inside = self._inside(self.slot.nodes(skull), gap, jaw, min(activity / _MOVED, 1.0))
            view[:] = layers.over(view, layers.look_up(_COVERAGE, gap.above), inside)
        view = reach.cut(frame)
        view[:] = layers.over(layers.colour_of(below), layers.look_up(_COVERAGE, rim), view)
        if gap is not None and self.seam > 0.0:
            meeting = times(layers.look_up(_SEAM, gap.above), layers.look_up(_SEAM, gap.below))
            light = cv2.addWeighted(meeting, -self.seam, meeting, 0.0, 1.0)
            view = gap.part.cut(frame)
            view[:] = layers.shaded(view, cast(Float32Array, light), self.flesh)
        if show < 1.0:
            target[:] = cv2.addWeighted(target, show, before, 1.0 - show, 0.0)

    def _reach(self, nodes: Float32Array) -> Grid:
        """The part of the skin's window that the lower sheet can show in.

        Where the fourth channel is 0 at neighbouring nodes its rim is far from all between them.
        """
        skin = self.skin.inner
        near = layers.part_with(layers.edge_of(sampled(self.lower, nodes))[1:-1, 1:-1] > 0)
        return skin.beside(near) if near is not None else skin

    def _over_slot(self, rim: Image, reach: Grid) -> Image:
        """The lower sheet's fourth channel over the slot, 0 beyond its reach."""
        skin = self.skin.inner
        whole = np.zeros((skin.height, skin.width), np.uint8)
        whole[skin.slices(reach)] = rim
        return whole[skin.slices(self.slot.inner)]

    def _gap(self, above: Image, below: Image) -> _Gap | None:
        """What neither sheet covers, by their rims over the slot; None where they cover all."""
        found = layers.part_with(np.maximum(above, below) < _COVERED)
        if found is None:
            return None
        part = self.slot.inner.around(found)
        place = self.slot.inner.slices(part)
        return _Gap(part, np.ascontiguousarray(above[place]), np.ascontiguousarray(below[place]))

    def _inside(
        self, nodes: Float32Array, gap: _Gap, jaw: tuple[float, float], moved: float
    ) -> Image:
        """Cavity, tongue and teeth in the shadow of both sheets.

        Args:
            nodes: of the slot, where the skull rests.
            gap: what to draw.
            jaw: as in `draw`.
            moved: 0 for all as in the photo, 1 for nothing as in it.
        """
        places = self.slot.places(nodes, gap.part)
        skull = sampled(self.skull, places)
        if moved < 1.0:
            photo = sampled(self.photo, places)
            skull = cast(Image, cv2.addWeighted(skull, moved, photo, 1.0 - moved, 0.0))
        opened, aside = jaw
        way = self.jaw_axes[1] * np.float32(opened) + self.jaw_axes[0] * np.float32(aside)
        lower = sampled(self.jaw, self.slot.places(nodes - way, gap.part))
        behind_teeth = layers.opacity_of(lower) * (1.0 - layers.opacity_of(skull))
        view = layers.over(layers.colour_of(lower), behind_teeth, layers.colour_of(skull))
        light = times(
            layers.look_up(_UPPER_SHADOW, gap.above), layers.look_up(_LOWER_SHADOW, gap.below)
        )
        if moved < 1.0:  # a photo has its own shadows
            light = cast(Float32Array, cv2.addWeighted(light, moved, light, 0.0, 1.0 - moved))
        return layers.shaded(view, light, self.flesh)


class _Gap(NamedTuple):
    """A part of the slot, and there the fourth channels of the upper and the lower sheet."""

    part: Grid
    above: Image
    below: Image


def hides_all_below(activity: float) -> bool:
    """Whether a mouth drawn with that activity leaves nothing in its slot of what was there."""
    return activity >= _QUIET


def prepare(
    face: Anatomy, texture: Image, windows: tuple[Window, Window], parting: float, light: Light
) -> Mouth:
    """Take the mouth apart.

    Args:
        face: the face in pixels of the texture.
        texture: (H, W, 3) uint8.
        windows: slot and skin, which map to one patch of the texture.
        parting: how far the lips are apart in the portrait, in face units.
        light: on the face.
    """
    slot, skin = windows
    cut = np.ascontiguousarray(skin.patch.cut(texture))
    at = face.to_face(skin.patch.nodes())
    skull = teeth.skull_layer(cut, at, face, light)
    return Mouth(
        upper=lips.upper_sheet(cut, at, face),
        lower=lips.lower_sheet(cut, at, face),
        skull=skull,
        photo=np.dstack([cut, np.full_like(cut[..., :1], 255)]),
        jaw=teeth.jaw_layer(at, face, light),
        slot=slot,
        skin=skin,
        jaw_axes=f32([[_JAW_SHIFT], [_JAW_DROP]]) * face.axes * np.float32(face.unit),
        seam=_SEAM_DEPTH * min(parting / _APART, 1.0),
        flesh=light.tint(_FLESH),
    )
