"""What the benchmark takes apart is the frame that the model draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.types import FaceControls
from tests.benchmarks.character import character

torch = pytest.importorskip("torch", reason="torch is not installed")

from pipeline.liveportrait import LivePortrait  # noqa: E402
from pipeline.liveportrait.warping_module import Warped  # noqa: E402
from tests.benchmarks.liveportrait import subject as subject_module  # noqa: E402
from tests.benchmarks.liveportrait.forms import Form  # noqa: E402
from tests.benchmarks.liveportrait.subject import STAGES, Model, jpeg  # noqa: E402
from tests.fakes.liveportrait_engine import FlatEngine, Recording  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.liveportrait.networks import Networks

pytestmark = pytest.mark.timeout(180)


class Tinted(FlatEngine):
    """Faces differ so much that it shows; every result has memory of its own."""

    def warp(self, source: Any, kp_driving: torch.Tensor) -> Warped:
        return Warped(*(each.clone() for each in super().warp(source, kp_driving)))

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        return (1000 * super().decode(features)).sin() / 2 + 0.5


FACES = [FaceControls.of(jawOpen=0.7), FaceControls.of(mouthSmileLeft=1.0, yaw=12.0)]


@pytest.fixture
def subject(networks: Networks, weights_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """True small networks, F and M; W and G draw flat pictures."""
    model = LivePortrait(networks, torch.device("cpu"), torch.float32, fast=False)
    model._drawer._engines = {torch.float32: Tinted()}
    monkeypatch.setattr(LivePortrait, "load", lambda *arguments: model)
    subject = Model(weights_dir, "cpu", Form(False, "float32"))
    subject.prepare()
    return subject


def test_the_stages_make_the_models_frame(subject: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage by stage, with graphs and without, it is the JPEG of the same picture."""
    stages: list[str] = []

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        stages.append(stage)
        return work()

    drawn = [jpeg(subject.begin(face).picture()) for face in FACES]
    assert drawn[0] != drawn[1]
    assert [subject.staged(face, timed) for face in FACES] == drawn
    assert tuple(stages) == STAGES * 2
    captures: list[Recording] = []

    def capture(device: object) -> Recording:
        captures.append(Recording())
        return captures[-1]

    monkeypatch.setattr(subject_module, "GraphCapture", capture)
    subject._graphs = True
    assert [subject.staged(face, timed) for face in (*FACES, FACES[0])] == [*drawn, drawn[0]]
    assert [each.calls for each in captures] == [["warm_up", "capture"]] * 2
    assert subject.prepared_bytes > character().load().portrait.image.nbytes


def test_a_graph_that_cannot_be_captured(subject: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage runs as it is, as in the model."""
    broken = Recording(capture=RuntimeError("operation not permitted when stream is capturing"))
    monkeypatch.setattr(subject_module, "GraphCapture", lambda device: broken)
    subject._graphs = True
    drawn = jpeg(subject.begin(FACES[0]).picture())
    assert subject.staged(FACES[0], lambda stage, work: work()) == drawn
