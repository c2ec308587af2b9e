"""Keypoint maths of specification 3.2, 3.5 and 4: heads, rotation, source and driven keypoints.

Angles are degrees; keypoints are (B, 21, 3) float32 as (x right, y down, z into the picture).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

KEYPOINTS = 21
_BIN_DEG = 3.0
_FIRST_BIN_DEG = -97.5


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What the motion extractor sees in a picture; all float32.

    Attributes:
        pitch, yaw, roll: (B, 1) degrees.
        t: (B, 3) translation (tx, ty, tz).
        exp: (B, 21, 3) expression offsets, added after the rotation.
        scale: (B, 1).
        kp: (B, 21, 3) canonical keypoints.
    """

    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    t: Tensor
    exp: Tensor
    scale: Tensor
    kp: Tensor

    @property
    def rotation(self) -> Tensor:
        """(B, 3, 3) rotation of the head, for row vectors."""
        return rotation_matrix(self.pitch, self.yaw, self.roll)


def refine(heads: Mapping[str, Tensor]) -> Motion:
    """Raw heads of M to a motion: expected angle over the bins, keypoints as 21 x 3."""
    return Motion(
        pitch=_expected_angle(heads["pitch"]),
        yaw=_expected_angle(heads["yaw"]),
        roll=_expected_angle(heads["roll"]),
        t=heads["t"].float(),
        exp=heads["exp"].float().reshape(-1, KEYPOINTS, 3),
        scale=heads["scale"].float(),
        kp=heads["kp"].float().reshape(-1, KEYPOINTS, 3),
    )


def _expected_angle(logits: Tensor) -> Tensor:
    """(B, 66) logits to (B, 1) degrees: 3 sum(i softmax_i) - 97.5 (specification 3.2)."""
    bins = torch.arange(logits.shape[1], dtype=torch.float32, device=logits.device)
    expected = (functional.softmax(logits.float(), dim=1) * bins).sum(1, keepdim=True)
    return _BIN_DEG * expected + _FIRST_BIN_DEG


def rotation_matrix(pitch: Tensor, yaw: Tensor, roll: Tensor) -> Tensor:
    """(Rz Ry Rx) transposed: `points @ rotation` turns row vectors (specification 4).

    Args:
        pitch, yaw, roll: (B, 1) degrees.

    Returns:
        (B, 3, 3) in the angles' dtype.
    """
    (cx, sx), (cy, sy), (cz, sz) = (
        (torch.cos(a), torch.sin(a)) for a in (torch.deg2rad(a[:, 0]) for a in (pitch, yaw, roll))
    )
    zero, one = torch.zeros_like(cx), torch.ones_like(cx)
    around_x = _matrix((one, zero, zero), (zero, cx, -sx), (zero, sx, cx))
    around_y = _matrix((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
    around_z = _matrix((cz, -sz, zero), (sz, cz, zero), (zero, zero, one))
    return (around_z @ around_y @ around_x).transpose(1, 2)


def _matrix(*rows: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def pose(kp: Tensor, rotation: Tensor, exp: Tensor, scale: Tensor, t: Tensor) -> Tensor:
    """scale (kp R + exp) + t, the general form of specification 4.

    Args:
        kp, exp: (B, 21, 3). rotation: (B, 3, 3). scale: (B, 1). t: (B, 3), tz included: who
            wants it left out passes it as zero.
    """
    return scale[:, None] * (kp @ rotation + exp) + t[:, None]


def without_depth(t: Tensor) -> Tensor:
    """(B, 3) translation with tz = 0."""
    return t * t.new_tensor((1.0, 1.0, 0.0))


def transform_keypoints(motion: Motion) -> Tensor:
    """(B, 21, 3) keypoints x_s of the picture; tz is not used here (specification 4)."""
    return pose(motion.kp, motion.rotation, motion.exp, motion.scale, without_depth(motion.t))


def apply_stitching(keypoints: Tensor, offsets: Tensor) -> Tensor:
    """Add S's (B, 65) answer: 63 offsets, then tx and ty for every keypoint (spec. 3.5)."""
    shift = functional.pad(offsets[:, 63:], (0, 1))
    return keypoints + offsets[:, :63].reshape(-1, KEYPOINTS, 3) + shift[:, None]
