"""LivePortrait in process: the networks behind one small interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.liveportrait import keypoints
from pipeline.liveportrait.checkpoints import load_networks
from pipeline.liveportrait.engines import Engine, FastEngine, PlainEngine
from pipeline.liveportrait.keypoints import KEYPOINTS, Motion
from pipeline.liveportrait.networks import Networks
from pipeline.liveportrait.warping_module import Warped

DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class LivePortrait:
    """The seven networks and the keypoint maths between them.

    Tensors are (B, ...) with B = 1 in practice, results float32 on the model's device. Pictures
    are RGB in [0, 1]; keypoints (B, 21, 3) are (x right, y down, z into the picture). Only W and
    G run in the chosen dtype: F and M run once per portrait, the small networks are tiny, and
    geometry in half precision would quantise small motions.

    One thread may use an instance at a time.
    """

    def __init__(
        self, networks: Networks, device: torch.device, dtype: torch.dtype, fast: bool
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.fast = fast
        self._networks = networks
        self._features = networks.appearance_feature_extractor.to(device)
        self._motion = networks.motion_extractor.to(device)
        self._stitching = networks.stitching.to(device)
        self._eye, self._lip = networks.eye.to(device), networks.lip.to(device)
        self._engine = self._make_engine(dtype)

    @classmethod
    def load(
        cls,
        weights_dir: Path | str,
        device: str = "cpu",
        dtype: str = "float32",
        fast: bool = True,
    ) -> Self:
        """Load the released checkpoints.

        Args:
            weights_dir: the folder that holds `liveportrait/` (and `insightface/`).
            device: where torch runs: `cpu`, `cuda`, `cuda:1`, `mps`.
            dtype: of W and G: `float32`, `bfloat16` or `float16`.
            fast: False gives the plain eager networks, under autocast where dtype is a half.

        Raises:
            CheckpointError: a file is missing, damaged, or not the one it should be.
            ConfigError: an unknown dtype.
        """
        if dtype not in DTYPES:
            raise ConfigError("dtype", f"{dtype!r} is not one of {', '.join(DTYPES)}")
        return cls(load_networks(Path(weights_dir)), torch.device(device), DTYPES[dtype], fast)

    @torch.inference_mode()
    def extract_motion(self, image: Tensor) -> Motion:
        """M: pose, expression and canonical keypoints of a (B, 3, 256, 256) picture."""
        return keypoints.refine(self._motion(self._take(image)))

    @torch.inference_mode()
    def extract_appearance(self, image: Tensor) -> Tensor:
        """F: the (B, 32, 16, 64, 64) feature volume of a (B, 3, 256, 256) picture."""
        volume: Tensor = self._features(self._take(image))
        return volume

    @torch.inference_mode()
    def transform_keypoints(self, motion: Motion) -> Tensor:
        """(B, 21, 3) keypoints of the picture that a motion was extracted from."""
        return keypoints.transform_keypoints(motion)

    @torch.inference_mode()
    def stitch(self, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        """S: the driven keypoints, corrected so that the shoulders meet the source's."""
        source, driving = self._take(kp_source), self._take(kp_driving)
        offsets = self._stitching(torch.cat((source.flatten(1), driving.flatten(1)), dim=1))
        return keypoints.apply_stitching(driving, offsets)

    @torch.inference_mode()
    def retarget_eyes(self, kp_source: Tensor, ratios: Tensor) -> Tensor:
        """R_eye: (B, 21, 3) offsets that open or close the eyes.

        Args:
            ratios: (B, 3) the source's left and right eye ratio, and the ratio wanted.
        """
        return self._retarget(self._eye, kp_source, ratios)

    @torch.inference_mode()
    def retarget_lips(self, kp_source: Tensor, ratios: Tensor) -> Tensor:
        """R_lip: (B, 21, 3) offsets that open or close the lips.

        Args:
            ratios: (B, 2) the source's lip ratio and the ratio wanted.
        """
        return self._retarget(self._lip, kp_source, ratios)

    @torch.inference_mode()
    def warp(self, feature: Tensor, *, kp_source: Tensor, kp_driving: Tensor) -> Warped:
        """W: occlusion (B, 1, 64, 64), deformation (B, 16, 64, 64, 3), out (B, 256, 64, 64)."""
        arguments = (self._take(feature), self._take(kp_source), self._take(kp_driving))

        def one(feature: Tensor, kp_source: Tensor, kp_driving: Tensor) -> Warped:
            return self._engine.warp(self._engine.prepare(feature, kp_source), kp_driving)

        warped = [one(*(t[None] for t in each)) for each in zip(*arguments, strict=True)]
        return Warped(*(torch.cat(parts) for parts in zip(*warped, strict=True)))

    @torch.inference_mode()
    def decode(self, features: Tensor) -> Tensor:
        """G: (B, 256, 64, 64) features to the (B, 3, 512, 512) picture in [0, 1]."""
        return torch.cat([self._engine.decode(one[None]) for one in self._take(features)])

    def _make_engine(self, dtype: torch.dtype) -> Engine:
        warping = self._networks.warping_module
        generator = self._networks.spade_generator
        if self.fast:
            return FastEngine(warping, generator, dtype, self.device)
        return PlainEngine(warping.to(self.device), generator.to(self.device), dtype, self.device)

    def _take(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, torch.float32)

    def _retarget(
        self, network: Callable[[Tensor], Tensor], kp_source: Tensor, ratios: Tensor
    ) -> Tensor:
        source = self._take(kp_source).flatten(1)
        return network(torch.cat((source, self._take(ratios)), dim=1)).reshape(-1, KEYPOINTS, 3)
