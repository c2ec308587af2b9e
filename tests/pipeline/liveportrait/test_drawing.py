"""Half precision that overflows, on the path that repeats recorded work."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import BadFrameError
from pipeline.types import Image

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from pipeline.liveportrait.cuda_path import StaticFrame  # noqa: E402
from pipeline.liveportrait.drawing import Drawer  # noqa: E402
from pipeline.liveportrait.prepared import PreparedPortrait  # noqa: E402
from tests.fakes.liveportrait_engine import FlatEngine, Recording, at  # noqa: E402

CPU = torch.device("cpu")


class TypedEngine(FlatEngine):
    """Works in a type whose largest number is passed by levels above 0.7, if it is float16."""

    def __init__(self, dtype: torch.dtype, reason: str | None = None) -> None:
        super().__init__()
        self.dtype = dtype
        self.fallback_reason = reason

    def decode(self, features: Tensor) -> Tensor:
        image = super().decode(features).to(self.dtype)
        return (image * 90_000.0).float() / 90_000.0


class StaticPath:
    """CUDA's path with the device left out: fixed buffers, and a copy that arrives later."""

    def __init__(self, engine: FlatEngine) -> None:
        self.engine = engine
        self.frame: StaticFrame | None = None
        self.closed = False
        self.fallback_reason: str | None = None

    def begin(self, source: Any, kp_driving: Tensor) -> Any:
        if self.frame is None:
            self.frame = StaticFrame(self.engine, source, Recording(), CPU)
        packed = self.frame.draw(source, kp_driving).numpy().copy()
        return SimpleNamespace(array=lambda: packed)

    def close(self) -> None:
        self.closed = True


class Maker:
    """Engines in every type, on static paths."""

    def __init__(self, engines: Mapping[torch.dtype, FlatEngine]) -> None:
        self.engines = engines
        self.paths: list[StaticPath] = []

    def engine(self, dtype: torch.dtype) -> Any:
        return self.engines[dtype]

    def path(self, engine: Any) -> Any:
        self.paths.append(StaticPath(engine))
        return self.paths[-1]


def typed() -> dict[torch.dtype, FlatEngine]:
    return {d: TypedEngine(d) for d in (torch.float16, torch.bfloat16, torch.float32)}


def portrait(dtype: torch.dtype = torch.float16, level: float = 0.5) -> PreparedPortrait:
    nothing: Any = None
    return PreparedPortrait(
        portrait=nothing,
        motion=nothing,
        keypoints=at(0),
        feature=torch.full((1, 32, 16, 64, 64), level),
        ratios=nothing,
        paste=nothing,
        dtype=dtype,
    )


def grey(picture: Image) -> int:
    assert (picture == picture[0, 0, 0]).all()
    return int(picture[0, 0, 0])


def test_an_overflowing_frame_is_the_float32_frame() -> None:
    """Only that frame is drawn twice; the next one is the half's again."""
    maker = Maker(typed())
    drawer, shown = Drawer(maker, CPU), portrait()
    assert grey(drawer.begin(shown, at(0.125)).levels()) == 159
    assert grey(drawer.begin(shown, at(0.375)).levels()) == 223
    assert grey(drawer.begin(shown, at(0.125)).levels()) == 159
    assert (drawer.overflows, shown.overflows, shown.dtype) == (1, 1, torch.float16)
    assert [path.engine for path in maker.paths] == [
        maker.engines[torch.float16],
        maker.engines[torch.float32],
    ]


def test_after_three_overflows_a_portrait_stays_in_a_wider_type() -> None:
    """Other portraits stay where they are."""
    maker = Maker(typed())
    drawer, shown, other = Drawer(maker, CPU), portrait(), portrait()
    for _ in range(3):
        drawer.begin(shown, at(0.375)).levels()
    assert shown.dtype == torch.bfloat16
    assert abs(grey(drawer.begin(shown, at(0.375)).levels()) - 223) <= 1
    assert drawer.overflows == 3
    assert grey(drawer.begin(other, at(0.125)).levels()) == 159
    assert (other.dtype, set(other.sources)) == (torch.float16, {torch.float16})
    assert set(shown.sources) == {torch.float16, torch.bfloat16, torch.float32}


def test_a_portrait_that_even_bfloat16_cannot_draw_ends_in_float32() -> None:
    """Three more overflows, counted from where the type changed."""
    engines = typed() | {torch.bfloat16: FlatEngine(faults=100)}
    drawer, shown = Drawer(Maker(engines), CPU), portrait(torch.bfloat16)
    for _ in range(3):
        assert grey(drawer.begin(shown, at(0)).levels()) == 127
    assert shown.dtype == torch.float32
    assert grey(drawer.begin(shown, at(0)).levels()) == 127
    assert drawer.overflows == 3


def test_frames_begun_together_overflow_each_for_itself() -> None:
    """A frame is drawn again from its own keypoints, though another was begun since."""
    drawer, shown = Drawer(Maker(typed()), CPU), portrait()
    one, other, clean = (drawer.begin(shown, at(moved)) for moved in (0.375, 0.4375, 0))
    assert [grey(each.levels()) for each in (one, other, clean)] == [223, 239, 127]
    assert drawer.overflows == 2


def test_what_float32_cannot_draw_either_is_no_overflow() -> None:
    """It is an error, and no reason to leave the half."""
    engines = typed() | {torch.float32: FlatEngine(faults=100)}
    drawer, shown = Drawer(Maker(engines), CPU), portrait()
    with pytest.raises(BadFrameError):
        drawer.begin(shown, at(0.375)).levels()
    assert (drawer.overflows, shown.overflows) == (0, 0)


def test_a_gpu_without_bfloat16_goes_straight_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated it would be slower than that."""
    from pipeline.liveportrait.drawing import _wider

    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert _wider(torch.float16, cuda) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert _wider(torch.float16, cuda) == torch.bfloat16
    assert _wider(torch.bfloat16, cuda) == torch.float32


def test_reasons_for_being_slow_are_told_and_closing_closes_paths() -> None:
    """Of engines and of paths."""
    maker = Maker({torch.float32: TypedEngine(torch.float32, "torch.compile: no compiler")})
    drawer, shown = Drawer(maker, CPU), portrait(torch.float32)
    drawer.begin(shown, at(0)).levels()
    maker.paths[0].fallback_reason = "CUDA graph: no"
    assert drawer.fallback_reasons == ("torch.compile: no compiler", "CUDA graph: no")
    drawer.close()
    assert maker.paths[0].closed
    assert drawer.fallback_reasons == ()
