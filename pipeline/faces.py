"""Finding the main face of a picture."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import PortraitError
from pipeline.types import FaceLandmarks, Image


@dataclass(frozen=True, slots=True)
class FoundFace:
    """Landmarks of the main face, and what its owner may want to know about them."""

    landmarks: FaceLandmarks
    warnings: tuple[str, ...] = ()


def find_face(image: Image, name: str) -> FoundFace:
    """Find the main face.

    Args:
        image: (H, W, 3) uint8 RGB.
        name: for messages.

    Raises:
        PortraitError: with `no_face`.
    """
    raise PortraitError(
        name,
        f"no landmarks for this picture of {image.shape[1]} x {image.shape[0]} pixels; "
        "put a landmarks file beside it",
        no_face=True,
    )
