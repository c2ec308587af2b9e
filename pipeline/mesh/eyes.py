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
from pipeline.mesh.arrays import f32, sampled
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
        places: (steps, rows + 2, columns + 2, 2) float32, where in the patch the nodes of its
            grid rest, and those of a ring around it.
        stride: pixels between nodes.
    """

    low: float
    high: float
    places: Float32Array
    stride: int

    @classmethod
    def of(cls, travel: Float32Array, grid: Grid, span: tuple[float, float]) -> Ways:
        """Invert `travel`, the forward field at amount 1, for amounts across `span`."""
        nodes, step = grid.indices(), grid.stride
        rest = Grid(-step, -step, grid.columns + 2, grid.rows + 2, step).nodes()
        places = []
        for amount in np.linspace(*span, _WAYS, dtype=np.float32):
            backward = inverted(travel * amount, nodes, step, 14)
            places.append(rest - np.pad(backward, ((1, 1), (1, 1), (0, 0)), "edge"))
        return cls(*span, np.stack(places), step)

    def at(self, amount: float) -> Float32Array:
        """Where every pixel of the patch rests at an amount, between the two nearest."""
        share = (min(max(amount, self.low), self.high) - self.low) / (self.high - self.low)
        step = min(int(share * (_WAYS - 1)), _WAYS - 2)
        share = share * (_WAYS - 1) - step
        before, after = self.places[step], self.places[step + 1]
        nodes = cast(Float32Array, cv2.addWeighted(before, 1.0 - share, after, share, 0.0))
        ring = self.stride
        rows, columns = nodes.shape[0] * ring, nodes.shape[1] * ring
        return enlarged(nodes, columns, rows)[ring:-ring, ring:-ring]


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
        upper = skin if amount == 0.0 else sampled(skin, self.upper_ways.at(amount))
        rim, view = layers.edge_of(upper), layers.colour_of(upper)
        below = layers.part_with(rim < _COVERED)
        if below is not None:
            rim = np.ascontiguousarray(rim[below])
            behind = self._behind(state, below, rim, closing)
            view[below] = layers.over(view[below], layers.look_up(_COVERAGE, rim), behind)
        return view

    def _behind(self, state: EyeState, part: layers.Part, rim: Image, closing: float) -> Image:
        """What a part of the patch shows behind the upper lid: the lower one over the ball."""
        lower = self.lower[part]
        if state.lower != 0.0:
            lower = sampled(self.lower, self.lower_ways.at(state.lower)[part])
        view, edge = layers.colour_of(lower), layers.edge_of(lower)
        gap = layers.part_with(np.maximum(rim, edge) < _COVERED)
        if gap is not None:
            ball = self._ball(state, layers.part_of(part, gap))
            if closing > 0.0:
                shadow = layers.look_up(_lid_shadow(closing), np.ascontiguousarray(rim[gap]))
                ball = layers.shaded(ball, shadow)
            covered = layers.look_up(_COVERAGE, np.ascontiguousarray(edge[gap]))
            view[gap] = layers.over(view[gap], covered, ball)
        return view

    def _ball(self, state: EyeState, part: layers.Part) -> Image:
        """The eyeball: the photo's own while lids only close, a whole one as it shows more."""
        gaze = state.gaze
        widened = self.opening * (max(-state.upper, 0.0) + max(-state.lower, 0.0))
        turned = (widened + abs(gaze[0]) + abs(gaze[1])) / _UNCOVERED
        if turned <= 0.0:
            return self.photo[part]
        x, y = gaze[0] * self.unit, gaze[1] * self.unit
        iris = _shifted(self.iris, x, y, part)
        ball = layers.over(layers.colour_of(iris), layers.opacity_of(iris), self.ball[part])
        # A reflection on a turning ball stays behind: it shows where the light is.
        glint = _shifted(self.glint, _GLINT_FOLLOWS * x, _GLINT_FOLLOWS * y, part)
        ball = cast(Image, cv2.add(ball, glint))
        if turned >= 1.0:
            return ball
        return cast(Image, cv2.addWeighted(ball, turned, self.photo[part], 1.0 - turned, 0.0))


def _shifted(image: Image, x: float, y: float, part: layers.Part) -> Image:
    """A part of an image that is moved by x, y."""
    rows, columns = part
    shift = f32([[1, 0, x - columns.start], [0, 1, y - rows.start]])
    size = columns.stop - columns.start, rows.stop - rows.start
    return cast(Image, cv2.warpAffine(image, shift, size, flags=cv2.INTER_LINEAR))


_COVERAGE: Final = layers.coverage_table(_EDGE)
_COVERED: Final = 140  # from here on in a fourth channel nothing behind shows


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
