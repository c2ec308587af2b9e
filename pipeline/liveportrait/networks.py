"""The seven networks under one roof, in their plain form."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pipeline.liveportrait.appearance_feature_extractor import AppearanceFeatureExtractor
from pipeline.liveportrait.motion_extractor import MotionExtractor
from pipeline.liveportrait.spade_generator import SpadeGenerator
from pipeline.liveportrait.stitching_retargeting import (
    EYE_WIDTHS,
    LIP_WIDTHS,
    STITCHING_WIDTHS,
    KeypointMlp,
)
from pipeline.liveportrait.warping_module import WarpingModule


@dataclass(frozen=True, slots=True)
class Networks:
    """F, M, W, G, S, R_lip and R_eye, by the names their checkpoints use."""

    appearance_feature_extractor: AppearanceFeatureExtractor
    motion_extractor: MotionExtractor
    warping_module: WarpingModule
    spade_generator: SpadeGenerator
    stitching: KeypointMlp
    lip: KeypointMlp
    eye: KeypointMlp

    @classmethod
    def empty(cls) -> Networks:
        """Networks with weights that nobody has set; build them on the meta device."""
        return cls(
            AppearanceFeatureExtractor(),
            MotionExtractor(),
            WarpingModule(),
            SpadeGenerator(),
            KeypointMlp(STITCHING_WIDTHS),
            KeypointMlp(LIP_WIDTHS),
            KeypointMlp(EYE_WIDTHS),
        )

    def by_name(self) -> dict[str, nn.Module]:
        """Checkpoint name to network, in the order of the fields."""
        return {name: getattr(self, name) for name in self.__slots__}
