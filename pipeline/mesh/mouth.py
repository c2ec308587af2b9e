"""The mouth: skin that ends at the lips, drawn over what is between them.

Drawn from the back: the face's own warp, the inside of the mouth, the upper sheet of skin, and over
everything the lower one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np

from pipeline.mesh import layers, lips, teeth
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, minus, sampled, times
from pipeline.mesh.fields import Window
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
        sheet = sampled(self.lower, self.skin.places(lower))
        edge = layers.edge_of(sheet)
        slot = self.skin.inner.slices(self.slot.inner)
        opening, meeting = self._opening(
            (upper, skull), np.ascontiguousarray(edge[slot]), jaw, min(activity / _MOVED, 1.0)
        )
        target[slot] = opening
        view = layers.over(layers.colour_of(sheet), layers.look_up(_COVERAGE, edge), target)
        if self.seam > 0.0:
            light = cv2.addWeighted(meeting, -self.seam, meeting, 0.0, 1.0)
            view[slot] = layers.shaded(view[slot], cast(Float32Array, light), self.flesh)
        if show < 1.0:
            view = cast(Image, cv2.addWeighted(view, show, before, 1.0 - show, 0.0))
        target[:] = view

    def _opening(
        self,
        fields: tuple[Float32Array, Float32Array],
        below: Image,
        jaw: tuple[float, float],
        moved: float,
    ) -> tuple[Image, Float32Array]:
        """The slot without the lower sheet, and how near both edges are, 1 where they meet."""
        sheet = sampled(self.upper, self.slot.places(fields[0]))
        edge = layers.edge_of(sheet)
        view = self._inside(self.slot.places(fields[1]), jaw, moved)
        light = times(layers.look_up(_UPPER_SHADOW, edge), layers.look_up(_LOWER_SHADOW, below))
        if moved < 1.0:  # a photo has its own shadows
            light = cast(Float32Array, cv2.addWeighted(light, moved, light, 0.0, 1.0 - moved))
        view = layers.shaded(view, light, self.flesh)
        view = layers.over(layers.colour_of(sheet), layers.look_up(_COVERAGE, edge), view)
        return view, times(layers.look_up(_SEAM, edge), layers.look_up(_SEAM, below))

    def _inside(self, places: Float32Array, jaw: tuple[float, float], moved: float) -> Image:
        """Cavity, tongue and teeth; what the photo shows of them while lips hardly move."""
        layer = self.skull
        if moved < 1.0:
            layer = cast(Image, cv2.addWeighted(layer, moved, self.photo, 1.0 - moved, 0.0))
        skull = sampled(layer, places)
        opened, aside = jaw
        moved = self.jaw_axes[1] * np.float32(opened) + self.jaw_axes[0] * np.float32(aside)
        lower = sampled(self.jaw, minus(places, np.broadcast_to(moved, places.shape)))
        behind_teeth = layers.opacity_of(lower) * (1.0 - layers.opacity_of(skull))
        return layers.over(layers.colour_of(lower), behind_teeth, layers.colour_of(skull))


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
