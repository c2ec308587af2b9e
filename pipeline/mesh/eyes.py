"""Eyes: a ball with an iris that looks around, and two lids that close over it.

An eye is drawn into the texture, where the face rests, before the whole face is warped: lids and
gaze need no knowledge of expression or pose, and one resampling brings all of it to the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.mesh import layers
from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import blurred, f32, minus, sampled, sampled_field, smoothstep, u8
from pipeline.mesh.curves import along as along_curve
from pipeline.mesh.fields import Grid, enlarged, inverted
from pipeline.types import Float32Array, Image

Mask = npt.NDArray[np.bool_]

# Face units, measured on adult eyes (palpebral fissure about 30 x 10 mm, iris 11.7 mm, 63 mm = 1).
_LASHES: Final = 0.030  # above the lid's edge: moves as one piece
_LASH_OVERHANG: Final = 0.010  # the edge lies this far below the landmarks, lashes included
_EDGE: Final = 0.014
_LOWER_REACH: Final = 0.17
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
    grid: Grid
    upper_travel: Float32Array
    lower_travel: Float32Array
    identity: Float32Array
    nodes: Float32Array
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
        upper = self._lid(skin, self.upper_travel, amount)
        lower = self._lid(self.lower, self.lower_travel, state.lower)
        edge = layers.edge_of(upper)
        widened = self.opening * (max(-state.upper, 0.0) + max(-state.lower, 0.0))
        turned = (widened + abs(state.gaze[0]) + abs(state.gaze[1])) / _UNCOVERED
        view = self._ball(state.gaze, min(turned, 1.0))
        if closing > 0.0:
            view = layers.shaded(view, layers.look_up(_lid_shadow(closing), edge))
        covered = layers.look_up(_COVERAGE, layers.edge_of(lower))
        view = layers.over(layers.colour_of(lower), covered, view)
        return layers.over(layers.colour_of(upper), layers.look_up(_COVERAGE, edge), view)

    def _lid(self, sheet: Image, travel: Float32Array, amount: float) -> Image:
        if amount == 0.0:
            return sheet
        h, w = sheet.shape[:2]
        backward = inverted(travel * np.float32(amount), self.nodes, self.grid.stride, 7)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Lids:
    """The opening of one eye along its own axes: s from corner to corner, v across, in units."""

    s: Float32Array
    v: Float32Array
    upper: Float32Array
    lower: Float32Array
    brow: Float32Array
    pixels: Float32Array

    @classmethod
    def of(cls, face: Anatomy, first: int, at: Float32Array) -> _Lids:
        p = face.to_face(face.points)
        corners = p[first], p[first + 3]
        middle, half = (corners[0] + corners[1]) / 2, (corners[1] - corners[0]) / 2
        length = float(np.hypot(*half))
        along = half / length
        across = f32([-along[1], along[0]])

        def local(points: Float32Array) -> tuple[Float32Array, Float32Array]:
            d = points - middle
            return (d @ along) / np.float32(length), d @ across

        s, v = local(face.to_face(at))
        brows = p[17:22] if first == 36 else p[22:27]
        brow = along_curve(s, *local(brows))
        upper = _lid_curve(*local(p[[first + 1, first + 2]]), s)
        lower = _lid_curve(*local(p[[first + 5, first + 4]]), s)
        return cls(s, v, np.minimum(upper, lower), lower, brow, at)


def _lid_curve(s: Float32Array, v: Float32Array, at: Float32Array) -> Float32Array:
    """The lid line through both corners and two landmarks: (1 - s^2)(a + b s), 0 outside."""
    system = np.stack([1 - s**2, (1 - s**2) * s], axis=-1)
    a, b = np.linalg.solve(system + 1e-6 * np.eye(2), v)
    return f32(np.maximum(1 - at**2, 0.0) * (a + b * at))


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
    cut = np.ascontiguousarray(texture[grid.top : grid.top + h, grid.left : grid.left + w])
    pixels = Grid(grid.left, grid.top, w, h, 1)
    lids = _Lids.of(face, first, pixels.nodes())
    edge = lids.upper + _LASH_OVERHANG * smoothstep(1 - lids.s**2, 0.0, 0.3)
    beyond = 0.6 * np.maximum(np.abs(lids.s) - 1.0, 0.0)
    upper = layers.with_edge(
        _folded(cut, lids, face, edge, -1.0), (edge - lids.v + beyond).astype(np.float32)
    )
    lower = layers.with_edge(
        _folded(cut, lids, face, lids.lower, 1.0),
        (lids.v - lids.lower + beyond).astype(np.float32),
    )
    shut = _without_crease(upper, lids, face.unit)
    ball, iris, glint = _ball_and_iris(cut, lids, face, side)
    coarse = _Lids.of(face, first, grid.nodes())
    down = _across(face, first)
    upper_travel, lower_travel = _travels(coarse)
    scale = np.float32(face.unit) * down
    return Eye(
        left=grid.left,
        top=grid.top,
        photo=cut,
        ball=ball,
        iris=iris,
        glint=glint,
        upper=upper,
        shut=shut,
        lower=lower,
        grid=grid,
        upper_travel=f32(upper_travel[..., None] * scale),
        lower_travel=f32(-lower_travel[..., None] * scale),
        identity=Grid(0, 0, w, h, 1).nodes(),
        nodes=grid.indices(),
        opening=float((coarse.lower - coarse.upper).max()),
        unit=face.unit,
        shown=[],
    )


def _across(face: Anatomy, first: int) -> Float32Array:
    """Unit vector in the image across the eye, from the upper to the lower lid."""
    along = face.points[first + 3] - face.points[first]
    along = along / np.hypot(*along)
    return f32([-along[1], along[0]])


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


def _travels(lids: _Lids) -> tuple[Float32Array, Float32Array]:
    """How far each lid's skin goes when the eye shuts, face units: upper down, lower up."""
    opening = np.maximum(lids.lower - lids.upper, 0.0)
    opening = blurred(f32(opening), 1.0)
    top = np.minimum(lids.brow + 0.03, lids.upper - 0.12)
    start = lids.upper - _LASHES
    t = np.clip((lids.v - top) / (start - top), 0.0, 1.0)
    upper = opening * t**1.6
    fall = np.clip((lids.v - lids.lower) / _LOWER_REACH, 0.0, 1.0)
    lower = opening * (1 - fall) ** 2 * (1 + 2 * fall)
    return upper.astype(np.float32), lower.astype(np.float32)


def _folded(cut: Image, lids: _Lids, face: Anatomy, edge: Float32Array, side: float) -> Image:
    """Skin of one lid with nothing of the eye beyond its edge: mirrored there instead.

    Args:
        side: -1 keeps what is above `edge`, 1 what is below.
    """
    excess = np.maximum((lids.v - edge) * -side, 0.0) * (np.abs(lids.s) < 1.0)
    shift = (2 * excess * side * face.unit).astype(np.float32)
    h, w = cut.shape[:2]
    places = Grid(0, 0, w, h, 1).nodes()
    places[..., 1] += shift
    return sampled(cut, places)


def _without_crease(upper: Image, lids: _Lids, unit: float) -> Image:
    """The upper lid's sheet with its crease smoothed out, as it is when the eye is shut.

    What is darker than the skin between crease and brow would be drawn out into smudges; it takes
    that skin's colour.
    """
    photo = f32(upper[..., :3])
    fine = blurred(photo, max(0.012 * unit, 0.5))
    above, from_brow = lids.upper - lids.v, lids.v - lids.brow
    across = 1 - smoothstep(np.abs(lids.s), 0.95, 1.2)
    skin = smoothstep(above, 0.045, 0.075) * smoothstep(from_brow, 0.02, 0.05) * across
    if float(skin.sum()) < 30.0:
        return upper
    grey = fine.mean(axis=-1)
    low, high = np.percentile(grey[skin > 0.5], (10, 45)) if (skin > 0.5).any() else (0.0, 1.0)
    skin = skin * (0.02 + smoothstep(grey, float(low), float(max(high, low + 1))))
    colour = _spread(fine, f32(skin), 0.07 * unit)
    band = smoothstep(above, 0.012, 0.035) * smoothstep(from_brow, 0.01, 0.06) * across
    filled = photo + 0.9 * np.maximum(colour - fine, 0.0) * band[..., None]
    return u8(np.dstack([filled, upper[..., 3]]))


def _ball_and_iris(cut: Image, lids: _Lids, face: Anatomy, side: int) -> tuple[Image, Image, Image]:
    """The white of the eye; the whole iris, opacity in channel four; the light reflected on it."""
    centre, radius = face.irises[side, :2], float(face.irises[side, 2])
    delta = lids.pixels - centre
    distance = f32(np.hypot(delta[..., 0], delta[..., 1]) / radius)
    open_ = np.abs(lids.s) < 0.97
    clear = open_ & (lids.v > lids.upper + 0.022) & (lids.v < lids.lower - 0.008)
    white = _white(cut, clear & (distance > 1.12), distance, lids, face.unit)
    seen = open_ & (lids.v > lids.upper + 0.018) & (lids.v < lids.lower - 0.002)
    iris, glint = _whole_iris(cut, seen, delta, radius=radius, unit=face.unit)
    opacity = 1.0 - smoothstep(distance, 0.96, 1.10)
    return white, u8(np.dstack([iris, 255 * opacity])), glint


def _white(cut: Image, clear: Mask, distance: Float32Array, lids: _Lids, unit: float) -> Image:
    """The visible white of the eye, spread to where iris and lids hide it."""
    seen = clear.astype(np.float32)
    if seen.sum() < 12:
        bright = np.percentile(cut.reshape(-1, 3), 90, axis=0).astype(np.float32)
        spread = np.broadcast_to(bright * f32([0.98, 0.95, 0.93]), cut.shape)
    else:
        # Behind the iris goes the white proper: lashes, veins and shadows are left out of it.
        grey = cut.astype(np.float32).mean(axis=-1)
        low, high = np.percentile(grey[clear], (15, 70))
        pure = f32(seen * (0.05 + 0.95 * smoothstep(grey, float(low), float(max(high, low + 1)))))
        behind = _spread(cut, pure, 0.10 * unit)
        beside = _spread(cut, seen, 0.020 * unit)
        trust = np.clip(blurred(seen, 0.020 * unit) * 5, 0, 1)
        trust = trust * smoothstep(distance, 1.10, 1.35)
        spread = beside * trust[..., None] + behind * (1 - trust[..., None])
    # The ball turns away from the light towards both corners, and the upper lid shades it.
    shade = 1.0 - 0.10 * np.clip(np.abs(lids.s), 0, 1) ** 3
    shade = shade - 0.20 * np.exp(-np.maximum(lids.v - lids.upper, 0.0) / 0.045)
    spread = spread * shade[..., None]
    keep = blurred(seen, 0.008 * unit)[..., None]
    keep = np.clip(keep * 2 - 1, 0, 1)
    return u8(cut * keep + spread * (1 - keep))


def _spread(cut: Image | Float32Array, weight: Float32Array, sigma: float) -> Float32Array:
    """Weighted Gaussian average: colour where it is known carried to where it is not."""
    total = blurred(weight, sigma)[..., None] + 1e-6
    colour = blurred(f32(cut * weight[..., None]), sigma)
    mean = (cut * weight[..., None]).sum(axis=(0, 1)) / weight.sum()
    return f32((colour + 1e-4 * mean) / (total + 1e-4))


def _whole_iris(
    cut: Image, seen: Mask, delta: Float32Array, *, radius: float, unit: float
) -> tuple[Image, Image]:
    """The iris without reflections, its hidden parts filled in, and the reflections.

    What the lids hide is mirrored from below where that is visible, else it gets the mean colour
    of its ring. Reflections are what is much brighter than its ring.
    """
    distance = f32(np.hypot(delta[..., 0], delta[..., 1]) / radius)
    inside = distance < 1.12
    known = (seen & inside).astype(np.float32)
    ringed = _rings(cut, distance, known > 0, inside, radius)
    colour = cut.astype(np.float32)
    bright = (colour - ringed).min(axis=-1)
    light = smoothstep(bright, 22.0, 50.0) * known * (1.0 - smoothstep(distance, 0.62, 0.78))
    light = np.clip(blurred(f32(light), 0.008 * unit) * 1.6, 0, 1)[..., None]
    matt = colour * (1 - light) + np.minimum(colour, ringed) * light
    h, w = cut.shape[:2]
    places = Grid(0, 0, w, h, 1).nodes()
    places[..., 1] -= 2 * delta[..., 1]
    soft = f32(np.clip(blurred(known, 0.008 * unit) * 2 - 1, 0, 1))
    there = sampled_field(soft, places)[..., None]
    filled = sampled_field(f32(matt), places) * there + ringed * (1 - there)
    whole = u8(matt * soft[..., None] + filled * (1 - soft[..., None]))
    return whole, u8(np.maximum(colour - matt, 0.0) * soft[..., None])


def _rings(
    cut: Image, distance: Float32Array, known: Mask, inside: Mask, radius: float
) -> Float32Array:
    """Median colour of the visible iris at each distance from its centre.

    Rings of which too little shows take the colour of their neighbours.
    """
    count = 14
    rings = np.clip((distance * 12).astype(int), 0, count - 1)
    mean = np.zeros((count, 3), np.float32)
    trust = np.zeros(count, np.float32)
    for ring in range(count):
        whole = rings == ring
        chosen = whole & known
        trust[ring] = min(chosen.sum() / max(whole.sum(), 1) / 0.3, 1.0) ** 2
        mean[ring] = np.median(cut[chosen if chosen.any() else inside], axis=0)
    near = np.exp(-0.5 * ((np.arange(count)[:, None] - np.arange(count)) / 1.0) ** 2)
    weights = near * (trust + 1e-3)
    smooth = f32(weights @ mean / weights.sum(axis=1, keepdims=True))
    mean = mean * trust[:, None] + smooth * (1 - trust[:, None])
    middles = (np.arange(count) + 0.5) / 12
    channels = [np.interp(distance, middles, mean[:, c]) for c in range(3)]
    return blurred(f32(np.stack(channels, axis=-1)), max(0.05 * radius, 0.5))
