"""What lies behind the lids: the white of the eye, the whole iris, the light reflected on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import blurred, f32, sampled_field, smoothstep, spread, u8
from pipeline.mesh.fields import Grid
from pipeline.mesh.lids import Lids
from pipeline.types import Float32Array, Image

Mask = npt.NDArray[np.bool_]


def prepare(cut: Image, lids: Lids, face: Anatomy, side: int) -> tuple[Image, Image, Image]:
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


def _white(cut: Image, clear: Mask, distance: Float32Array, lids: Lids, unit: float) -> Image:
    """The visible white of the eye, spread to where iris and lids hide it."""
    seen = clear.astype(np.float32)
    if seen.sum() < 12:
        bright = np.percentile(cut.reshape(-1, 3), 90, axis=0).astype(np.float32)
        filled = np.broadcast_to(bright * f32([0.98, 0.95, 0.93]), cut.shape)
    else:
        # Behind the iris goes the white proper: lashes, veins and shadows are left out of it.
        grey = cut.astype(np.float32).mean(axis=-1)
        low, high = np.percentile(grey[clear], (15, 70))
        pure = f32(seen * (0.05 + 0.95 * smoothstep(grey, float(low), float(max(high, low + 1)))))
        behind = spread(cut, pure, 0.10 * unit)
        beside = spread(cut, seen, 0.020 * unit)
        trust = np.clip(blurred(seen, 0.020 * unit) * 5, 0, 1)
        trust = trust * smoothstep(distance, 1.10, 1.35)
        filled = beside * trust[..., None] + behind * (1 - trust[..., None])
    # The ball turns away from the light towards both corners, and the upper lid shades it.
    shade = 1.0 - 0.10 * np.clip(np.abs(lids.s), 0, 1) ** 3
    shade = shade - 0.20 * np.exp(-np.maximum(lids.v - lids.upper, 0.0) / 0.045)
    filled = filled * shade[..., None]
    keep = blurred(seen, 0.008 * unit)[..., None]
    keep = np.clip(keep * 2 - 1, 0, 1)
    return u8(cut * keep + filled * (1 - keep))


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
