"""Measuring pictures of faces: where a patch went, how much of a colour there is."""

import cv2
import numpy as np

from pipeline.types import Float32Array, Image


def shift_of(
    before: Image, after: Image, centre: Float32Array, size_px: int = 24, reach_px: int = 30
) -> Float32Array:
    """How far the patch round `centre` has moved, (x, y) in pixels, by normalised correlation."""
    x, y = np.rint(centre).astype(int)
    half, wide = size_px // 2, size_px // 2 + reach_px
    patch = before[y - half : y + half, x - half : x + half]
    area = after[y - wide : y + wide, x - wide : x + wide]
    score = cv2.matchTemplate(area, patch, cv2.TM_CCOEFF_NORMED)
    _, _, _, best = cv2.minMaxLoc(score)
    return np.array(best, np.float32) - reach_px


def difference(a: Image, b: Image) -> Float32Array:
    """Largest difference of any channel per pixel, (h, w) float32."""
    return np.abs(a.astype(np.float32) - b.astype(np.float32)).max(axis=-1)


def box(image: Image, centre: Float32Array, width: float, height: float) -> Image:
    """The part of a picture round `centre`."""
    x, y = centre
    return image[round(y - height / 2) : round(y + height / 2),
                 round(x - width / 2) : round(x + width / 2)]  # fmt: skip


def dark_share(image: Image, below: float) -> float:
    """Share of pixels whose mean channel is below a level."""
    return float((image.mean(axis=-1) < below).mean())
