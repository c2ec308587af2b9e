"""LivePortrait inference in PyTorch: the released checkpoints, in process.

    from pipeline.liveportrait import LivePortrait

    model = LivePortrait.load(weights_dir, device="cpu", dtype="float32", fast=True)
    motion = model.extract_motion(image)                # pitch, yaw, roll, t, exp, scale, kp
    feature = model.extract_appearance(image)           # (1, 32, 16, 64, 64)
    x_s = model.transform_keypoints(motion)             # (1, 21, 3)
    x_d = model.stitch(x_s, x_s + offsets)              # offsets: sliders, retarget_eyes, ...
    warped = model.warp(feature, kp_source=x_s, kp_driving=x_d)
    picture = model.decode(warped.out)                  # (1, 3, 512, 512) in [0, 1]

    portrait = load_portrait(file).portrait             # of `pipeline.portrait`
    source = SourceFinder(weights_dir).find(portrait)   # of `source`: size and points, no torch
    prepared = model.prepare(                           # once per portrait
        source.portrait, points=source.points, ratio_points=source.ratio_points
    )
    controls = FaceControls.of(jawOpen=0.4, yaw=5.0)    # of `pipeline.types`
    frame = model.render(prepared, controls)            # (H, W, 3) uint8, pasted back

Around it: `load(..., compile=False, memory_share=None)`, `warmup()`, `begin(prepared, controls)`
(a frame whose `picture()` is fetched later, so that the next may be begun meanwhile),
`fallback_reasons`, `overflows` and `close()`. Tensors may be of any floating-point type, any
strides and any batch size B; others raise `errors.ArgumentError`, which is a ValueError. Memory
that runs out and devices that are lost raise `OutOfMemoryError` and `DeviceLostError` of
`pipeline.errors`.

The networks, checkpoint layout, keypoint maths and tables follow the project's specification of
LivePortrait's inference (paper: arXiv 2407.03168); section numbers in docstrings are its.
Importing the package does not import torch; touching `LivePortrait` or `Motion` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.liveportrait.keypoints import Motion
    from pipeline.liveportrait.model import LivePortrait

__all__ = ["LivePortrait", "Motion"]


def __getattr__(name: str) -> Any:
    if name == "LivePortrait":
        from pipeline.liveportrait.model import LivePortrait

        return LivePortrait
    if name == "Motion":
        from pipeline.liveportrait.keypoints import Motion

        return Motion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
