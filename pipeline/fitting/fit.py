"""All 68 points of a face: of several pairs of eyes the one with which the rest agrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.fitting.brows import fit_brows
from pipeline.fitting.eyes import EyeFit, eyes_alike, fit_eye, refine_eye
from pipeline.fitting.frame import FaceFrame
from pipeline.fitting.jaw import fit_jaw
from pipeline.fitting.mouth import MouthFit, fit_mouth
from pipeline.fitting.nose import fit_nose
from pipeline.fitting.search import LIKENESS_WEIGHT, EyePair
from pipeline.types import Float32Array, Image

# What speaks for a hypothesis besides its eyes' own fitness, in the same log units.
_ALIKE_WEIGHT: Final = 2.0
_CONTRAST_WEIGHT: Final = 2.0
_ENOUGH_CONTRAST: Final = 0.35
_MOUTH_WEIGHT: Final = 0.3
_ENOUGH_MOUTH: Final = 6.0


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The features that a hypothesis about the eyes leads to, and what speaks for it.

    Attributes:
        frame: where the face's coordinates lie.
        pair: the eyes it began with.
        lids: contours of the eyes, the one at the image's left first.
        mouth: the mouth.
        alike: correlation of the eyes, see `eyes_alike`.
    """

    frame: FaceFrame
    pair: EyePair
    lids: tuple[EyeFit, EyeFit]
    mouth: MouthFit
    alike: float

    @property
    def eye_contrast(self) -> float:
        """Of the weaker eye, see `EyeFit`."""
        return min(lid.contrast for lid in self.lids)

    @property
    def likeness(self) -> float:
        """Of the whole face with its mouth where it was found, see `likeness`."""
        return self.pair.likeness.at(self.mouth.middle)

    @property
    def score(self) -> float:
        """How well eyes, mouth and the whole face agree; larger is better."""
        return (
            self.pair.fitness
            + LIKENESS_WEIGHT * self.likeness
            + _ALIKE_WEIGHT * self.alike
            + _CONTRAST_WEIGHT * min(self.eye_contrast, _ENOUGH_CONTRAST)
            + _MOUTH_WEIGHT * min(self.mouth.score, _ENOUGH_MOUTH)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted face and what speaks for it.

    Attributes:
        features: its eyes and mouth.
        points: (68, 2) float32 pixels of the picture, iBUG order.
    """

    features: Features
    points: Float32Array


def fit_face(image: Image, pairs: Sequence[EyePair]) -> Fit:
    """Fit the landmarks of one face.

    Args:
        image: (H, W, 3) uint8 RGB.
        pairs: what may be its eyes, good to a tenth of their distance; at least one.
    """
    features = max((_features(image, pair) for pair in pairs), key=lambda found: found.score)
    frame, mouth = features.frame, features.mouth
    parts = [
        fit_jaw(image, frame, mouth.middle),
        *(brow.points for brow in fit_brows(image, frame)),
        fit_nose(image, frame, mouth.middle),
        *(lid.points for lid in features.lids),
        mouth.points,
    ]
    return Fit(features, frame.to_image(np.concatenate(parts)))


def _features(image: Image, pair: EyePair) -> Features:
    rough = FaceFrame.from_eyes(*pair.centres)
    frame = FaceFrame.from_eyes(refine_eye(image, rough, -1), refine_eye(image, rough, 1))
    lids = (fit_eye(image, frame, -1), fit_eye(image, frame, 1))
    return Features(frame, pair, lids, fit_mouth(image, frame), eyes_alike(image, frame))
