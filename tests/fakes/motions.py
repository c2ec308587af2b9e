"""Recorded motions of known faces, as LivePortrait would see them on one person."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.liveportrait.arkit import express
from pipeline.liveportrait.controls import table
from pipeline.liveportrait.templates import MotionTemplate
from pipeline.types import FaceControls, Float32Array

EYE_RATIO = 0.35
LIP_RATIO = 0.06
LARGEST_RATIO = 0.8


def recorded(*faces: FaceControls, ratios: bool = True) -> MotionTemplate:
    """A frame for each face, over somebody's resting face and head pose.

    Sliders move keypoints; openings show in the ratios alone, for no network is asked.
    """
    rest = np.random.default_rng(0).normal(size=(21, 3)) * 0.01
    seen = [express(face) for face in faces]
    moved = [table("retarget").offsets(each.sliders).delta for each in seen]
    base = turned(4.0, -7.0, 2.0)
    turns = [turned(face.pitch, face.yaw, face.roll) @ base for face in faces]
    # The character's right eye is at the image's left.
    eyes = [[ratio(EYE_RATIO, e.right_eye), ratio(EYE_RATIO, e.left_eye)] for e in seen]
    lips = [[ratio(LIP_RATIO, e.lips)] for e in seen]
    return MotionTemplate(
        fps=25,
        scale=np.full((len(faces), 1), 1.5, np.float32),
        rotation=as_float32(turns),
        exp=as_float32([rest + each for each in moved]),
        t=np.full((len(faces), 3), 0.01, np.float32),
        eyes=as_float32(eyes) if ratios else None,
        lips=as_float32(lips) if ratios else None,
    )


def with_offsets(offsets: Float32Array, eyes: Any = None, lips: Any = None) -> MotionTemplate:
    """A resting frame and one whose expression is moved by (21, 3) offsets."""
    still = recorded(FaceControls(), FaceControls(), ratios=False)
    exp = still.exp + np.stack([np.zeros_like(offsets), offsets])
    ratios = {"eyes": eyes, "lips": lips}
    given = {name: as_float32(value) for name, value in ratios.items() if value is not None}
    return MotionTemplate(25, still.scale, still.rotation, as_float32(exp), still.t, **given)


def ratio(own: float, opening: float) -> float:
    return own * (1 + opening) if opening < 0 else own + opening * (LARGEST_RATIO - own)


def turned(pitch: float, yaw: float, roll: float) -> Any:
    """(Rz Ry Rx) transposed, degrees (specification 4)."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.radians((pitch, yaw, roll))) for f in (np.cos, np.sin))
    around_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (around_z @ around_y @ around_x).T


def as_float32(values: Sequence[Any] | Any) -> Float32Array:
    return np.asarray(values, np.float32)


def pickled(path: Path, motion: MotionTemplate) -> Path:
    """The same motion as the reference would write it."""
    frames = range(len(motion))
    content: dict[str, Any] = {
        "n_frames": len(motion),
        "output_fps": motion.fps,
        "motion": [
            {
                "scale": motion.scale[i : i + 1],
                "R": motion.rotation[i : i + 1],
                "exp": motion.exp[i : i + 1],
                "t": motion.t[i : i + 1],
            }
            for i in frames
        ],
    }
    if motion.eyes is not None and motion.lips is not None:
        content["c_eyes_lst"] = [motion.eyes[i : i + 1] for i in frames]
        content["c_lip_lst"] = [motion.lips[i : i + 1] for i in frames]
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path
