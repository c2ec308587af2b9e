"""Finding the main face of a picture and its landmarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from pipeline.errors import PortraitError
from pipeline.fitting.fit import Features, Fit, fit_face
from pipeline.fitting.search import Candidate, cut_out, find_candidates, find_eyes
from pipeline.landmarks import check_geometry, estimate_irises, eye_centres
from pipeline.types import FaceLandmarks, Float32Array, Image

ONLY_ANCHORS: Final = (
    "the landmarks beside eyes and mouth are not laid out like a face, so an average face stands "
    "in for them; check their order"
)
LEAST_EYE_DISTANCE_PX: Final = 16.0
WHAT_HELPS: Final = (
    "use a sharp photo of one person who faces the camera, head upright, nothing over eyes and "
    "mouth, cropped to head and shoulders, or put a landmarks file beside it"
)


@dataclass(frozen=True, slots=True)
class FoundFace:
    """Landmarks of the main face, and what its owner may want to know about them.

    Attributes:
        rivals: how many further faces are at least `RIVAL` times as wide.
    """

    landmarks: FaceLandmarks
    warnings: tuple[str, ...] = ()
    rivals: int = 0


class FaceDetector(Protocol):
    """One way to get a face's landmarks from pixels alone."""

    def find(self, image: Image, name: str) -> FoundFace:
        """Find the main face.

        Args:
            image: (H, W, 3) uint8 RGB.
            name: for messages.

        Raises:
            PortraitError: with `no_face` where there is none that this detector trusts.
        """
        ...


def find_face(image: Image, name: str, detectors: Sequence[FaceDetector] = ()) -> FoundFace:
    """Find the main face with the first detector that sees one.

    Args:
        image: (H, W, 3) uint8 RGB.
        name: for messages.
        detectors: most trusted first; none means fitting without a trained network.

    Raises:
        PortraitError: with `no_face` if none sees one; what the last of them said.
    """
    *trusted, last = detectors or (FittingDetector(),)
    for detector in trusted:
        try:
            return detector.find(image, name)
        except PortraitError as error:
            if not error.no_face:
                raise
    return last.find(image, name)


RIVAL: Final = 0.5
_TILTS: Final = tuple(math.radians(degrees) for degrees in (0, -20, 20))
_MOST_CANDIDATES: Final = 6  # per tilt

# Limits between faces and false alarms of the cascade. They keep 95 of the 100 faces of
# scikit-image's `lfw_subset` (25 pixels wide, glasses and profiles among them) and none of its 100
# other patches nor of its textures, animals, machines, text and maps. Where fewer windows of the
# cascade agree, the face has to be clear.
_AGREEMENT: Final = 8
_WEAK_AGREEMENT: Final = 5
_LEAST_EYE_FITNESS: Final = -2.5
_UNSURE_MOUTH: Final = 2.5

_FITTED: Final = (
    "the landmarks were fitted to the picture and may be some pixels off; "
    "for exact ones put a landmarks file beside it"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Face:
    """A face that was found, and its points in the picture."""

    candidate: Candidate
    features: Features
    points: Float32Array


class FittingDetector:
    """Finds faces with scikit-image's cascade and fits the landmarks by edges and colours."""

    def find(self, image: Image, name: str) -> FoundFace:
        """See `FaceDetector.find`."""
        for tilt in _TILTS:
            if faces := list(_faces(image, tilt)):
                break
        else:
            raise PortraitError(name, f"no face found; {WHAT_HELPS}", no_face=True)
        main = _main(faces)
        height, width = image.shape[:2]
        points = np.clip(main.points, 0, (width - 1, height - 1)).astype(np.float32)
        if float(np.hypot(*np.diff(eye_centres(points), axis=0)[0])) < LEAST_EYE_DISTANCE_PX:
            raise PortraitError(
                name,
                f"the face is only {main.candidate.width:.0f} pixels wide; {WHAT_HELPS}",
                no_face=True,
            )
        landmarks = FaceLandmarks(points, estimate_irises(image, points), "fitted")
        wide = RIVAL * main.candidate.width
        rivals = sum(face.candidate.width >= wide for face in faces) - 1
        return FoundFace(landmarks, tuple(_warnings(main, len(faces))), rivals)


def _faces(image: Image, tilt: float) -> Iterator[_Face]:
    """Faces among the candidates, each once."""
    found: list[Candidate] = []
    for candidate in find_candidates(image, tilt)[:_MOST_CANDIDATES]:
        # Weak ones matter only where nothing better is there.
        enough = _AGREEMENT if found else _WEAK_AGREEMENT
        if candidate.hits < enough or any(_same(candidate, other) for other in found):
            continue
        part = cut_out(image, candidate)
        eyes = find_eyes(part.image, part.candidate)
        if not any(pair.fitness >= _LEAST_EYE_FITNESS for pair in eyes):
            continue
        fit = fit_face(part.image, eyes)
        if _is_face(candidate, fit):
            found.append(candidate)
            yield _Face(candidate, fit.features, part.to_picture(fit.points))


def _same(one: Candidate, other: Candidate) -> bool:
    return math.hypot(one.x - other.x, one.y - other.y) < 0.5 * max(one.width, other.width)


def _is_face(candidate: Candidate, fit: Fit) -> bool:
    try:
        check_geometry(fit.points, "")
    except PortraitError:
        return False
    features = fit.features
    if features.pair.fitness < _LEAST_EYE_FITNESS:
        return False
    if candidate.hits >= _AGREEMENT:
        return features.eye_contrast >= 0.12 and features.mouth.score >= 1.0
    return (
        features.eye_contrast >= 0.3
        and features.pair.fitness >= -1.8
        and features.mouth.line >= 0.35
        and features.mouth.score >= 4.5
    )


def _main(faces: Sequence[_Face]) -> _Face:
    """The clearest of the large ones."""
    widest = max(face.candidate.width for face in faces)
    large = [face for face in faces if face.candidate.width >= 0.67 * widest]
    return max(large, key=lambda face: face.features.mouth.score)


def _warnings(face: _Face, count: int) -> Iterator[str]:
    yield _FITTED
    if count > 1:
        yield f"{count} faces found; the largest clear one is used, crop the picture to choose"
    if face.features.mouth.score < _UNSURE_MOUTH:
        yield "the mouth is hard to make out; check its landmarks"
