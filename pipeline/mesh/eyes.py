"""Eyes: a ball with an iris that looks around, and two lids that close over it.

An eye is drawn into the texture, where the face rests, before the whole face is warped: lids and
gaze need no knowledge of expression or pose, and one resampling brings all of it to the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np

from pipeline.mesh import eyeball, layers, lids
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, minus, sampled
from pipeline.mesh.fields import Grid, enlarged, inverted
from pipeline.types import Float32Array, Image

_WAYS: Final = 31
_EDGE: Final = 0.014
_GLINT_FOLLOWS: Final = 0.8
_QUIET: Final = 0.006  # movement below which the photo itself shows through
_UNCOVERED: Final = 0.030  # widening or turn from which only the completed eyeball shows


@dataclass(frozen=True, slots=True)
class EyeState:
    """How one eye is held.

    Attributes:
        upper: 0 as in the portrait, 1 closed, negative wider.
        lower: share of the opening by which the lower lid is raised.
        gaze: (x, y) of the iris against the portrait, in face units, image axes.
    """

    upper: float
    lower: float
    gaze: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """One lid's field, inverted ahead for every amount: lids only ever go one way and back.

    Attributes:
        low, high: amounts of the first and last field.
        fields: (steps, rows, columns, 2) float32, backward.
    """

    low: float
    high: float
    fields: Float32Array

    @classmethod
    def of(cls, travel: Float32Array, grid: Grid, span: tuple[float, float]) -> Ways:
        """Invert `travel`, the forward field at amount 1, for amounts across `span`."""
        nodes = grid.indices()
        amounts = np.linspace(*span, _WAYS, dtype=np.float32)
        return cls(*span, np.stack([inverted(travel * a, nodes, grid.stride, 14) for a in amounts]))

    def backward(self, amount: float) -> Float32Array:
        """The inverted field at an amount, between the two nearest."""
        at = (min(max(amount, self.low), self.high) - self.low) / (self.high - self.low)
        step = min(int(at * (_WAYS - 1)), _WAYS - 2)
        share = at * (_WAYS - 1) - step
        before, after = self.fields[step], self.fields[step + 1]
        return cast(Float32Array, cv2.addWeighted(before, 1.0 - share, after, share, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Eye:
    """One eye of one portrait; arrays in pixels of the texture patch at `left`, `top`.

    `shown` is what the texture shows now, so that nothing is drawn twice.
    """

    left: int
    top: int
    photo: Image
    ball: Image
    iris: Image
    glint: Image
    upper: Image
    shut: Image
    lower: Image
    upper_ways: Ways
    lower_ways: Ways
    identity: Float32Array
    shown: list[EyeState]
    opening: float
    unit: float

    def draw(self, state: EyeState, texture: Image) -> None:
        """Write the eye in `state` into the texture (H, W, 4), over its own patch."""
        if self.shown == [state]:
            return
        self.shown[:] = [state]
        h, w = self.photo.shape[:2]
        target = texture[self.top : self.top + h, self.left : self.left + w]
        moved = self.opening * (abs(state.upper) + abs(state.lower))
        moved += abs(state.gaze[0]) + abs(state.gaze[1])
        show = min(moved / _QUIET, 1.0)
        view = self._drawn(state) if show > 0.0 else self.photo
        if 0.0 < show < 1.0:
            view = cast(Image, cv2.addWeighted(view, show, self.photo, 1.0 - show, 0.0))
        target[:] = cv2.cvtColor(view, cv2.COLOR_RGB2RGBA)

    def _drawn(self, state: EyeState) -> Image:
        closing = float(np.clip(state.upper, 0.0, 1.0))
        skin = self.upper
        if closing > 0.0:
            skin = cast(Image, cv2.addWeighted(skin, 1.0 - closing, self.shut, closing, 0.0))
        amount = state.upper * (1.0 - state.lower)
        upper = self._lid(skin, self.upper_ways, amount)
        lower = self._lid(self.lower, self.lower_ways, state.lower)
        edge = layers.edge_of(upper)
        widened = self.opening * (max(-state.upper, 0.0) + max(-state.lower, 0.0))
        turned = (widened + abs(state.gaze[0]) + abs(state.gaze[1])) / _UNCOVERED
        view = self._ball(state.gaze, min(turned, 1.0))
        if closing > 0.0:
            view = layers.shaded(view, layers.look_up(_lid_shadow(closing), edge))
        covered = layers.look_up(_COVERAGE, layers.edge_of(lower))
        view = layers.over(layers.colour_of(lower), covered, view)
        return layers.over(layers.colour_of(upper), layers.look_up(_COVERAGE, edge), view)

    def _lid(self, sheet: Image, ways: Ways, amount: float) -> Image:
        if amount == 0.0:
            return sheet
        h, w = sheet.shape[:2]
        backward = ways.backward(amount)
        return sampled(sheet, minus(self.identity, enlarged(backward, w, h)))

    def _ball(self, gaze: tuple[float, float], turned: float) -> Image:
        """The eyeball: the photo's own while lids only close, a whole one as it shows more."""
        if turned <= 0.0:
            return self.photo
        x, y = gaze[0] * self.unit, gaze[1] * self.unit
        iris = self._shifted(self.iris, x, y)
        ball = layers.over(layers.colour_of(iris), layers.opacity_of(iris), self.ball)
        # A reflection on a turning ball stays behind: it shows where the light is.
        glint = self._shifted(self.glint, _GLINT_FOLLOWS * x, _GLINT_FOLLOWS * y)
        ball = cast(Image, cv2.add(ball, glint))
        if turned >= 1.0:
            return ball
        return cast(Image, cv2.addWeighted(ball, turned, self.photo, 1.0 - turned, 0.0))

    def _shifted(self, image: Image, x: float, y: float) -> Image:
        h, w = image.shape[:2]
        shift = f32([[1, 0, x], [0, 1, y]])
        return cast(Image, cv2.warpAffine(image, shift, (w, h), flags=cv2.INTER_LINEAR))


_COVERAGE: Final = layers.coverage_table(_EDGE)


def _lid_shadow(closing: float) -> Float32Array:
    """What the upper lid takes from the light on the ball; the portrait shows some already."""
    return layers.shadow_table(0.035, 0.40 * closing)


def prepare(face: Anatomy, texture: Image, side: int) -> Eye:
    """Take one eye apart.

    Args:
        face: the face in pixels of the texture.
        texture: (H, W, 3) uint8.
        side: 0 for the eye at the image's left, 1 for the other.
    """
    first = 36 + 6 * side
    grid = _patch(face, first, texture)
    h, w = grid.height, grid.width
    cut = np.ascontiguousarray(grid.cut(texture))
    fine = lids.Lids.of(face, first, Grid(grid.left, grid.top, w, h, 1).nodes())
    coarse = lids.Lids.of(face, first, grid.nodes())
    upper, lower = lids.sheets(cut, fine, face.unit)
    upper_travel, lower_travel = lids.travels(coarse)
    down = lids.across(face, first) * np.float32(face.unit)
    ball, iris, glint = eyeball.prepare(cut, fine, face, side)
    return Eye(
        left=grid.left,
        top=grid.top,
        photo=cut,
        ball=ball,
        iris=iris,
        glint=glint,
        upper=upper,
        shut=lids.without_crease(upper, fine, face.unit),
        lower=lower,
        upper_ways=Ways.of(f32(upper_travel[..., None] * down), grid, (-0.5, 1.0)),
        lower_ways=Ways.of(f32(-lower_travel[..., None] * down), grid, (-0.1, 0.65)),
        identity=Grid(0, 0, w, h, 1).nodes(),
        opening=float((coarse.lower - coarse.upper).max()),
        unit=face.unit,
        shown=[],
    )


def _patch(face: Anatomy, first: int, texture: Image) -> Grid:
    """A rectangle of the texture round the eye, from the brow to below the lower lid."""
    eye = face.points[first : first + 6]
    brows = face.points[17:22] if first == 36 else face.points[22:27]
    u = face.unit
    height, width = texture.shape[:2]
    stride = max(2, round(u / 50))
    left = int(max(eye[:, 0].min() - 0.10 * u, 0))
    right = int(min(eye[:, 0].max() + 0.10 * u, width - 1))
    top = int(max(min(brows[1:4, 1].min(), eye[:, 1].min() - 0.15 * u), 0))
    bottom = int(min(eye[:, 1].max() + 0.20 * u, height - 1))
    return Grid(left, top, (right - left) // stride, (bottom - top) // stride, stride)
