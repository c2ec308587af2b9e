"""Light that a warp cannot move: folds, furrows and bulges that come and go with expressions.

Each control that wrinkles skin has a map of brightness changes where the face rests. The maps of a
frame are added up, warped with the face and multiplied onto it. Wrinkles follow the descriptions
of the Facial Action Coding System: nasolabial fold (AU 9, 10, 12), furrows between the brows (4),
forehead lines (1, 2), crow's feet and under-eye crease (6, 7), lines below the lip corners (15),
chin crease (17).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import cv2
import numpy as np

from pipeline.mesh.anatomy import Anatomy
from pipeline.mesh.arrays import f32, resized, smoothstep
from pipeline.mesh.curves import smooth_line
from pipeline.mesh.fields import Grid
from pipeline.mesh.layers import Part, part_with
from pipeline.mesh.masks import distance_outside, outline
from pipeline.types import ARKIT_INDEX, Float32Array

_FAINT: Final = 0.02  # weights below this draw nothing
_UNSEEN: Final = 1e-4  # share of brightness: sums of these stay below a level of 255
_STRONGEST: Final = 0.45  # brightness never changes by more than this share

# Folds are darkest in blue: light that leaves them has travelled through skin.
TINT: Final = (0.78, 1.0, 1.12)

Point = Float32Array
Half = Callable[[int | str], Point]


@dataclass(frozen=True, slots=True, eq=False)
class _Mark:
    """Something drawn on skin: a box in face units that holds it, and its drawing inside."""

    low: Point
    high: Point
    draw: Callable[[Float32Array], Float32Array]


class Wrinkle(NamedTuple):
    """Relative change of brightness where the face rests, for one row of a rig.

    Attributes:
        row: whose weight it is multiplied with.
        part: rows and columns that it changes, of the rectangle that can wrinkle.
        change: float32, over the part.
    """

    row: int
    part: Part
    change: Float32Array


def prepare(face: Anatomy, grid: Grid, smile: float) -> tuple[Wrinkle, ...]:
    """Lay out the maps of a face.

    Args:
        face: the face on the canvas.
        grid: the rectangle of the canvas that the maps cover.
        smile: how much the portrait smiles at rest; its own folds need no others.
    """
    at = face.to_face(Grid(grid.left, grid.top, grid.width, grid.height, 1).nodes())
    coarse = distance_outside(outline(face), face.to_face(grid.nodes()))
    inside = resized(1.0 - smoothstep(coarse, -0.12, 0.0), grid.width, grid.height)
    maps: dict[int, Float32Array] = {}
    for side, sign in (("Left", 1.0), ("Right", -1.0)):
        mirror = f32([sign, 1.0])

        def spot(name: int | str, side: str = side, mirror: Point = mirror) -> Point:
            return f32(face.to_face(face.on_side(name, side)) * mirror)

        for name, marks in _half_face(spot, smile).items():
            row = ARKIT_INDEX.get(name + side, ARKIT_INDEX.get(name, -1))
            drawn = maps.setdefault(row, np.zeros(at.shape[:2], np.float32))
            for mark in marks:
                box = _part(face, grid, mark, mirror)
                drawn[box] += mark.draw(at[box] * mirror) * inside[box]
    wrinkles = []
    for row, drawn in maps.items():
        # One pixel more all around: beyond a part light is as on its border, which changes nothing.
        seen = (np.abs(drawn) > _UNSEEN).view(np.uint8)
        part = part_with(cv2.dilate(seen, np.ones((3, 3), np.uint8)) > 0)
        if part is not None:
            change = np.ascontiguousarray(np.clip(drawn[part], -_STRONGEST, _STRONGEST))
            wrinkles.append(Wrinkle(row, part, f32(change)))
    return tuple(wrinkles)


def _part(face: Anatomy, grid: Grid, mark: _Mark, mirror: Point) -> tuple[slice, slice]:
    """Rows and columns of the grid's rectangle that a mark can touch."""
    x, y = np.meshgrid([mark.low[0], mark.high[0]], [mark.low[1], mark.high[1]])
    corners = face.to_pixels(f32(np.stack([x, y], axis=-1).reshape(-1, 2) * mirror))
    low = np.clip(corners.min(axis=0) - (grid.left, grid.top), 0, (grid.width, grid.height))
    high = np.clip(corners.max(axis=0) - (grid.left, grid.top) + 1, 0, (grid.width, grid.height))
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def brightness(wrinkles: Sequence[Wrinkle], rows: Float32Array) -> tuple[Part, Float32Array] | None:
    """What a frame's brightness is multiplied with where the face rests, or None for nothing.

    Returns:
        Rows and columns of the rectangle that can wrinkle, and the factors there, float32.
    """
    weighed = [(w, float(rows[w.row]) - _FAINT) for w in wrinkles if rows[w.row] > _FAINT]
    if not weighed:
        return None
    parts = [wrinkle.part for wrinkle, _ in weighed]
    top, left = (min(part[axis].start for part in parts) for axis in (0, 1))
    bottom, right = (max(part[axis].stop for part in parts) for axis in (0, 1))
    total = np.ones((bottom - top, right - left), np.float32)
    for (y, x), change, weight in ((w.part, w.change, weight) for w, weight in weighed):
        view = total[y.start - top : y.stop - top, x.start - left : x.stop - left]
        cv2.scaleAdd(change, weight, view, dst=view)
    return (slice(top, bottom), slice(left, right)), total


def _arc(point: Point, *offsets: tuple[float, float]) -> list[Point]:
    return [_by(point, dx, dy) for dx, dy in offsets]


def _by(point: Point, dx: float, dy: float) -> Point:
    return f32(point + f32([dx, dy]))


def _half_face(p: Half, smile: float) -> dict[str, list[_Mark]]:
    """Strokes and blobs of the image's right half by control, in face units."""
    fresh = 1.0 - 0.85 * smile
    corner, ala = p(54), p("ala")
    fold = [
        _by(ala, 0.03, -0.05),
        _by(ala, 0.08, 0.02),
        _by(p("fold"), 0.02, 0.0),
        _by(corner, 0.085, 0.01),
    ]
    crow = p(45)
    under = [_by(p(42), 0.02, 0.09), _by(p("under_eye"), 0.0, -0.005), _by(crow, 0.0, 0.085)]
    brow = p(22)
    furrow = [_by(brow, -0.075, -0.10), _by(brow, -0.060, 0.0), _by(brow, -0.070, 0.10)]
    forehead = p("forehead_in")
    marks: dict[str, list[_Mark]] = {
        "mouthSmile": [
            _stroke(fold, 0.020, -0.20 * fresh),
            _blob(_by(p("apple"), 0.0, 0.02), 0.15, 0.10, 0.055),
        ],
        "mouthUpperUp": [_stroke(fold, 0.022, -0.15 * fresh - 0.05)],
        "noseSneer": [
            _stroke(fold[:3], 0.022, -0.18 * fresh - 0.06),
            _stroke([_by(p(27), 0.05, 0.02), _by(p(27), 0.13, 0.09)], 0.011, -0.13),
            _stroke([_by(p(27), 0.04, 0.09), _by(p(27), 0.13, 0.17)], 0.011, -0.12),
            _stroke([_by(p(27), -0.05, 0.0), _by(p(27), 0.05, 0.0)], 0.012, -0.07),
            _blob(_by(p("ala"), 0.03, -0.10), 0.07, 0.10, -0.06),
        ],
        "browDown": [
            _stroke(furrow, 0.018, -0.16),
            _blob(_by(brow, -0.05, 0.02), 0.06, 0.10, -0.07),
            _blob(_by(f32((p(23) + p(43)) / 2), 0.0, 0.01), 0.16, 0.055, -0.13),
        ],
        "browInnerUp": [
            _stroke(_arc(forehead, (-0.26, 0.05), (0.0, 0.03), (0.26, 0.09)), 0.015, -0.055),
            _stroke(_arc(forehead, (-0.26, -0.05), (0.0, -0.06), (0.24, -0.01)), 0.016, -0.045),
        ],
        "browOuterUp": [
            _stroke([_by(p(23), -0.1, -0.13), _by(p(24), 0.02, -0.15), _by(p(26), -0.02, -0.12)],
                    0.015, -0.075),
            _stroke([_by(p(23), -0.1, -0.23), _by(p(24), 0.02, -0.25), _by(p(26), -0.04, -0.22)],
                    0.016, -0.06),
        ],
        "cheekSquint": [
            _stroke(under, 0.014, -0.11),
            _stroke([_by(crow, 0.045, -0.015), _by(crow, 0.14, -0.06)], 0.011, -0.09),
            _stroke([_by(crow, 0.05, 0.02), _by(crow, 0.15, 0.03)], 0.011, -0.09),
            _stroke([_by(crow, 0.035, 0.055), _by(crow, 0.13, 0.11)], 0.011, -0.08),
            _blob(p("apple"), 0.16, 0.09, 0.045),
        ],
        "eyeSquint": [_stroke(under, 0.013, -0.12)],
        "mouthFrown": [
            _stroke([_by(corner, 0.02, 0.02), _by(corner, 0.05, 0.09), _by(corner, 0.055, 0.2)],
                    0.026, -0.12),
            _blob(_by(corner, 0.10, 0.02), 0.06, 0.09, 0.04),
        ],
        "mouthShrugLower": [
            _stroke([_by(p(55), -0.02, 0.08), _by(p(57), 0.0, 0.075)], 0.024, -0.14),
            _blob(_by(p("chin_boss"), 0.05, 0.03), 0.12, 0.08, 0.03),
        ],
        "mouthPress": [_stroke([_by(corner, 0.03, -0.04), _by(corner, 0.035, 0.05)], 0.018, -0.10)],
        "mouthDimple": [_stroke(_arc(corner, (0.045, -0.06), (0.055, 0.06)), 0.016, -0.15)],
        "mouthStretch": [
            _stroke([_by(corner, 0.07, -0.06), _by(corner, 0.10, 0.05), _by(corner, 0.09, 0.16)],
                    0.020, -0.10 * fresh),
        ],
        "jawOpen": [
            _stroke([_by(ala, 0.08, 0.04), _by(p("fold"), 0.05, 0.03), _by(corner, 0.12, 0.10)],
                    0.030, -0.12 * fresh),
            _blob(_by(p("cheek"), 0.05, 0.05), 0.14, 0.20, -0.06),
        ],
        "cheekPuff": [
            _blob(p("cheek"), 0.17, 0.16, 0.09),
            _blob(_by(p("jowl"), 0.0, 0.10), 0.16, 0.08, -0.07),
        ],
        "mouthPucker": [_stroke([_by(p(55), 0.03, 0.06), _by(p(57), 0.0, 0.09)], 0.025, -0.10)],
    }  # fmt: skip
    return marks


def _stroke(points: Sequence[Point], width: float, depth: float) -> _Mark:
    """A fold along a smooth curve: a dark (or light) valley with soft lighter banks.

    Args:
        points: (x, y) in face units, at least two.
        width: standard deviation of the valley in face units.
        depth: relative brightness at its bottom; negative is darker.
    """
    curve = smooth_line(f32(np.stack(points)), 12)

    def draw(at: Float32Array) -> Float32Array:
        squared, position = _nearest(curve, at.reshape(-1, 2))
        taper = np.sin(np.pi * np.clip(position * 0.92 + 0.04, 0, 1)) ** 0.7
        valley = np.exp(-0.5 * squared / width**2)
        valley -= 0.35 * np.exp(-0.5 * squared / (2.4 * width) ** 2)
        return f32(depth * 1.3 * valley * taper).reshape(at.shape[:-1])

    margin = np.float32(6 * width)
    return _Mark(curve.min(axis=0) - margin, curve.max(axis=0) + margin, draw)


def _nearest(curve: Float32Array, places: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Squared distance to a polyline, and how far along it (0..1) the nearest point lies."""
    squared = np.full(len(places), np.inf, np.float32)
    position = np.zeros(len(places), np.float32)
    # One coordinate at a time: numpy takes ten times as long to add up pairs.
    x, y = np.ascontiguousarray(places[:, 0]), np.ascontiguousarray(places[:, 1])
    for i, (a, b) in enumerate(pairwise(curve)):
        step = b - a
        dx, dy = x - a[0], y - a[1]
        t = np.clip((dx * step[0] + dy * step[1]) / max(float(step @ step), 1e-12), 0.0, 1.0)
        dx -= t * step[0]
        dy -= t * step[1]
        d2 = dx * dx + dy * dy
        closer = d2 < squared
        np.copyto(squared, d2, where=closer)
        np.copyto(position, (i + t) / (len(curve) - 1), where=closer)
    return f32(squared), f32(position)


def _blob(centre: Point, sigma_x: float, sigma_y: float, depth: float) -> _Mark:
    """A soft bulge (positive depth) or hollow (negative) of Gaussian profile, in face units."""
    sigma = f32([sigma_x, sigma_y])

    def draw(at: Float32Array) -> Float32Array:
        return f32(depth * np.exp(-0.5 * (((at - centre) / sigma) ** 2).sum(axis=-1)))

    return _Mark(centre - 3.5 * sigma, centre + 3.5 * sigma, draw)
