"""Sliders to driven keypoints of a still picture, before stitching (specification 6.2 and 7).

Both paths keep tz, so that with every slider neutral the driven keypoints still differ from
the source's by tz on the z axis: so do the editors that these tables come from.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.liveportrait.controls import Offsets, table
from pipeline.liveportrait.keypoints import Motion, pose, rotation_matrix

_TORSO = 5


def retargeted(motion: Motion, values: Mapping[str, float]) -> Tensor:
    """(1, 21, 3) driven keypoints of the retargeting editor.

    mov_z scale (kp R' + exp + delta) + t, without what the eye and lip networks add:
    expression and sliders stay in the camera's frame.

    Args:
        motion: the source's, of one picture.
        values: sliders of the `retarget` table.
    """
    offsets = table("retarget").offsets(values)
    return pose(
        motion.kp,
        _turned(motion, offsets),
        motion.exp + _delta(motion, offsets),
        motion.scale * values.get("mov_z", 1.0),
        motion.t,
    )


def expression_edited(motion: Motion, values: Mapping[str, float]) -> Tensor:
    """(1, 21, 3) driven keypoints of the expression-editor node.

    scale ((kp + exp + delta) R') + t: expression and sliders turn with the head. The source's
    expression counts by `src_ratio`, except at the keypoint that holds the torso.
    """
    offsets = table("expression_editor").offsets(values)
    share = torch.full_like(motion.exp, values.get("src_ratio", 1.0))
    share[:, _TORSO] = 1.0
    moved = motion.kp + motion.exp * share + _delta(motion, offsets)
    nothing = torch.zeros_like(moved)
    return pose(moved, _turned(motion, offsets), nothing, motion.scale, motion.t)


def _turned(motion: Motion, offsets: Offsets) -> Tensor:
    return rotation_matrix(
        motion.pitch + offsets.pitch, motion.yaw + offsets.yaw, motion.roll + offsets.roll
    )


def _delta(motion: Motion, offsets: Offsets) -> Tensor:
    return torch.from_numpy(offsets.delta).to(motion.exp)
