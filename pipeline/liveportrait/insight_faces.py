"""Faces and their 106 points by InsightFace's trained networks (specification 5.2, 5.3). No torch.

The networks run in the package's own classes, on sessions that are opened here: its loader reads
every model of the folder, and takes two detector sizes where one is wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog

from pipeline.errors import AvatarError, PortraitError
from pipeline.faces import (
    LEAST_EYE_DISTANCE_PX,
    ONLY_ANCHORS,
    RIVAL,
    WHAT_HELPS,
    FaceDetector,
    FittingDetector,
    FoundFace,
)
from pipeline.landmark_sets import ibug_from_dense
from pipeline.landmarks import check_geometry, estimate_irises, eye_centres
from pipeline.liveportrait.onnx_network import Shape, open_network, optional_package
from pipeline.types import FaceLandmarks, Float32Array, Image

log = structlog.get_logger()

_FOLDER: Final = Path("insightface") / "models" / "buffalo_l"
DETECTOR_FILE: Final = _FOLDER / "det_10g.onnx"
LANDMARK_FILE: Final = _FOLDER / "2d106det.onnx"
FILES: Final = (DETECTOR_FILE, LANDMARK_FILE)

DETECTOR_PX: Final = 512
LANDMARK_PX: Final = 192
# What LivePortrait's own tools take (specification 5.2). So low a limit finds faces of drawings and
# in poor light too; false alarms among them are small, or their points are no face.
_LEAST_SCORE: Final = 0.15
_SURE_SCORE: Final = 0.5
_OVERLAP: Final = 0.4
_MOST_TRIED: Final = 8  # of what the detector takes for faces, until the points of one are a face
_STRIDES: Final = (8, 16, 32)
_ANCHORS_PER_CELL: Final = 2


def _detector_outputs() -> tuple[Shape, ...]:
    """Scores, box distances and five points' distances, each for every stride."""
    rows = [_ANCHORS_PER_CELL * (DETECTOR_PX // stride) ** 2 for stride in _STRIDES]
    return tuple((count, columns) for columns in (1, 4, 10) for count in rows)


@dataclass(frozen=True, slots=True)
class FaceBox:
    """Where a face was seen, in pixels, and how sure the network is, in [0, 1]."""

    left: float
    top: float
    right: float
    bottom: float
    score: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it."""
        return self.left <= x <= self.right and self.top <= y <= self.bottom


class InsightFaceDetector:
    """Finds faces with `det_10g.onnx` and places 106 points on them with `2d106det.onnx`.

    One thread may use an instance at a time.

    Args:
        weights_dir: the folder that holds `insightface/`.
        providers: of onnxruntime, in order of preference; CUDA where there is one, if not given.

    Raises:
        CheckpointError: a file is missing, damaged, or another network.
        ConfigError: onnxruntime or insightface is not installed.
    """

    def __init__(self, weights_dir: Path, providers: Sequence[str] | None = None) -> None:
        boxes = open_network(
            weights_dir / DETECTOR_FILE,
            "InsightFace's face detector",
            takes=("input.1", (1, 3, DETECTOR_PX, DETECTOR_PX)),
            gives=_detector_outputs(),
            providers=providers,
        )
        points = open_network(
            weights_dir / LANDMARK_FILE,
            "InsightFace's 106-point landmark network",
            takes=("data", (1, 3, LANDMARK_PX, LANDMARK_PX)),
            gives=((1, 212),),
            providers=providers,
        )
        zoo = optional_package("insightface.model_zoo")
        self._boxes: Any = zoo.SCRFD(
            str(weights_dir / DETECTOR_FILE), boxes, static_shape_sessions=False
        )
        self._boxes.prepare(0, det_thresh=_LEAST_SCORE, nms_thresh=_OVERLAP)
        self._points: Any = zoo.Landmark(str(weights_dir / LANDMARK_FILE), points)

    def boxes(self, image: Image) -> list[FaceBox]:
        """The faces of an (H, W, 3) uint8 RGB image, the largest first."""
        height, width = image.shape[:2]
        if min(height, width) * DETECTOR_PX < max(height, width):
            return []  # nothing is left of the shorter side where the longer one is 512
        with np.errstate(invalid="ignore", over="ignore"):  # a network may overflow
            found, _ = self._boxes.detect(_bgr(image), input_size=(DETECTOR_PX, DETECTOR_PX))
        boxes = [FaceBox(*map(float, row)) for row in found if np.isfinite(row).all()]
        return sorted(
            (box for box in boxes if box.right > box.left and box.bottom > box.top),
            key=lambda box: -box.area,
        )

    def points(self, image: Image, box: FaceBox) -> Float32Array | None:
        """(106, 2) float32 pixels of what is in a box; None where they are no face."""
        face = _BoxOnly(np.array([box.left, box.top, box.right, box.bottom], np.float32))
        with np.errstate(invalid="ignore", over="ignore"):  # a network may overflow
            dense = np.asarray(self._points.get(_bgr(image), face), np.float32)
        return dense if np.isfinite(dense).all() and _is_face(ibug_from_dense(dense)[0]) else None

    def find(self, image: Image, name: str) -> FoundFace:
        """See `FaceDetector.find`; the landmarks keep the 106 points."""
        boxes = self.boxes(image)
        for box in boxes[:_MOST_TRIED]:
            dense = self.points(image, box)
            if dense is not None and (landmarks := _landmarks(image, dense)):
                warnings = tuple(_warnings(boxes, box, landmarks))
                return FoundFace(landmarks, warnings, _rivals(boxes, box))
        raise PortraitError(name, f"no face found; {WHAT_HELPS}", no_face=True)


def face_detectors(weights_dir: Path | None) -> tuple[FaceDetector, ...]:
    """What to look for faces with, most trusted first: InsightFace where it is, then fitting.

    InsightFace is opened when the first face is looked for. Where it cannot be, that is logged
    once and the face is fitted.

    Args:
        weights_dir: the folder that may hold `insightface/`; None for none.
    """
    if weights_dir is None or not any((weights_dir / file).is_file() for file in FILES):
        return (FittingDetector(),)
    return (_WhenNeeded(weights_dir), FittingDetector())


class _WhenNeeded:
    """An InsightFace detector that is opened for its first picture; safe from every thread."""

    def __init__(self, weights_dir: Path) -> None:
        self._weights_dir = weights_dir
        self._lock = threading.Lock()
        self._detector: InsightFaceDetector | None = None
        self._problem: str | None = None

    def find(self, image: Image, name: str) -> FoundFace:
        """See `FaceDetector.find`."""
        with self._lock:
            if self._problem is None and self._detector is None:
                self._open()
            if self._detector is None:
                raise PortraitError(name, f"no face detector: {self._problem}", no_face=True)
            return self._detector.find(image, name)

    def _open(self) -> None:
        try:
            self._detector = InsightFaceDetector(self._weights_dir)
        except AvatarError as error:
            self._problem = str(error)
            log.warning("face_detector_unusable", problem=self._problem)


class _BoxOnly(dict[str, Any]):
    """What the package's landmark class reads of a face, and writes to it."""

    def __init__(self, bbox: Float32Array) -> None:
        super().__init__()
        self.bbox = bbox


def _bgr(image: Image) -> Image:
    """The package takes OpenCV's channel order, and hands RGB to the networks."""
    return np.ascontiguousarray(image[..., ::-1])


def _is_face(points: Float32Array) -> bool:
    try:
        check_geometry(points, "")
    except PortraitError:
        return False
    return True


def _landmarks(image: Image, dense: Float32Array) -> FaceLandmarks | None:
    """Landmarks of a face's 106 points; None where too little of it is in the picture."""
    points, complete = ibug_from_dense(dense)
    height, width = image.shape[:2]
    points = np.clip(points, 0, (width - 1, height - 1)).astype(np.float32)
    eyes_apart = float(np.hypot(*np.diff(eye_centres(points), axis=0)[0]))
    if eyes_apart < LEAST_EYE_DISTANCE_PX or not _is_face(points):
        return None
    source = "insightface" if complete else "anchors"
    return FaceLandmarks(points, estimate_irises(image, points), source, dense)


def _rivals(boxes: Sequence[FaceBox], used: FaceBox) -> int:
    least = RIVAL * RIVAL * used.area
    sure = (box for box in boxes if box.score >= _SURE_SCORE and box is not used)
    return sum(box.area >= least for box in sure)


def _warnings(boxes: Sequence[FaceBox], used: FaceBox, landmarks: FaceLandmarks) -> list[str]:
    warnings = []
    if (count := sum(box.score >= _SURE_SCORE for box in boxes)) > 1:
        warnings.append(f"{count} faces found; the largest is used, crop the picture to choose")
    if used.score < _SURE_SCORE:
        warnings.append(f"the detector is not sure of the face ({used.score:.2f} of 1)")
    if landmarks.source == "anchors":
        warnings.append(ONLY_ANCHORS)
    return warnings
