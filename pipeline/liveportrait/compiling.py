"""An engine handed to `torch.compile`, which is never needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import structlog
import torch
from torch import Tensor

from pipeline.liveportrait.devices import translated
from pipeline.liveportrait.engines import Engine, SourceState
from pipeline.liveportrait.warping_module import Warped

log = structlog.get_logger()

Result = TypeVar("Result")


class CompiledEngine:
    """Runs compiled, or as it was where that fails once.

    Compiling takes about a minute at the first frame. CUDA graphs are ours, not the compiler's.

    Attributes:
        fallback_reason: why it runs uncompiled; None while it does not.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._compiled: Engine | None = None
        self.fallback_reason: str | None = None

    def prepare(self, feature: Tensor, kp_source: Tensor) -> SourceState:
        return self._engine.prepare(feature, kp_source)

    def warp(self, source: Any, kp_driving: Tensor) -> Warped:
        # A face at rest has its source's keypoints; one tensor twice would be compiled anew.
        own = kp_driving.clone()
        return self._run(lambda engine: engine.warp(source, own))

    def decode(self, features: Tensor) -> Tensor:
        return self._run(lambda engine: engine.decode(features))

    def _run(self, work: Callable[[Engine], Result]) -> Result:
        if self.fallback_reason is not None:
            return work(self._engine)
        try:
            # Here, for already asking for it can fail.
            self._compiled = self._compiled or _Compiled(self._engine)
            return work(self._compiled)
        except Exception as error:
            # The compiler raises what it likes; memory and the device are another matter.
            if translated(error) is not None:
                raise
            self._compiled = None
            self.fallback_reason = f"torch.compile: {type(error).__name__}: {_brief(error)}"
            log.warning("compile_unusable", reason=self.fallback_reason)
        return work(self._engine)


class _Compiled:
    """The two functions, compiled; each when it is first called."""

    def __init__(self, engine: Engine) -> None:
        self.prepare = engine.prepare
        self.warp = torch.compile(engine.warp, dynamic=False)
        self.decode = torch.compile(engine.decode, dynamic=False)


def _brief(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
