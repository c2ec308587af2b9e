"""LivePortrait as one of the daemon's renderers."""

from __future__ import annotations

import gc
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

import structlog
import torch

from pipeline.errors import ConfigError, RenderError
from pipeline.liveportrait.devices import choose_device, device_errors
from pipeline.liveportrait.model import LivePortrait
from pipeline.liveportrait.prepared import PreparedPortrait
from pipeline.liveportrait.prepared_cache import PreparedCache
from pipeline.liveportrait.source import SourceFinder
from pipeline.memory import give_back
from pipeline.types import FaceControls, Image, Portrait

log = structlog.get_logger()

# On a CPU every frame takes seconds and all cores: what keeps the stream going comes first.
_NICENESS: Final = 5


@dataclass(frozen=True, slots=True)
class Options:
    """How LivePortrait is to run.

    Attributes:
        weights_dir: the folder that holds `liveportrait/` and `insightface/`.
        device: `auto` (cuda, then mps, then cpu), `cpu`, `cuda`, `cuda:1`, `mps`.
        on_cpu: `auto` may take the CPU.
        dtype: of the two large networks; `auto` takes what is fast and good on the device.
        whole: paste the face back into the portrait; else show the 512 x 512 crop.
        memory_share: of the GPU's memory that this process may take, in (0, 1].
        prepared_bytes: prepared portraits kept, beside the one in use.
        compile: hand the networks to `torch.compile`.
        threads: that torch uses on a CPU; 0 leaves one core to everything else.
    """

    weights_dir: Path
    device: str = "auto"
    on_cpu: bool = True
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    whole: bool = True
    memory_share: float = 1.0
    prepared_bytes: int = 512 * 2**20
    compile: bool = False
    threads: int = 0


class LivePortraitRenderer:
    """Draws through LivePortrait; implements `pipeline.ports.Renderer`.

    The thread that makes it owns the device's context and must make every later call.
    """

    name: Final = "liveportrait"

    def __init__(self, model: LivePortrait, finder: SourceFinder, options: Options) -> None:
        self._model: LivePortrait | None = model
        self._whole = options.whole
        self._finder = finder
        self._prepared: PreparedCache[PreparedPortrait] = PreparedCache(options.prepared_bytes)
        self.device = str(model.device)

    @classmethod
    def load(cls, options: Options) -> Self:
        """Load the weights and warm the networks up.

        Raises:
            ConfigError: the device that is asked for is not there.
            CheckpointError: a weights file is missing, damaged, or not the one it should be.
            OutOfMemoryError, DeviceLostError: what the device says.
        """
        device = _device(options)
        if device == "cpu":
            _take_the_back_seat(options.threads)
        # Before the device's memory is taken: a damaged network of these is found at once.
        finder = SourceFinder(options.weights_dir)
        with device_errors():
            model = LivePortrait.load(
                options.weights_dir,
                device,
                _dtype(options.dtype, device),
                compile=options.compile,
                memory_share=options.memory_share if device.startswith("cuda") else None,
            )
            if device != "cpu":
                model.warmup()
        return cls(model, finder, options)

    def prepare(self, portrait: Portrait) -> PreparedPortrait:
        """Find the face's points and do what depends on the portrait alone.

        Raises:
            PortraitError: its points do not frame a face.
            OutOfMemoryError, DeviceLostError: what the device says.
        """
        return self._prepared.get(portrait.key, lambda: self._prepare(portrait))

    def _prepare(self, portrait: Portrait) -> PreparedPortrait:
        source = self._finder.find(portrait)
        with device_errors():
            return self._alive.prepare(
                source.portrait, points=source.points, ratio_points=source.ratio_points
            )

    def render(self, prepared: object, controls: FaceControls, size_px: tuple[int, int]) -> Image:
        """Draw one frame: (height, width, 3) uint8 RGB for `size_px = (width, height)`.

        Raises:
            RenderError: `prepared` is not this renderer's.
            BadFrameError: not even float32 gave finite numbers.
            OutOfMemoryError, DeviceLostError: what the device says.
        """
        if not isinstance(prepared, PreparedPortrait):
            raise RenderError("expected a portrait prepared by LivePortrait")
        with device_errors():
            return self._alive.render(prepared, controls, size_px, whole=self._whole)

    def close(self) -> None:
        """Free the networks, the prepared portraits and the device's memory; idempotent."""
        self._prepared.clear()
        model, self._model = self._model, None
        if model is not None:
            model.close()
            del model
            gc.collect()
            give_back()

    @property
    def _alive(self) -> LivePortrait:
        if self._model is None:
            raise RenderError("LivePortrait is closed")
        return self._model


def _device(options: Options) -> str:
    if options.device == "auto":
        found = choose_device()
        if found is None and not options.on_cpu:
            raise ConfigError(
                "liveportrait.device",
                f"torch {torch.__version__} finds no CUDA or MPS device here; on a CPU it runs "
                'where renderer.backend = "liveportrait" asks for it',
            )
        return found or "cpu"
    kind = options.device.partition(":")[0]
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if not {"cpu": True, "cuda": cuda, "mps": mps}[kind]:
        raise ConfigError(
            "liveportrait.device", f"torch {torch.__version__} finds no {kind} device here"
        )
    return options.device


def _dtype(wanted: str, device: str) -> str:
    """float16 on CUDA; bfloat16 on CPUs that calculate in it; float32 elsewhere."""
    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        return "float16"
    bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if device == "cpu" and bfloat16() else "float32"


def _take_the_back_seat(threads: int) -> None:
    """Leave the processor to whoever has less to do: the threads of torch inherit this one's."""
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) - 1))
    if sys.platform == "linux" and threading.current_thread() is not threading.main_thread():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
