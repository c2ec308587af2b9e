"""A portrait as LivePortrait keeps it, and the driven keypoints of a face on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor

from pipeline.liveportrait.arkit import Expression
from pipeline.liveportrait.crop import PasteBack
from pipeline.liveportrait.editing import retargeted
from pipeline.liveportrait.engines import SourceState, memory
from pipeline.liveportrait.keypoints import Motion
from pipeline.liveportrait.ratios import OpenRatios
from pipeline.types import Portrait

LARGEST_RATIO: Final = 0.8  # of the retargeting networks' target sliders, specification 7.1
# Keypoints of one eye and of the other (specification 7.1); which lies where differs by face.
_ONE_EYE: Final = (11, 13)
_OTHER_EYE: Final = (15, 16)
# From this distance of a keypoint on, stitching counts in full.
_FULL_CORRECTION: Final = 0.01
# The same for an opening and the eye and lip networks' answers.
_FULL_ANSWER: Final = 0.25


@dataclass(slots=True, eq=False)
class PreparedPortrait:
    """What does not change while a portrait is shown.

    Attributes:
        portrait: the portrait itself.
        motion: M's, of its crop. keypoints: (1, 21, 3), x_s. Both on the CPU, where driven
            keypoints are worked out.
        feature: F's volume, on the device.
        ratios: how far its eyes and lips are open.
        paste: puts a drawn crop back into it.
        dtype: what W and G run in for this portrait.
        overflows: how often that gave numbers that are not finite.
        sources: what the engines keep, by dtype.
    """

    portrait: Portrait
    motion: Motion
    keypoints: Tensor
    feature: Tensor
    ratios: OpenRatios
    paste: PasteBack
    dtype: torch.dtype
    overflows: int = 0
    sources: dict[torch.dtype, SourceState] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Memory held on the device and on the host, the portrait's own picture included."""
        sources = [tensor for state in self.sources.values() for tensor in state.tensors]
        tensors = memory((self.feature, self.keypoints, *sources))
        return tensors + self.paste.bytes + self.portrait.image.nbytes


class Corrector(Protocol):
    """The small networks, as `LivePortrait` offers them."""

    def stitch(self, kp_source: Tensor, kp_driving: Tensor) -> Tensor: ...
    def retarget_eyes(self, kp_source: Tensor, ratios: Tensor) -> Tensor: ...
    def retarget_lips(self, kp_source: Tensor, ratios: Tensor) -> Tensor: ...


def driven_keypoints(
    networks: Corrector, prepared: PreparedPortrait, expression: Expression
) -> Tensor:
    """(1, 21, 3) keypoints of an expression, stitched (specification 6.2).

    A face without any expression has exactly the portrait's keypoints: tz is left out as on the
    video path, and what a network answers for the resting face is taken away from its answer,
    less and less as the face leaves rest, so that nothing jumps.
    """
    x_s = prepared.keypoints
    rest = retargeted(prepared.motion, {})
    moved = x_s + (retargeted(prepared.motion, expression.sliders) - rest)
    moved = moved + _lids(networks, prepared, expression) + _lips(networks, prepared, expression)
    departure = float((moved - x_s).abs().max())
    if departure == 0.0:
        return x_s
    resting = max(0.0, 1.0 - departure / _FULL_CORRECTION)
    stitched = networks.stitch(x_s, moved)
    return stitched - resting * (networks.stitch(x_s, x_s) - x_s) if resting else stitched


def target_ratio(own: float, opening: float) -> float:
    """A ratio from an opening: 0 when closed, the portrait's own at 0, the largest at 1."""
    if opening < 0.0:
        return own * (1.0 + opening)
    return own + opening * max(LARGEST_RATIO - own, 0.0)


def _lips(networks: Corrector, prepared: PreparedPortrait, expression: Expression) -> Tensor:
    own = prepared.ratios.lips

    def answer(target: float) -> Tensor:
        return networks.retarget_lips(prepared.keypoints, torch.tensor([[own, target]]))

    return _from_rest(answer, own, expression.lips, prepared.keypoints)


def _lids(networks: Corrector, prepared: PreparedPortrait, expression: Expression) -> Tensor:
    """Both eyes' offsets; where they differ, each eye's keypoints follow their own."""
    ratios = prepared.ratios
    own = (ratios.left_eye + ratios.right_eye) / 2

    def answer(target: float) -> Tensor:
        sides = [[ratios.left_eye, ratios.right_eye, target]]
        return networks.retarget_eyes(prepared.keypoints, torch.tensor(sides))

    left = _from_rest(answer, own, expression.left_eye, prepared.keypoints)
    if expression.left_eye == expression.right_eye:
        return left
    right = _from_rest(answer, own, expression.right_eye, prepared.keypoints)
    offsets = (left + right) / 2
    one_is_left = bool(prepared.keypoints[0, 11, 0] > prepared.keypoints[0, 15, 0])
    one, other = (left, right) if one_is_left else (right, left)
    for keypoints, source in ((_ONE_EYE, one), (_OTHER_EYE, other)):
        offsets[:, list(keypoints)] = source[:, list(keypoints)]
    return offsets


def _from_rest(
    answer: Callable[[float], Tensor], own: float, opening: float, like: Tensor
) -> Tensor:
    """A retargeting network's offsets, which fade to zero with the opening."""
    if opening == 0.0:
        return torch.zeros_like(like)
    offsets = answer(target_ratio(own, opening))
    resting = 1.0 - abs(opening) / _FULL_ANSWER
    return offsets - resting * answer(own) if resting > 0.0 else offsets
