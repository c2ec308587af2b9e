"""All 68 points of a face whose eyes are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.fitting.brows import fit_brows
from pipeline.fitting.eyes import fit_eye, refine_eye
from pipeline.fitting.frame import FaceFrame
from pipeline.fitting.jaw import fit_jaw
from pipeline.fitting.mouth import MouthFit, fit_mouth
from pipeline.fitting.nose import fit_nose
from pipeline.types import Float32Array, Image


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted face and what speaks for it.

    Attributes:
        frame: where the face's coordinates lie.
        points: (68, 2) float32 pixels of the picture, iBUG order.
        eye_contrast: of the weaker eye, see `EyeFit`.
        mouth: the mouth's fit.
    """

    frame: FaceFrame
    points: Float32Array
    eye_contrast: float
    mouth: MouthFit


def fit_face(image: Image, eyes: Float32Array) -> Fit:
    """Fit the landmarks of one face.

    Args:
        image: (H, W, 3) uint8 RGB.
        eyes: (2, 2) float32 pixels, centres of the eyes, the one at the image's left first,
            good to a tenth of their distance.
    """
    rough = FaceFrame.from_eyes(*eyes)
    frame = FaceFrame.from_eyes(refine_eye(image, rough, -1), refine_eye(image, rough, 1))
    lids = [fit_eye(image, frame, side) for side in (-1, 1)]
    brows = fit_brows(image, frame)
    mouth = fit_mouth(image, frame)
    parts = [
        fit_jaw(image, frame, mouth.middle),
        *(brow.points for brow in brows),
        fit_nose(image, frame, mouth.middle),
        *(lid.points for lid in lids),
        mouth.points,
    ]
    points = frame.to_image(np.concatenate(parts))
    return Fit(frame, points, min(lid.contrast for lid in lids), mouth)
