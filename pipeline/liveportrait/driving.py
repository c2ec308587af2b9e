"""Recorded motion to driven keypoints of a still picture (specification 6.3).

On this path tz is left out. Stitching comes after it; then `amplified`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

import torch
from torch import Tensor

from pipeline.liveportrait.keypoints import Motion, pose, without_depth
from pipeline.liveportrait.neutral_lips import LIP_ARRAY
from pipeline.liveportrait.templates import MotionTemplate

LIP_KEYPOINTS: Final = (6, 12, 14, 17, 19, 20)
EYE_KEYPOINTS: Final = (11, 13, 15, 16, 18)
# Where absolute motion replaces the expression: (keypoint, axes).
_ABSOLUTE: Final = (
    *((k, (0, 1, 2)) for k in (1, 2, 6, *range(11, 21))),
    (3, (1,)), (4, (1,)), (5, (2,)), (8, (2,)), (9, (1, 2)),
)  # fmt: skip


class Region(StrEnum):
    """What of a recorded motion is taken."""

    ALL = "all"
    EXPRESSION = "exp"
    POSE = "pose"
    LIPS = "lip"
    EYES = "eyes"

    @property
    def poses(self) -> bool:
        return self in (Region.ALL, Region.POSE)


@dataclass(frozen=True, slots=True, eq=False)
class Driver:
    """One recorded frame.

    Attributes:
        rotation: (1, 3, 3) for row vectors. exp: (1, 21, 3). scale: (1, 1). t: (1, 3).
    """

    rotation: Tensor
    exp: Tensor
    scale: Tensor
    t: Tensor

    @classmethod
    def frame(cls, template: MotionTemplate, index: int) -> Self:
        """One frame of a template."""
        arrays = (template.rotation, template.exp, template.scale, template.t)
        return cls(*(torch.from_numpy(array[index : index + 1].copy()) for array in arrays))

    @classmethod
    def of(cls, motion: Motion) -> Self:
        """A motion as M sees it in a picture."""
        return cls(motion.rotation, motion.exp, motion.scale, motion.t)


def relative(source: Motion, first: Driver, frame: Driver, region: Region = Region.ALL) -> Tensor:
    """(1, 21, 3): the source, moved by how a frame differs from the first one.

    R' = R_i R_0^T R_s, exp_s + (exp_i - exp_0), scale_s scale_i / scale_0, t_s + (t_i - t_0).
    """
    rotation, scale, t = source.rotation, source.scale, source.t
    if region.poses:
        rotation = frame.rotation @ first.rotation.transpose(1, 2) @ rotation
        t = t + (frame.t - first.t)
    if region is Region.ALL:
        scale = scale * (frame.scale / first.scale)
    moved = source.exp + (frame.exp - first.exp) * _share(region, source.exp)
    return pose(source.kp, rotation, moved, scale, without_depth(t))


def absolute(source: Motion, frame: Driver, region: Region = Region.ALL) -> Tensor:
    """(1, 21, 3): a frame's pose and its expression where that is not the face's shape."""
    share = _share(region, source.exp)
    if region in (Region.ALL, Region.EXPRESSION):
        share = torch.zeros_like(share)
        for keypoint, axes in _ABSOLUTE:
            share[:, keypoint, list(axes)] = 1.0
    moved = source.exp + share * (frame.exp - source.exp)
    rotation, t = (frame.rotation, frame.t) if region.poses else (source.rotation, source.t)
    return pose(source.kp, rotation, moved, source.scale, without_depth(t))


def expression_friendly(x_s: Tensor, x_d: Tensor, x_d_first: Tensor) -> Tensor:
    """Scale relative motion by the sizes of the faces: sqrt(V(x_s) / V(x_d,0)), V the hull's."""
    factor = math.sqrt(hull_volume(x_s) / hull_volume(x_d_first))
    return x_s + factor * (x_d - x_d_first)


def hull_volume(keypoints: Tensor) -> float:
    """Volume of the convex hull of (1, 21, 3) keypoints."""
    from scipy.spatial import ConvexHull  # type: ignore[import-untyped]

    return float(ConvexHull(keypoints[0].cpu().numpy()).volume)


def amplified(x_s: Tensor, x_d: Tensor, multiplier: float) -> Tensor:
    """x_s + multiplier (x_d - x_s), the last step."""
    return x_s + multiplier * (x_d - x_s)


def neutral_lips(motion: Motion) -> Motion:
    """A motion whose expression is the closed-mouth reference (specification 8.4).

    The difference of a single driving picture is taken from this, for it has no first frame.
    """
    return replace(motion, exp=torch.from_numpy(LIP_ARRAY)[None].to(motion.exp))


def _share(region: Region, like: Tensor) -> Tensor:
    """1 where a region takes the expression, else 0."""
    if region in (Region.ALL, Region.EXPRESSION):
        return torch.ones_like(like)
    share = torch.zeros_like(like)
    chosen = {Region.LIPS: LIP_KEYPOINTS, Region.EYES: EYE_KEYPOINTS}.get(region, ())
    share[:, list(chosen)] = 1.0
    return share
