"""The 203-point landmark network, through onnxruntime (specification 5.5). No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.liveportrait.crop import LANDMARKS_INPUT, Crop
from pipeline.liveportrait.onnx_network import open_network
from pipeline.types import Float32Array, Image

FILE: Final = Path("liveportrait") / "landmark.onnx"
_INPUT: Final = "input"
_OUTPUT: Final = 2  # the other two are not documented
_POINTS: Final = 203


class LandmarkNetwork:
    """Refines a face's landmarks to the 203 points that eye and lip ratios are taken from.

    Args:
        weights_dir: the folder that holds `liveportrait/`.
        providers: of onnxruntime, in order of preference; CUDA where there is one, if not given.

    Raises:
        CheckpointError: the file is missing, damaged, or another network.
        ConfigError: onnxruntime is not installed.
    """

    def __init__(self, weights_dir: Path, providers: Sequence[str] | None = None) -> None:
        side = LANDMARKS_INPUT.size_px
        self._session = open_network(
            weights_dir / FILE,
            "the 203-point landmark network",
            takes=(_INPUT, (1, 3, side, side)),
            gives=(None, None, (2 * _POINTS,)),
            providers=providers,
        )

    def __call__(self, image: Image, points: npt.ArrayLike) -> Float32Array:
        """(203, 2) float32 pixels of the image; not a number where the network fails.

        Args:
            image: (H, W, 3) uint8 RGB.
            points: 68 or 106 landmarks of the face, or the 203 of the frame before.

        Raises:
            ValueError: the points do not frame a face.
        """
        crop = Crop.around(points, LANDMARKS_INPUT)
        pixels = np.asarray(crop.cut(image), np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        outputs = self._session.run(None, {_INPUT: np.ascontiguousarray(pixels)})
        found = np.asarray(outputs[_OUTPUT], np.float32).reshape(_POINTS, 2)
        if not np.isfinite(found).all():
            return np.full((_POINTS, 2), np.nan, np.float32)
        return crop.points_in_image(found * np.float32(LANDMARKS_INPUT.size_px))
