"""OpenCV and numpy calls as the mesh renderer uses them, with the types it relies on."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Float32Array, Image


def f32(values: npt.ArrayLike) -> Float32Array:
    """An array of float32; no copy where it is one already."""
    return np.asarray(values, np.float32)


def u8(values: npt.NDArray[Any]) -> Image:
    """Rounded and clipped to uint8."""
    return cast(Image, np.clip(np.rint(values), 0, 255).astype(np.uint8))


def sampled(image: Image, places: Float32Array) -> Image:
    """(h, w, channels) uint8: `image` at `places` (h, w, 2), bilinear, edges repeated."""
    return cast(Image, _remap(image, places))


def sampled_field(field: Float32Array, places: Float32Array) -> Float32Array:
    """As `sampled`, for float32."""
    return cast(Float32Array, _remap(field, places))


def _remap(array: npt.NDArray[Any], places: Float32Array) -> Any:
    # The second map stays empty: `places` holds both coordinates.
    return cv2.remap(
        array,
        places,
        cast(Any, None),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def blurred(array: Float32Array, sigma: float) -> Float32Array:
    """Gaussian blur of float32, any number of channels; `sigma` in pixels."""
    return cast(Float32Array, cv2.GaussianBlur(array, (0, 0), sigma))


def resized(array: Float32Array, width: int, height: int) -> Float32Array:
    """Bilinear resize of float32."""
    return cast(Float32Array, cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR))


def minus(a: Float32Array, b: Float32Array) -> Float32Array:
    """a - b in one OpenCV call, which lets other threads run."""
    return cast(Float32Array, cv2.subtract(a, b))


def times(a: Float32Array, b: Float32Array) -> Float32Array:
    """a * b in one OpenCV call, which lets other threads run."""
    return cast(Float32Array, cv2.multiply(a, b))


def smoothstep(value: npt.ArrayLike, low: float, high: float) -> Float32Array:
    """0 below `low`, 1 above `high`, and a curve without corners between them."""
    t = np.clip((np.asarray(value, np.float64) - low) / (high - low), 0.0, 1.0)
    return f32(t * t * (3.0 - 2.0 * t))


def spread(cut: Image | Float32Array, weight: Float32Array, sigma: float) -> Float32Array:
    """Weighted Gaussian average: colour where it is known carried to where it is not."""
    total = blurred(weight, sigma)[..., None] + 1e-6
    colour = blurred(f32(cut * weight[..., None]), sigma)
    mean = (cut * weight[..., None]).sum(axis=(0, 1)) / weight.sum()
    return f32((colour + 1e-4 * mean) / (total + 1e-4))
