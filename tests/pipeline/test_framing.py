"""How pictures fill frames."""

import numpy as np
import pytest

from pipeline.framing import Framing
from pipeline.mesh.renderer import MeshRenderer
from pipeline.types import FaceControls
from tests.fakes import faces

SIZE = (64, 48)


@pytest.mark.parametrize("shape", [(100, 100), (50, 200), (200, 50), (20, 10), (48, 64)])
def test_fitting_keeps_proportions(shape: tuple[int, int]) -> None:
    """The middle of the image is shown, not squeezed: a square in it stays a square."""
    height, width = shape
    image = np.zeros((height, width, 3), np.uint8)
    middle, half = (height // 2, width // 2), min(shape) // 5
    image[middle[0] - half : middle[0] + half, middle[1] - half : middle[1] + half] = 255
    scaled = Framing.middle(shape, SIZE).cut(image)
    assert scaled.shape == (48, 64, 3)
    bright = scaled[:, :, 0] > 127
    assert abs(int(bright.any(0).sum()) - int(bright.any(1).sum())) <= 3


@pytest.mark.parametrize("size_px", [(96, 96), (160, 90), (90, 160)])
def test_every_renderer_shows_the_same_part(size_px: tuple[int, int]) -> None:
    """A change of renderer moves nothing: the resting face lies where the photo has it."""
    portrait, renderer = faces.astronaut(), MeshRenderer(size_px)
    drawn = renderer.render(renderer.prepare(portrait), FaceControls(), size_px)
    shown = Framing.of(portrait, size_px).cut(portrait.image)
    assert np.abs(drawn.astype(int) - shown).max() <= 1


def test_the_face_is_in_the_middle_as_far_as_the_picture_goes() -> None:
    """A wide frame of a square portrait is cut above and below the face, not in the middle."""
    portrait = faces.astronaut()
    framing = Framing.of(portrait, (320, 180))
    top, bottom = portrait.landmarks.points[:, 1].min(), portrait.landmarks.points[:, 1].max()
    above, below = top - framing.top, framing.top + framing.down - bottom
    assert above == pytest.approx(below, abs=1.0) or framing.top == 0
