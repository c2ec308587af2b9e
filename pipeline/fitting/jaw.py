"""The outline from ear to ear: where skin ends, or darkens towards the neck."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from pipeline.fitting.appearance import fit_skin, lab_image
from pipeline.fitting.curves import Batch
from pipeline.fitting.frame import FaceFrame, Window
from pipeline.fitting.mean_face import MEAN_JAW
from pipeline.types import Float32Array, Image

_PX: Final = 72.0
_WINDOW: Final = Window(-1.75, -0.35, 1.75, 2.35, _PX)
_SAMPLES: Final = 49

# How the average outline may be stretched before each point looks for its edge: width, height,
# and how much fuller than average the corners of the jaw are.
_WIDTHS: Final = (0.84, 0.92, 1.00, 1.08)
_HEIGHTS: Final = (0.90, 0.96, 1.02, 1.08)  # of what the mouth's height suggests
_MEAN_MOUTH_Y: Final = 1.09
_FULLNESS: Final = (0.0, 0.13, 0.26)
_FULL_AT: Final = ((0, 1, 2, 3, 4, 5, 8), (0, 0.8, 1, 0.8, 0.5, 0.25, 0))  # points from the chin

_COARSE: Final = np.linspace(-0.16, 0.16, 17)  # offsets along the normals, face units
_FINE: Final = np.linspace(-0.20, 0.20, 41)
_STAY: Final = 1.2  # pull of the stretched outline on its points


def fit_jaw(image: Image, frame: FaceFrame, mouth: Float32Array) -> Float32Array:
    """Fit the outline of cheeks and chin.

    The average outline is stretched to fit best, then each of its points moves along its normal
    to an edge, neighbours together, by dynamic programming (Amini et al. 1990, "Using dynamic
    programming for solving variational problems in vision").

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: the face.
        mouth: (2,) middle of the mouth, face units.

    Returns:
        (17, 2) float32 face units, iBUG points 0-16.
    """
    lab = lab_image(frame.sample(image, _WINDOW), 0.016 * _PX)
    unlike = _unlike_skin(lab)
    usual_height = 0.4 + 0.6 * float(mouth[1]) / _MEAN_MOUTH_Y
    best: tuple[float, Batch, Batch] | None = None
    for width in _WIDTHS:
        for height in _HEIGHTS:
            for full in _FULLNESS:
                curve, normals = _stretched(width, height * usual_height, full, float(mouth[0]))
                evidence = _evidence(curve, normals, _COARSE, lab, unlike)
                _, value = _shift(evidence, _COARSE, _STAY)
                value -= 0.3 * (((width - 0.95) / 0.1) ** 2 + ((height - 0.99) / 0.06) ** 2)
                value -= 0.03 * ((full - 0.1) / 0.13) ** 2
                if best is None or value > best[0]:
                    best = (value, curve, normals)
    assert best is not None
    _, curve, normals = best
    evidence = _evidence(curve, normals, _FINE, lab, unlike)
    offsets, _ = _shift(evidence, _FINE, 0.6 * _STAY)
    return _spaced(curve + normals * offsets[:, None])


def _stretched(width: float, height: float, full: float, shift: float) -> tuple[Batch, Batch]:
    """A stretched average outline, evenly sampled, and its outward normals, each (samples, 2)."""
    points = MEAN_JAW.astype(np.float64)
    from_chin = np.abs(np.arange(17) - 8)
    points[:, 0] *= width * (1 + full * np.interp(from_chin, *_FULL_AT))
    points[:, 1] = np.where(points[:, 1] > 0, points[:, 1] * height, points[:, 1])
    points[:, 0] += 0.8 * shift * np.clip(points[:, 1], 0, 1.2)
    curve = _smoothed(_resampled(points, np.linspace(0, 1, _SAMPLES)))
    along = np.gradient(curve, axis=0)
    normals = np.column_stack([-along[:, 1], along[:, 0]])
    normals /= np.hypot(normals[:, 0], normals[:, 1])[:, None]
    return curve, -normals if normals[_SAMPLES // 2, 1] < 0 else normals


def _resampled(points: Batch, shares: Batch) -> Batch:
    """Points at shares of a polyline's length."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    at = shares * length[-1]
    return np.column_stack([np.interp(at, length, points[:, i]) for i in range(2)])


def _smoothed(values: Batch, sigma: float = 1.5) -> Batch:
    """Gaussian blur along the first axis, (samples, k), ends repeated."""
    return np.asarray(
        cv2.GaussianBlur(
            values, (1, 0), sigmaX=sigma, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE
        ),
        np.float64,
    )


def _spaced(curve: Batch) -> Float32Array:
    """The 17 points of an outline, spaced along it as on the average face."""
    steps = np.hypot(*np.diff(MEAN_JAW.astype(np.float64), axis=0).T)
    shares = np.concatenate([[0.0], np.cumsum(steps)])
    return _resampled(curve, shares / shares[-1]).astype(np.float32)


def _unlike_skin(lab: Float32Array) -> Float32Array:
    """0 for skin to 1 for hair, background and clothes."""
    x, y = _WINDOW.grid()
    cheeks = (np.abs(np.abs(x) - 0.5) < 0.2) & (np.abs(y - 0.6) < 0.25)
    chin = (np.abs(x) < 0.25) & (np.abs(y - 1.5) < 0.1)
    nose = (np.abs(x) < 0.12) & (np.abs(y - 0.3) < 0.2)
    skin = fit_skin(lab, _WINDOW, cheeks | chin | nose, reach=(0.9, 1.6))
    off = lab - skin.expected
    distance = (off[..., 0] / max(2 * float(skin.spread[0]), 20.0)) ** 2
    if skin.coloured:
        distance += (off[..., 1] / max(1.5 * float(skin.spread[1]), 5.0)) ** 2
        distance += (off[..., 2] / max(1.5 * float(skin.spread[2]), 6.0)) ** 2
    return np.asarray(distance / (distance + 2), np.float32)


def _evidence(
    curve: Batch, normals: Batch, offsets: Batch, lab: Float32Array, unlike: Float32Array
) -> Batch:
    """How much each offset along each normal looks like the outline, (samples, offsets)."""
    at = curve[:, None] + normals[:, None] * offsets[None, :, None]

    def strip(values: Float32Array, start: float, end: float, count: int) -> Batch:
        total = np.zeros(1)
        for distance in np.linspace(start, end, count):
            where = _WINDOW.pixels(at + normals[:, None] * distance)
            total = total + cv2.remap(
                values, where[..., 0], where[..., 1], cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
        return total / count

    ends = strip(unlike, 0.01, 0.12, 4) - strip(unlike, -0.12, -0.01, 4)
    inside, outside = strip(lab, -0.06, -0.012, 3), strip(lab, 0.012, 0.06, 3)
    step = np.sqrt((((outside - inside) ** 2) * (1, 2, 2)).sum(axis=-1))
    on = strip(lab[..., 0], -0.01, 0.01, 2)
    line = np.minimum(inside[..., 0], outside[..., 0]) - on
    darker = inside[..., 0] - outside[..., 0]
    total: Batch = (
        ends
        + 0.6 * np.clip(step / 9, 0, 2.5)
        + np.clip(line / 3, 0, 1)
        + 0.2 * np.clip(darker / 8, -0.5, 1)
    )
    return total


def _shift(evidence: Batch, offsets: Batch, stay: float) -> tuple[Batch, float]:
    """The best offset for each sample, neighbours together, and the mean value of the chain."""
    value = evidence - 0.5 * stay * (offsets / 0.15) ** 2
    count, choices = value.shape
    spacing = float(offsets[1] - offsets[0])
    reach = max(1, round(0.035 / spacing))
    moves = np.arange(-reach, reach + 1)
    cost = 200 * (moves * spacing) ** 2
    came_from = np.zeros((count, choices), int)
    total = value[0]
    for index in range(1, count):
        padded = np.pad(total, reach, constant_values=-np.inf)
        options = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1) - cost
        move = options.argmax(axis=1)
        came_from[index] = np.arange(choices) + moves[move]
        total = options[np.arange(choices), move] + value[index]
    choice = int(total.argmax())
    mean = float(total[choice]) / count
    chain = np.zeros(count)
    for index in range(count - 1, -1, -1):
        chain[index] = offsets[choice]
        choice = int(came_from[index, choice])
    return _smoothed(chain[:, None])[:, 0], mean
