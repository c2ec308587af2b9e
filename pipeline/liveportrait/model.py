"""LivePortrait in process: the networks behind one small interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.errors import BadFrameError, ConfigError, PortraitError
from pipeline.liveportrait import keypoints
from pipeline.liveportrait.arkit import express
from pipeline.liveportrait.checkpoints import load_networks
from pipeline.liveportrait.crop import SOURCE, Crop, Framing, PasteBack, fitted, network_input
from pipeline.liveportrait.engines import Engine, FastEngine, PlainEngine
from pipeline.liveportrait.keypoints import KEYPOINTS, Motion
from pipeline.liveportrait.networks import Networks
from pipeline.liveportrait.prepared import PreparedPortrait, driven_keypoints
from pipeline.liveportrait.ratios import OpenRatios
from pipeline.liveportrait.warping_module import Warped
from pipeline.types import FaceControls, Image, Portrait

DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_MOST_OVERFLOWS: Final = 3


class LivePortrait:
    """The seven networks and the keypoint maths between them.

    Tensors are (B, ...) with B = 1 in practice, results float32 on the model's device. Pictures
    are RGB in [0, 1]; keypoints (B, 21, 3) are (x right, y down, z into the picture). Only W and
    G run in the chosen dtype: F and M run once per portrait, the small networks are tiny, and
    geometry in half precision would quantise small motions.

    One thread may use an instance at a time.

    Attributes:
        overflows: frames that were drawn again because half precision overflowed.
    """

    def __init__(
        self, networks: Networks, device: torch.device, dtype: torch.dtype, fast: bool
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.fast = fast
        self._networks: Networks | None = networks
        self._features = networks.appearance_feature_extractor.to(device)
        self._motion = networks.motion_extractor.to(device)
        self._stitching = networks.stitching.to(device)
        self._eye, self._lip = networks.eye.to(device), networks.lip.to(device)
        self._engines = {dtype: self._make_engine(dtype)}
        self._engine = self._engines[dtype]
        if fast and dtype == torch.float32:
            self._networks = None  # nothing wider will be asked for: 390 MB less
        self.overflows = 0

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

    @torch.inference_mode()
    def prepare(
        self,
        portrait: Portrait,
        *,
        points: npt.ArrayLike | None = None,
        ratio_points: npt.ArrayLike | None = None,
        framing: Framing = SOURCE,
    ) -> PreparedPortrait:
        """Do what depends on the portrait alone.

        Args:
            portrait: picture and 68 landmarks.
            points: (106, 2), (203, 2) or (68, 2) pixels that the crop is made from; the
                portrait's landmarks if not given.
            ratio_points: (203, 2) or (68, 2) pixels that tell how far eyes and lips are open;
                the portrait's landmarks if not given.
            framing: how the crop lies around the face.

        Raises:
            PortraitError: the points do not frame a face.
        """
        landmarks = portrait.landmarks.points
        try:
            crop = Crop.around(landmarks if points is None else points, framing)
            ratios = OpenRatios.of(landmarks if ratio_points is None else ratio_points)
        except ValueError as error:
            raise PortraitError(portrait.name, f"its landmarks: {error}", no_face=True) from error
        image = torch.from_numpy(network_input(crop.cut(portrait.image)))
        motion = self.extract_motion(image)
        return PreparedPortrait(
            portrait=portrait,
            motion=motion,
            keypoints=self.transform_keypoints(motion),
            feature=self.extract_appearance(image),
            ratios=ratios,
            paste=PasteBack(portrait.image, crop),
            dtype=self.dtype,
        )

    @torch.inference_mode()
    def render(
        self,
        prepared: PreparedPortrait,
        controls: FaceControls,
        size_px: tuple[int, int] | None = None,
        *,
        whole: bool = True,
    ) -> Image:
        """Draw one face.

        Args:
            prepared: a portrait of this model.
            controls: zero controls give the portrait's own face.
            size_px: (width, height); the picture's own size if not given. The middle of the
                picture fills it.
            whole: paste the face back into the portrait; else the crop alone, 512 x 512.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            BadFrameError: not even float32 gave finite numbers.
        """
        kp_driving = driven_keypoints(self, prepared, express(controls))
        drawn = self._draw(prepared, kp_driving)
        picture = prepared.paste(drawn) if whole else drawn
        return picture if size_px is None else fitted(picture, size_px)

    def _draw(self, prepared: PreparedPortrait, kp_driving: Tensor) -> Image:
        """(512, 512, 3) uint8; in float32 where the portrait's dtype overflows."""
        image = self._run(prepared, kp_driving, prepared.dtype)
        if not torch.isfinite(image).all():
            if prepared.dtype != torch.float32:
                image = self._run(prepared, kp_driving, torch.float32)
                self._count_overflow(prepared)
            if not torch.isfinite(image).all():
                raise BadFrameError("the drawn face holds numbers that are not finite")
        levels = image[0].clamp_(0, 1).mul_(255).to(torch.uint8)
        return levels.permute(1, 2, 0).contiguous().cpu().numpy()

    def _run(self, prepared: PreparedPortrait, kp_driving: Tensor, dtype: torch.dtype) -> Tensor:
        if dtype not in self._engines:
            self._engines[dtype] = self._make_engine(dtype)
        engine = self._engines[dtype]
        if dtype not in prepared.sources:
            prepared.sources[dtype] = engine.prepare(prepared.feature, prepared.keypoints)
        return engine.decode(engine.warp(prepared.sources[dtype], kp_driving).out)

    def _count_overflow(self, prepared: PreparedPortrait) -> None:
        """After three overflows a portrait leaves float16 for bfloat16, bfloat16 for float32."""
        self.overflows += 1
        prepared.overflows += 1
        if prepared.overflows % _MOST_OVERFLOWS == 0:
            wider = prepared.dtype == torch.float16
            prepared.dtype = torch.bfloat16 if wider else torch.float32

    def _make_engine(self, dtype: torch.dtype) -> Engine:
        assert self._networks is not None
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
