"""The 203-point landmark network, through onnxruntime (specification 5.5). No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.liveportrait.crop import LANDMARKS_INPUT, Crop
from pipeline.liveportrait.errors import CheckpointError
from pipeline.types import Float32Array, Image

FILE: Final = Path("liveportrait") / "landmark.onnx"
_INPUT: Final = "input"
_OUTPUT: Final = 2  # the other two are not documented
_POINTS: Final = 203


class LandmarkNetwork:
    """Refines a face's landmarks to the 203 points that eye and lip ratios are taken from.

    Args:
        weights_dir: the folder that holds `liveportrait/`.
        providers: onnxruntime's, in order of preference.

    Raises:
        CheckpointError: the file is missing, damaged, or another network.
    """

    def __init__(
        self, weights_dir: Path, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        import onnxruntime

        file = weights_dir / FILE
        if not file.is_file():
            raise CheckpointError(file, None, "the 203-point landmark network", "no such file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: it warns of what models declare
        try:
            session = onnxruntime.InferenceSession(
                str(file), sess_options=options, providers=list(providers)
            )
        except Exception as error:  # onnxruntime's errors share no root of their own
            problem = str(error).splitlines()[0][:200]
            raise CheckpointError(
                file, None, "an ONNX network", f"what does not load ({problem})"
            ) from error
        self._session: Any = session
        self._check(file)

    def __call__(self, image: Image, points: npt.ArrayLike) -> Float32Array:
        """(203, 2) pixels of the image.

        Args:
            image: (H, W, 3) uint8 RGB.
            points: 68 or 106 landmarks of the face, or the 203 of the frame before.
        """
        crop = Crop.around(points, LANDMARKS_INPUT)
        pixels = np.asarray(crop.cut(image), np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        outputs = self._session.run(None, {_INPUT: np.ascontiguousarray(pixels)})
        found = np.asarray(outputs[_OUTPUT], np.float32).reshape(_POINTS, 2)
        return crop.points_in_image(found * np.float32(LANDMARKS_INPUT.size_px))

    def _check(self, file: Path) -> None:
        inputs = [each.name for each in self._session.get_inputs()]
        outputs = self._session.get_outputs()
        if inputs != [_INPUT] or len(outputs) <= _OUTPUT:
            found = f"inputs {', '.join(inputs)} and {len(outputs)} outputs"
            raise CheckpointError(file, None, f"one input {_INPUT!r} and three outputs", found)
        size = outputs[_OUTPUT].shape[-1]
        if isinstance(size, int) and size != 2 * _POINTS:
            name = outputs[_OUTPUT].name
            raise CheckpointError(file, name, f"{2 * _POINTS} values", f"{size}")
