"""From a portrait to what `LivePortrait.prepare` takes (specification 5). No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import numpy as np
import structlog

from pipeline.errors import ConfigError, PortraitError
from pipeline.landmarks import eye_centres
from pipeline.liveportrait.crop import MAX_SIDE_PX, limit_size, limited_sides
from pipeline.liveportrait.insight_faces import FILES, InsightFaceDetector
from pipeline.liveportrait.landmark_network import FILE, LandmarkNetwork
from pipeline.liveportrait.onnx_network import HOW_TO_GET
from pipeline.types import Float32Array, Portrait

log = structlog.get_logger()
_Network = TypeVar("_Network")


class Origin(StrEnum):
    """Where a source's points come from."""

    GIVEN = "given with the portrait"
    DETECTED = "InsightFace"
    REFINED = "203-point network"
    LANDMARKS = "the portrait's 68 landmarks"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A portrait and what LivePortrait needs to know of its face.

    Attributes:
        portrait: within LivePortrait's limit of size, with the key of the portrait it was made of.
        points: (N, 2) float32 pixels of `portrait`, N 68, 106 or 203; the crop is made from them.
        ratio_points: (N, 2) float32 pixels, N 68 or 203; eye and lip ratios are taken from them.
        points_from, ratio_points_from: how they were obtained.
        notes: what a better result would need.
    """

    portrait: Portrait
    points: Float32Array
    ratio_points: Float32Array
    points_from: Origin
    ratio_points_from: Origin
    notes: tuple[str, ...] = ()


class SourceFinder:
    """Finds the points of portraits with the networks that a weights folder holds.

    What is missed is logged once, and the portrait's landmarks serve instead. One thread may use
    an instance at a time.

    Args:
        weights_dir: the folder that holds `liveportrait/` and `insightface/`.
        providers: of onnxruntime, in order of preference; CUDA where there is one, if not given.

    Raises:
        CheckpointError: a file is there but damaged, or another network.
    """

    def __init__(self, weights_dir: Path, providers: Sequence[str] | None = None) -> None:
        self._weights_dir = weights_dir
        self._detector, self._no_detector = self._opened(
            FILES, lambda: InsightFaceDetector(weights_dir, providers)
        )
        self._network, self._no_network = self._opened(
            (FILE,), lambda: LandmarkNetwork(weights_dir, providers)
        )
        self._told: set[str] = set()

    def find(self, portrait: Portrait) -> Source:
        """A portrait's size, points and ratio points.

        The crop's points are those of 106 or 203 that the portrait brings along, else 106 that
        InsightFace finds, else its 68. The ratio points are 203 that it brings along, else those
        of the 203-point network, else its 68.

        Raises:
            PortraitError: the points do not frame a face.
        """
        portrait = _limited(portrait)
        notes: list[str] = []
        points, points_from = self._points(portrait, notes)
        ratio_points, ratio_points_from = self._ratio_points(portrait, points, notes)
        return Source(portrait, points, ratio_points, points_from, ratio_points_from, tuple(notes))

    def _points(self, portrait: Portrait, notes: list[str]) -> tuple[Float32Array, Origin]:
        landmarks = portrait.landmarks
        if landmarks.dense is not None:
            detected = landmarks.source == "insightface"
            return landmarks.dense, Origin.DETECTED if detected else Origin.GIVEN
        if self._detector is None:
            notes.append(self._tell(self._no_detector))
            return landmarks.points, Origin.LANDMARKS
        x, y = eye_centres(landmarks.points).mean(axis=0)
        for box in self._detector.boxes(portrait.image):
            if box.holds(float(x), float(y)):
                points = self._detector.points(portrait.image, box)
                if points is not None:
                    return points, Origin.DETECTED
        notes.append("InsightFace sees no face where the portrait's landmarks are")
        return landmarks.points, Origin.LANDMARKS

    def _ratio_points(
        self, portrait: Portrait, points: Float32Array, notes: list[str]
    ) -> tuple[Float32Array, Origin]:
        landmarks = portrait.landmarks
        if landmarks.dense is not None and len(landmarks.dense) == 203:
            return landmarks.dense, Origin.GIVEN
        if self._network is None:
            notes.append(self._tell(self._no_network))
            return landmarks.points, Origin.LANDMARKS
        try:
            refined = self._network(portrait.image, points)
        except ValueError as error:
            raise PortraitError(portrait.name, f"its landmarks: {error}", no_face=True) from error
        if np.isfinite(refined).all():
            return refined, Origin.REFINED
        notes.append("the 203-point network gave no numbers")
        return landmarks.points, Origin.LANDMARKS

    def _tell(self, problem: str) -> str:
        """Log what would give better points, the first time that it is missed."""
        if problem not in self._told:
            self._told.add(problem)
            log.warning("landmarks_less_exact", problem=problem)
        return problem

    def _opened(
        self, files: Sequence[Path], open_it: Callable[[], _Network]
    ) -> tuple[_Network | None, str]:
        """A network, or None and why there is none."""
        missing = [str(file) for file in files if not (self._weights_dir / file).is_file()]
        if missing:
            names = ", no ".join(missing)
            return None, f"{self._weights_dir}: no {names}; `{HOW_TO_GET}` fetches what is missing"
        try:
            return open_it(), ""
        except ConfigError as error:
            return None, str(error)


def _limited(portrait: Portrait) -> Portrait:
    """A portrait of at most 1280 pixels a side, both even (specification 5.1)."""
    image = limit_size(portrait.image)
    if image.shape == portrait.image.shape:
        return portrait
    height, width = portrait.image.shape[:2]
    landmarks = portrait.landmarks
    if max(height, width) > MAX_SIDE_PX:
        # Before the odd row and column went, so that the two axes have their own scale.
        rows, columns = limited_sides(height, width)
        # Pixel centres: 0 lies half a pixel inside the edge before and after.
        landmarks = landmarks.moved(0.5, (columns / width, rows / height)).moved(-0.5)
    image = np.ascontiguousarray(image)
    image.flags.writeable = False
    return replace(portrait, image=image, landmarks=landmarks)
