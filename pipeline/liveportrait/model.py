"""LivePortrait in process: the networks behind one small interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import numpy.typing as npt
import structlog
import torch
from torch import Tensor

from pipeline import framing
from pipeline.errors import (
    ConfigError,
    DeviceLostError,
    OutOfMemoryError,
    PortraitError,
    RenderError,
)
from pipeline.liveportrait import keypoints
from pipeline.liveportrait.arguments import (
    FEATURES,
    IMAGE,
    KEYPOINTS_SHAPE,
    VOLUME,
    of_one_batch,
    taken,
    taken_motion,
)
from pipeline.liveportrait.arkit import express
from pipeline.liveportrait.checkpoints import load_networks
from pipeline.liveportrait.crop import CROP_PX, SOURCE, Crop, Framing, PasteBack, network_input
from pipeline.liveportrait.devices import (
    device_errors,
    device_named,
    limit_memory,
    release,
    running_on,
)
from pipeline.liveportrait.drawing import Drawer, Pending
from pipeline.liveportrait.engine_maker import EngineMaker
from pipeline.liveportrait.engines import Engine
from pipeline.liveportrait.keypoints import Motion
from pipeline.liveportrait.networks import Networks
from pipeline.liveportrait.prepared import PreparedPortrait, driven_keypoints
from pipeline.liveportrait.ratios import OpenRatios
from pipeline.liveportrait.small_networks import SmallNetworks
from pipeline.liveportrait.warping_module import Warped
from pipeline.types import FaceControls, Image, Portrait

log = structlog.get_logger()

DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_HOST: Final = torch.device("cpu")


class LivePortrait:
    """The seven networks and the keypoint maths between them.

    Tensors are (B, ...) with B = 1 in practice, in any floating-point type and with any strides;
    results are float32 on the model's device. Pictures are RGB in [0, 1]; keypoints (B, 21, 3)
    are (x right, y down, z into the picture). Only W and G run in the chosen dtype: F and M run
    once per portrait, the small networks are tiny, and geometry in half precision would quantise
    small motions. A tensor of another shape raises ArgumentError.

    Memory: the device holds F, M and the small networks in float32 (120 MB) and W and G in the
    chosen dtype. The fast form in a half also keeps W's and G's float32 checkpoints in the host's
    memory (390 MB), for the wider types that an overflow asks for; each of those is made when it
    is first needed, which takes seconds.

    One thread may use an instance at a time.
    """

    def __init__(
        self,
        networks: Networks,
        device: torch.device,
        dtype: torch.dtype,
        fast: bool,
        compile: bool = False,  # noqa: A002
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.fast = fast
        # F convolves volumes, which torch hardly supports on MPS; it runs once per portrait.
        self._features_device = _HOST if device.type == "mps" else device
        self._features = networks.appearance_feature_extractor.to(self._features_device)
        self._motion = networks.motion_extractor.to(device)
        self._small = SmallNetworks.of(networks, device)
        self._small_here = self._small if device == _HOST else SmallNetworks.of(networks, _HOST)
        self._drawer = Drawer(EngineMaker(networks, device, dtype, fast, compile), device)
        self._drawer.engine(dtype)
        self._closed = False

    @classmethod
    def load(
        cls,
        weights_dir: Path | str,
        device: str = "cpu",
        dtype: str = "float32",
        fast: bool = True,
        *,
        compile: bool = False,  # noqa: A002
        memory_share: float | None = None,
    ) -> Self:
        """Load the released checkpoints.

        Args:
            weights_dir: the folder that holds `liveportrait/` (and `insightface/`).
            device: where torch runs: `cpu`, `cuda`, `cuda:1`, `mps`.
            dtype: of W and G: `float32`, `bfloat16` or `float16`.
            fast: False gives the plain eager networks, under autocast where dtype is a half.
            compile: hand W and G to `torch.compile`; where that fails they run as they are.
            memory_share: the most this process may take of a GPU's memory, in (0, 1].

        Raises:
            CheckpointError: a file is missing, damaged, or not the one it should be.
            ConfigError: an unknown dtype, a device that is not here, or a share that is none.
            OutOfMemoryError, DeviceLostError: what the device says.
        """
        if dtype not in DTYPES:
            raise ConfigError("dtype", f"{dtype!r} is not one of {', '.join(DTYPES)}")
        target = device_named(device)
        if memory_share is not None:
            limit_memory(target, memory_share)
        networks = load_networks(Path(weights_dir))
        with device_errors():
            return cls(networks, target, DTYPES[dtype], fast, compile)

    @property
    def overflows(self) -> int:
        """Frames that were drawn again because half precision overflowed."""
        return self._drawer.overflows

    @property
    def fallback_reasons(self) -> tuple[str, ...]:
        """Why frames are drawn slower than they could be: no CUDA graph, nothing compiled."""
        return self._drawer.fallback_reasons

    def extract_motion(self, image: Tensor) -> Motion:
        """M: pose, expression and canonical keypoints of a (B, 3, 256, 256) picture."""
        with self._working():
            return keypoints.refine(self._motion(taken("image", image, IMAGE, self.device)))

    def extract_appearance(self, image: Tensor) -> Tensor:
        """F: the (B, 32, 16, 64, 64) feature volume of a (B, 3, 256, 256) picture."""
        with self._working():
            picture = taken("image", image, IMAGE, self._features_device)
            volume: Tensor = self._features(picture)
            return volume.to(self.device)

    def transform_keypoints(self, motion: Motion) -> Tensor:
        """(B, 21, 3) keypoints of the picture that a motion was extracted from."""
        with self._working():
            return keypoints.transform_keypoints(taken_motion(motion, self.device))

    def stitch(self, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        """S: the driven keypoints, corrected so that the shoulders meet the source's."""
        with self._working():
            return self._small.stitch(kp_source, kp_driving)

    def retarget_eyes(self, kp_source: Tensor, ratios: Tensor) -> Tensor:
        """R_eye: (B, 21, 3) offsets that open or close the eyes.

        Args:
            ratios: (B, 3) the source's left and right eye ratio, and the ratio wanted.
        """
        with self._working():
            return self._small.retarget_eyes(kp_source, ratios)

    def retarget_lips(self, kp_source: Tensor, ratios: Tensor) -> Tensor:
        """R_lip: (B, 21, 3) offsets that open or close the lips.

        Args:
            ratios: (B, 2) the source's lip ratio and the ratio wanted.
        """
        with self._working():
            return self._small.retarget_lips(kp_source, ratios)

    def warp(self, feature: Tensor, *, kp_source: Tensor, kp_driving: Tensor) -> Warped:
        """W: occlusion (B, 1, 64, 64), deformation (B, 16, 64, 64, 3), out (B, 256, 64, 64)."""
        with self._working():
            parts = {
                "feature": taken("feature", feature, VOLUME, self.device),
                "kp_source": taken("kp_source", kp_source, KEYPOINTS_SHAPE, self.device),
                "kp_driving": taken("kp_driving", kp_driving, KEYPOINTS_SHAPE, self.device),
            }
            of_one_batch(**parts)
            each = zip(*(_singles(tensor) for tensor in parts.values()), strict=True)
            warped = [
                self._engine.warp(self._engine.prepare(volume, source), driving)
                for volume, source, driving in each
            ]
            return Warped(*(torch.cat(results) for results in zip(*warped, strict=True)))

    def decode(self, features: Tensor) -> Tensor:
        """G: (B, 256, 64, 64) features to the (B, 3, 512, 512) picture in [0, 1]."""
        with self._working():
            batch = _singles(taken("features", features, FEATURES, self.device))
            return torch.cat([self._engine.decode(one) for one in batch])

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
            OutOfMemoryError, DeviceLostError: what the device says.
        """
        landmarks = portrait.landmarks.points
        try:
            crop = Crop.around(landmarks if points is None else points, framing)
            ratios = OpenRatios.of(landmarks if ratio_points is None else ratio_points)
        except ValueError as error:
            raise PortraitError(portrait.name, f"its landmarks: {error}", no_face=True) from error
        with self._working():
            image = torch.from_numpy(network_input(crop.cut(portrait.image)))
            motion = taken_motion(self.extract_motion(image), _HOST)
            prepared = PreparedPortrait(
                portrait=portrait,
                motion=motion,
                keypoints=keypoints.transform_keypoints(motion),
                feature=self.extract_appearance(image),
                ratios=ratios,
                paste=PasteBack(portrait.image, crop),
                dtype=self.dtype,
            )
            self._drawer.source(prepared, self.dtype)
            return prepared

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
            size_px: (width, height); the picture's own size if not given. The picture fills
                it, with the face in the middle where it is larger.
            whole: paste the face back into the portrait; else the crop alone, 512 x 512.

        Returns:
            (height, width, 3) uint8 RGB, the caller's own.

        Raises:
            BadFrameError: not even float32 gave finite numbers.
            OutOfMemoryError, DeviceLostError: what the device says.
        """
        return self.begin(prepared, controls, size_px, whole=whole).picture()

    def begin(
        self,
        prepared: PreparedPortrait,
        controls: FaceControls,
        size_px: tuple[int, int] | None = None,
        *,
        whole: bool = True,
    ) -> Pending:
        """Start drawing one face; as `render`, which is this and then `Pending.picture`.

        On CUDA this returns while the device draws. Who begins the next frame before fetching
        this one has its way to the host go on beside it.
        """
        with self._working():
            kp_driving = driven_keypoints(self._small_here, prepared, express(controls))
            drawing = self._drawer.begin(prepared, kp_driving)
        return Pending(
            drawing,
            self._working,
            prepared.paste if whole else None,
            None if size_px is None else _filling(size_px, prepared.portrait if whole else None),
        )

    def warmup(self) -> None:
        """Run everything once, so that the first real frame takes no longer than later ones.

        Loads the device's libraries, lets cuDNN choose its kernels, compiles, captures the graph.
        """
        with self._working():
            image = torch.zeros(1, *IMAGE)
            self.extract_motion(image)
            rest = torch.zeros(1, *KEYPOINTS_SHAPE)
            for small in (self._small, self._small_here):
                small.stitch(rest, rest)
                small.retarget_eyes(rest, torch.zeros(1, 3))
                small.retarget_lips(rest, torch.zeros(1, 2))
            source = self._engine.prepare(self.extract_appearance(image), rest.to(self.device))
            self._drawer.path(self.dtype).begin(source, rest).array()

    def close(self) -> None:
        """Let go of weights, buffers and graphs; idempotent. Everything else raises afterwards.

        Prepared portraits hold memory of their own until they are let go of. A device that is
        lost is no obstacle.
        """
        if self._closed:
            return
        self._closed = True
        del self._features, self._motion, self._small, self._small_here
        try:
            with device_errors():
                self._drawer.close()
                release(self.device)
        except (DeviceLostError, OutOfMemoryError) as error:
            log.warning("close_incomplete", reason=str(error))

    @property
    def _engine(self) -> Engine:
        return self._drawer.engine(self.dtype)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """What holds while anything is calculated.

        Raises:
            RenderError: this is closed.
        """
        if self._closed:
            raise RenderError("this LivePortrait is closed")
        with torch.inference_mode(), device_errors(), running_on(self.device):
            yield


def _filling(size_px: tuple[int, int], portrait: Portrait | None) -> framing.Framing:
    """How a portrait, or a crop alone, fills a frame."""
    if portrait is None:
        return framing.Framing.middle((CROP_PX, CROP_PX), size_px)
    return framing.Framing.of(portrait, size_px)


def _singles(batch: Tensor) -> list[Tensor]:
    """Every element as a batch of one."""
    return [batch[i : i + 1] for i in range(len(batch))]
