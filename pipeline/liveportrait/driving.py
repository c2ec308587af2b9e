"""Recorded motion to driven keypoints of a still picture (specification 6.3).

On this path tz is left out. Stitching comes after it; then `amplified`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from pipeline.liveportrait.keypoints import Motion, pose, without_depth
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


# (21, 3), specification 8.4: data of the MIT-licensed reference.
LIP_ARRAY: Final = np.array(
    (
        (-9.4524e-05, 0.00024222, -4.00974e-05),
        (0.000208596, 0.000468054, 1.27464e-05),
        (-0.000124602, 0.000324972, 4.425e-06),
        (0.000119652, -0.000456624, 5.40852e-05),
        (-0.000265254, -7.4598e-05, -1.5528e-05),
        (-3.34884e-05, -0.000183036, -3.49404e-06),
        (-4.75428e-07, -4.52466e-07, 1.59498e-06),
        (-0.000541296, 0.0026328, 7.2486e-06),
        (-1.1694e-05, 5.00502e-06, 9.9888e-06),
        (8.0286e-07, 5.19132e-06, -0.000409344),
        (0.000166878, -1.9815e-05, -8.8548e-05),
        (-1.51536e-05, 8.2506e-05, 5.94012e-06),
        (-2.61054e-07, 2.7591e-06, 2.21028e-06),
        (-6.6282e-05, -6.8286e-05, -3.45318e-06),
        (-0.00083262, -0.00179592, -2.59176e-06),
        (6.9714e-06, 3.65514e-05, -1.8978e-06),
        (-4.80876e-06, 7.1148e-06, -1.03236e-05),
        (-0.00063684, -0.0011661, 5.62314e-05),
        (0.00028329, -1.45656e-05, 1.09746e-05),
        (-4.16022e-06, -0.0150906, -0.0025494),
        (0.000222474, 0.00562788, 0.00272646),
    )
)
