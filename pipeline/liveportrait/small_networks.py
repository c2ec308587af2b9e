"""S, R_eye and R_lip: what corrects keypoints, on one device."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

from pipeline.liveportrait.arguments import KEYPOINTS_SHAPE, of_one_batch, taken
from pipeline.liveportrait.keypoints import apply_stitching
from pipeline.liveportrait.networks import Networks


class SmallNetworks:
    """The three networks that read keypoints, 0.23 million weights, float32.

    Where frames are drawn on another device these stay on the CPU besides: what they need of a
    frame is known there, and asking a busy device would wait for the frame before.
    """

    def __init__(self, stitching: nn.Module, eye: nn.Module, lip: nn.Module) -> None:
        self._stitching, self._eye, self._lip = stitching, eye, lip
        self._device = next(stitching.parameters()).device

    @classmethod
    def of(cls, networks: Networks, device: torch.device) -> Self:
        """Copies of a model's networks on a device."""
        modules = (networks.stitching, networks.eye, networks.lip)
        return cls(*(copy.deepcopy(module).to(device) for module in modules))

    def stitch(self, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        """The driven keypoints, corrected so that the shoulders meet the source's."""
        source = taken("kp_source", kp_source, KEYPOINTS_SHAPE, self._device)
        driving = taken("kp_driving", kp_driving, KEYPOINTS_SHAPE, self._device)
        of_one_batch(kp_source=source, kp_driving=driving)
        offsets = self._stitching(torch.cat((source.flatten(1), driving.flatten(1)), dim=1))
        return apply_stitching(driving, offsets)

    def retarget_eyes(self, kp_source: Tensor, ratios: Tensor) -> Tensor:
        """(B, 21, 3) offsets for (B, 3) ratios."""
        return self._retarget(self._eye, kp_source, ratios, 3)

    def retarget_lips(self, kp_source: Tensor, ratios: Tensor) -> Tensor:
        """(B, 21, 3) offsets for (B, 2) ratios."""
        return self._retarget(self._lip, kp_source, ratios, 2)

    def _retarget(
        self, network: nn.Module, kp_source: Tensor, ratios: Tensor, count: int
    ) -> Tensor:
        source = taken("kp_source", kp_source, KEYPOINTS_SHAPE, self._device)
        wanted = taken("ratios", ratios, (count,), self._device)
        of_one_batch(kp_source=source, ratios=wanted)
        offsets: Tensor = network(torch.cat((source.flatten(1), wanted), dim=1))
        return offsets.reshape(-1, *KEYPOINTS_SHAPE)
