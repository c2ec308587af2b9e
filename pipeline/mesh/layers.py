"""Openings in the skin: two lids or lips, and what shows between them.

A *sheet* is skin that ends at an edge: colour, and in the fourth channel the distance to that edge.
Warping a sheet moves its edge along, so edges stay sharp and antialiased wherever they go, and one
sheet covers what lies behind it instead of squeezing it.
"""

from __future__ import annotations

from typing import Final, cast

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.mesh.arrays import f32
from pipeline.types import Float32Array, Image

Tint = tuple[float, float, float]
Part = tuple[slice, slice]
"""Rows and columns of an image."""

_LEVELS_PER_UNIT: Final = 1200.0
"""Steps of the fourth channel per face unit: it reaches 0.1 units to either side of the edge."""
_MIDDLE: Final = 128.0


def with_edge(colour: Image, inside: Float32Array) -> Image:
    """A sheet: (h, w, 4) uint8 from colour (h, w, 3) and distance inside its edge in face units."""
    coded = np.clip(np.rint(_MIDDLE + inside * _LEVELS_PER_UNIT), 0, 255).astype(np.uint8)
    return cast(Image, np.dstack([colour, coded]))


def coverage_table(width: float) -> Float32Array:
    """Fourth channel to opacity, (256,) float32: half at the edge, a ramp `width` units wide."""
    distance = (np.arange(256, dtype=np.float32) - _MIDDLE) / _LEVELS_PER_UNIT
    t = np.clip(distance / width + 0.5, 0.0, 1.0)
    return cast(Float32Array, (t * t * (3 - 2 * t)).astype(np.float32))


def shadow_table(reach: float, depth: float) -> Float32Array:
    """Fourth channel to brightness behind a sheet, (256,) float32: `1 - depth` at its edge.

    Args:
        reach: face units over which the shadow fades.
        depth: 0 for none, 1 for black.
    """
    distance = (_MIDDLE - np.arange(256, dtype=np.float32)) / _LEVELS_PER_UNIT
    fall = np.exp(-np.maximum(distance, 0.0) / max(reach, 1e-6))
    return f32(1.0 - depth * fall)


def closeness_table(reach: float) -> Float32Array:
    """Fourth channel to nearness of the edge, (256,) float32: 1 on it, falling on both sides."""
    distance = (np.arange(256, dtype=np.float32) - _MIDDLE) / _LEVELS_PER_UNIT
    return f32(np.exp(-((distance / reach) ** 2)))


def part_with(pixels: npt.NDArray[np.bool_]) -> Part | None:
    """The smallest part of an image that holds all these pixels, (h, w); None for no pixel."""
    left, top, width, height = cv2.boundingRect(pixels.view(np.uint8))
    return (slice(top, top + height), slice(left, left + width)) if width else None


def part_of(outer: Part, inner: Part) -> Part:
    """Rows and columns of the whole image, from those of a part and of a part of that."""
    rows, columns = outer
    return (
        slice(rows.start + inner[0].start, rows.start + inner[0].stop),
        slice(columns.start + inner[1].start, columns.start + inner[1].stop),
    )


def edge_of(sheet: Image) -> Image:
    """The fourth channel of a warped sheet, (h, w) uint8."""
    return cast(Image, cv2.extractChannel(sheet, 3))


def colour_of(sheet: Image) -> Image:
    """The colour of a warped sheet, (h, w, 3) uint8."""
    return cast(Image, cv2.cvtColor(sheet, cv2.COLOR_RGBA2RGB))


def opacity_of(layer: Image) -> Float32Array:
    """The fourth channel of a layer whose fourth channel is opacity, (h, w) float32 in [0, 1]."""
    return f32(edge_of(layer)) * np.float32(1 / 255)


def over(top: Image, opacity: Float32Array, below: Image) -> Image:
    """`top` drawn over `below`: (h, w, 3) uint8 each, opacity (h, w) float32."""
    clear = cast(Float32Array, cv2.addWeighted(opacity, -1.0, opacity, 0.0, 1.0))
    return cast(Image, cv2.blendLinear(top, below, opacity, clear))


def shaded(image: Image, brightness: Float32Array, tint: Tint = (1.0, 1.0, 1.0)) -> Image:
    """(h, w, 3) uint8 times (h, w) float32; `tint` scales each channel's change."""
    channels = [
        brightness if share == 1.0 else cv2.addWeighted(brightness, share, brightness, 0, 1 - share)
        for share in tint
    ]
    return cast(Image, cv2.multiply(image, cv2.merge(channels), dtype=cv2.CV_8U))


def look_up(table: Float32Array, edge: Image) -> Float32Array:
    """A table of 256 applied to a fourth channel, (h, w) float32."""
    return cast(Float32Array, cv2.LUT(edge, table))
