"""One prepared astronaut for all tests of the mesh renderer: preparing takes most of a second."""

from collections.abc import Callable

import pytest

from pipeline.mesh.renderer import MeshPortrait, MeshRenderer
from pipeline.mesh.rig import Rig
from pipeline.types import FaceControls, Image
from tests.fakes.faces import astronaut

SIZE_PX = (512, 512)
Draw = Callable[..., Image]


@pytest.fixture(scope="session")
def renderer() -> MeshRenderer:
    return MeshRenderer(SIZE_PX)


@pytest.fixture(scope="session")
def prepared(renderer: MeshRenderer) -> MeshPortrait:
    return renderer.prepare(astronaut())


@pytest.fixture(scope="session")
def rig(prepared: MeshPortrait) -> Rig:
    return prepared.rig(SIZE_PX)


@pytest.fixture(scope="session")
def draw(renderer: MeshRenderer, prepared: MeshPortrait) -> Draw:
    """`draw(jawOpen=0.5, yaw=10)`: the astronaut with these controls."""

    def drawn(**controls: float) -> Image:
        return renderer.render(prepared, FaceControls.of(**controls), SIZE_PX)

    return drawn
