"""Next to no work in the place of the model, to try the benchmark itself out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import conv2d

from pipeline.types import FaceControls, Image
from tests.benchmarks.liveportrait.forms import Form
from tests.benchmarks.liveportrait.subject import STAGES, Pending, Timed, jpeg

_SIDE = 16
# Of one 3x3 convolution of four channels with its multiply-adds as two.
FLOP = 2 * _SIDE**2 * 9 * 4**2
_PLAIN_CONVOLUTIONS = 16


class StandIn:
    """A small convolution per stage; the plain form has sixteen."""

    def __init__(self, form: Form, device: str) -> None:
        dtype = getattr(torch, form.dtype)
        self._picture = torch.ones(1, 4, _SIDE, _SIDE, dtype=dtype, device=device)
        self._kernel = torch.ones(4, 4, 3, 3, dtype=dtype, device=device) / 36
        self._times = 1 if form.fast else _PLAIN_CONVOLUTIONS
        self.prepared_bytes = self._picture.nbytes
        self.fallback_reasons: tuple[str, ...] = ()

    def prepare(self, *, keep: bool = True) -> None:
        self._work()

    def begin(self, face: FaceControls) -> Pending:
        return _Drawn([self._work() for _ in STAGES][-1])

    def staged(self, face: FaceControls, timed: Timed, *, replayed: bool = True) -> bytes:
        made = [timed(name, self._encoded if name == "encode" else self._work) for name in STAGES]
        return bytes(made[-1])

    def close(self) -> None:
        del self._picture, self._kernel

    def _encoded(self) -> Any:
        return jpeg(self._work())

    def _work(self) -> Image:
        picture = self._picture
        for _ in range(self._times):
            picture = conv2d(picture, self._kernel, padding=1)
        return np.ascontiguousarray(picture[0, :3].permute(1, 2, 0).byte().cpu().numpy())


class _Drawn:
    def __init__(self, picture: Image) -> None:
        self._picture = picture

    def picture(self) -> Image:
        return self._picture
