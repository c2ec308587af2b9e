"""Which engine draws, and on which path, for a device and a form."""

from __future__ import annotations

import torch

from pipeline.liveportrait.compiling import CompiledEngine
from pipeline.liveportrait.cuda_path import CudaPath
from pipeline.liveportrait.engines import Engine, FastEngine, PlainEngine
from pipeline.liveportrait.frame_path import EagerPath, FramePath
from pipeline.liveportrait.networks import Networks


class EngineMaker:
    """Makes engines of one model's W and G, in whatever type is asked for.

    The fast form copies what it needs, so the plain networks stay where they were loaded, on the
    CPU; in float32 they are let go of at the first engine, for nothing wider will be asked for.
    """

    def __init__(
        self,
        networks: Networks,
        device: torch.device,
        dtype: torch.dtype,
        fast: bool,
        compiled: bool,
    ) -> None:
        self._networks: Networks | None = networks
        self._device, self._widest = device, dtype == torch.float32
        self._fast, self._compiled = fast, compiled

    def engine(self, dtype: torch.dtype) -> Engine:
        """W and G in a type."""
        assert self._networks is not None
        warping, generator = self._networks.warping_module, self._networks.spade_generator
        engine: Engine
        if self._fast:
            engine = FastEngine(warping, generator, dtype, self._device)
        else:
            moved = warping.to(self._device), generator.to(self._device)
            engine = PlainEngine(*moved, dtype, self._device)
        if self._widest:
            self._networks = None
        return CompiledEngine(engine) if self._compiled else engine

    def path(self, engine: Engine) -> FramePath:
        """From the engine to pixels on the host."""
        if self._fast and self._device.type == "cuda":
            return CudaPath(engine, self._device)
        return EagerPath(engine, self._device)
