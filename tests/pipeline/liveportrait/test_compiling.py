"""`torch.compile`, which may fail in any way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import OutOfMemoryError

torch = pytest.importorskip("torch", reason="torch is not installed")

from pipeline.liveportrait.compiling import CompiledEngine  # noqa: E402
from pipeline.liveportrait.devices import device_errors  # noqa: E402
from pipeline.liveportrait.frame_path import painted, unpacked  # noqa: E402
from tests.fakes.liveportrait_engine import FlatEngine  # noqa: E402


def draw(engine: CompiledEngine) -> int:
    source = engine.prepare(torch.full((1, 32, 16, 64, 64), 0.25), torch.zeros(1, 21, 3))
    picture = unpacked(painted(engine, source, torch.zeros(1, 21, 3)).numpy())
    assert picture is not None
    return int(picture[0, 0, 0])


class Compiler:
    """Hands functions back with a counter, or raises when they run."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.runs = 0

    def __call__(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        assert options == {"dynamic": False}

        def run(*arguments: Any) -> Any:
            self.runs += 1
            if self.error:
                raise self.error
            return function(*arguments)

        return run


def test_compiled_functions_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves of a frame go through the compiler's."""
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", compiler)
    engine = CompiledEngine(FlatEngine())
    assert draw(engine) == 63
    assert compiler.runs == 2
    assert engine.fallback_reason is None


@pytest.mark.parametrize("error", [RuntimeError("\n no C++ compiler"), KeyError("x")])
def test_where_compiling_fails_the_engine_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever the compiler raises: the frame is drawn, and it is not asked again."""
    compiler = Compiler(error)
    monkeypatch.setattr(torch, "compile", compiler)
    engine = CompiledEngine(FlatEngine())
    assert [draw(engine), draw(engine)] == [63, 63]
    assert compiler.runs == 1
    assert engine.fallback_reason is not None
    assert type(error).__name__ in engine.fallback_reason


def test_a_face_at_rest_is_nothing_new_to_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keypoints never arrive as the very tensor that they were prepared with."""
    seen: list[torch.Tensor] = []

    class Watching(FlatEngine):
        def warp(self, source: Any, kp_driving: torch.Tensor) -> Any:
            seen.append(kp_driving)
            return super().warp(source, kp_driving)

    monkeypatch.setattr(torch, "compile", Compiler())
    engine, rest = CompiledEngine(Watching()), torch.zeros(1, 21, 3)
    engine.warp(engine.prepare(torch.zeros(1, 32, 16, 64, 64), rest), rest)
    assert seen[0] is not rest
    assert torch.equal(seen[0], rest)


def test_a_torch_that_cannot_compile_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking is enough to fail, and never fails the loading."""

    def refuse(function: object, **options: object) -> None:
        raise RuntimeError("torch.compile is not supported on this Python")

    monkeypatch.setattr(torch, "compile", refuse)
    engine = CompiledEngine(FlatEngine())
    assert [draw(engine), draw(engine)] == [63, 63]
    assert "not supported" in str(engine.fallback_reason)


def test_memory_that_runs_out_is_not_the_compilers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays compiled for when there is memory again."""
    compiler = Compiler(torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr(torch, "compile", compiler)
    engine = CompiledEngine(FlatEngine())
    with pytest.raises(OutOfMemoryError), device_errors():
        draw(engine)
    compiler.error = None
    assert draw(engine) == 63
    assert (compiler.runs, engine.fallback_reason) == (3, None)
