"""Tiny ONNX networks with the names, shapes and types of the released face networks.

What they see is built in, apart from what a test asks for, so that the code around the networks
can be checked to the pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BUFFALO = Path("insightface") / "models" / "buffalo_l"
DETECTOR = BUFFALO / "det_10g.onnx"
LANDMARKS_106 = BUFFALO / "2d106det.onnx"
LANDMARKS_203 = Path("liveportrait") / "landmark.onnx"

STRIDES = (8, 16, 32)
DETECTOR_OUTPUTS = ("448", "471", "494", "451", "474", "497", "454", "477", "500")


def write_detector(
    weights_dir: Path,
    faces: Sequence[tuple[tuple[float, float, float, float], float]] = (),
    *,
    at: tuple[float, float] | None = None,
    red: bool = False,
    **changes: Any,
) -> Path:
    """A `det_10g.onnx` that sees given faces, and red ones if asked to.

    Args:
        faces: (left, top, right, bottom) in pixels of the 512 x 512 canvas, and the score.
        at: the place that sees them; their middle if not given.
        red: every cell of 32 x 32 pixels scores by how much redder than blue it is, and is the
            middle of a box of 64 x 96.
        changes: what differs from the released network's form; see `_write`.
    """
    outputs = _nothing_seen()
    for box, score in faces:
        _see(outputs, box, score, at or ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    nodes, computed = [], {}
    if red:
        outputs[DETECTOR_OUTPUTS[5]][:] = (1.0, 1.5, 1.0, 1.5)
        nodes = _red_cells()
        computed = {DETECTOR_OUTPUTS[2]: "redness"}
    form = {"name": "input.1", "shape": (1, 3, "?", "?")} | changes
    return _write(weights_dir / DETECTOR, outputs, nodes=nodes, computed=computed, **form)


def write_landmarks_106(
    weights_dir: Path, points: npt.ArrayLike, *, tints: bool = False, **changes: Any
) -> Path:
    """A `2d106det.onnx` that places (106, 2) points, in shares of its input's side.

    Args:
        tints: x rises by the mean of red over 10,000 and y by that of blue.
        changes: see `_write`.
    """
    flat = (2 * np.asarray(points, np.float32).reshape(1, -1) - 1).astype(np.float32)
    nodes = [
        # The first nodes by whose names the package knows that raw levels go in.
        ("Sub", ["data", "level"], "centred", "_minus0"),
        ("Mul", ["centred", "gain"], "scaled", "_mul0"),
    ]
    constants = {"level": np.float32(0), "gain": np.float32(1e-4)}
    computed = {}
    if tints:
        matrix = np.zeros((3, flat.size), np.float32)
        matrix[0, ::2] = matrix[2, 1::2] = 2.0  # the side is 2 long: -1 to 1
        constants |= {"matrix": matrix, "places": flat}
        nodes += [
            ("GlobalAveragePool", ["scaled"], "mean", ""),
            ("Flatten", ["mean"], "means", ""),
            ("MatMul", ["means", "matrix"], "tint", ""),
            ("Add", ["tint", "places"], "tinted", ""),
        ]
        computed = {"fc1": "tinted"}
    form = {"name": "data", "shape": ("None", 3, 192, 192), "declared": {"fc1": (1, 212)}} | changes
    file = weights_dir / LANDMARKS_106
    return _write(file, {"fc1": flat}, nodes=nodes, constants=constants, computed=computed, **form)


def write_landmarks_203(weights_dir: Path, points: npt.ArrayLike, **changes: Any) -> Path:
    """A `landmark.onnx` that places (203, 2) points, in shares of its input's side."""
    outputs = {
        "output": np.zeros((1, 214), np.float32),
        "853": np.zeros((1, 262), np.float32),
        "856": np.asarray(points, np.float32).reshape(1, -1),
    }
    form = {"name": "input", "shape": (1, 3, 224, 224)} | changes
    return _write(weights_dir / LANDMARKS_203, outputs, **form)


def _nothing_seen() -> dict[str, Array]:
    rows = [2 * (512 // stride) ** 2 for stride in STRIDES]
    shapes = [(count, columns) for columns in (1, 4, 10) for count in rows]
    return {n: np.zeros(s, np.float32) for n, s in zip(DETECTOR_OUTPUTS, shapes, strict=True)}


def _see(
    outputs: Mapping[str, Array], box: Sequence[float], score: float, at: tuple[float, float]
) -> None:
    """Both anchors of a place's cell, as a detector would: the second a little less sure."""
    left, top, right, bottom = box
    column, row = int(at[0] / 32), int(at[1] / 32)
    for anchor in (0, 1):
        index = 2 * (row * 16 + column) + anchor
        x, y = 32 * column, 32 * row
        outputs[DETECTOR_OUTPUTS[2]][index] = score - 0.05 * anchor
        distances = np.array([x - left, y - top, right - x, bottom - y]) / 32
        outputs[DETECTOR_OUTPUTS[5]][index] = distances


def _red_cells() -> list[Any]:
    return [
        ("AveragePool", ["input.1"], "cells", "", {"kernel_shape": [32, 32], "strides": [32, 32]}),
        ("Mul", ["cells", "red_not_blue"], "parts", ""),
        ("ReduceSum", ["parts", "channels"], "sums", "", {"keepdims": 1}),
        ("Reshape", ["sums", "column"], "per_cell", ""),
        ("Tile", ["per_cell", "anchors"], "pairs", ""),
        ("Reshape", ["pairs", "rows"], "redness", ""),
    ]


_RED_CONSTANTS = {
    "red_not_blue": np.array([0.5, 0, -0.5], np.float32).reshape(1, 3, 1, 1),
    "channels": np.array([1], np.int64),
    "column": np.array([256, 1], np.int64),
    "anchors": np.array([1, 2], np.int64),
    "rows": np.array([512, 1], np.int64),
}


def _write(
    file: Path,
    outputs: Mapping[str, Array],
    *,
    name: str,
    shape: Sequence[int | str],
    nodes: Sequence[Any] = (),
    constants: Mapping[str, Any] | None = None,
    computed: Mapping[str, str] | None = None,
    declared: Mapping[str, Sequence[int | str]] | None = None,
    dtype: str = "FLOAT",
    dropped: int = 0,
    output_dtype: str = "FLOAT",
) -> Path:
    """A network whose outputs are constants, save those that nodes compute.

    Args:
        outputs: name to value, in order.
        name, shape: of the input.
        computed: output to the tensor that it is instead of its value.
        declared: output to the shape in the file, where it is not the value's.
        dtype, output_dtype: of the input and of the outputs.
        dropped: how many of the last outputs are left out.
    """
    import onnx

    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    computed, declared = computed or {}, declared or {}
    kinds = {"FLOAT": onnx.TensorProto.FLOAT, "DOUBLE": onnx.TensorProto.DOUBLE}
    tensors = {**_RED_CONSTANTS, **(constants or {}), "zero": np.float32(0)}
    # The released networks' outputs all depend on the input.
    steps = [("GlobalMaxPool", [name], "brightest", ""), ("ReduceMax", ["brightest"], "most", "",
             {"keepdims": 0}), ("Mul", ["most", "zero"], "nothing", ""), *nodes]  # fmt: skip
    if dtype == "DOUBLE":
        steps = [("Cast", [name], "single", "", {"to": kinds["FLOAT"]}), *steps]
        steps = [(s[0], ["single" if i == name and s[0] != "Cast" else i for i in s[1]], *s[2:])
                 for s in steps]  # fmt: skip
    kept = list(outputs)[: len(outputs) - dropped]
    for index, output in enumerate(kept):
        tensors[f"value{index}"] = outputs[output]
        source = computed.get(output, f"value{index}")
        if output_dtype == "FLOAT":
            steps.append(("Add", [source, "nothing"], output, ""))
        else:
            steps += [
                ("Add", [source, "nothing"], f"sum{index}", ""),
                ("Cast", [f"sum{index}"], output, "", {"to": kinds[output_dtype]}),
            ]
    used = {each for step in steps for each in step[1]}
    graph = helper.make_graph(
        [
            helper.make_node(s[0], s[1], [s[2]], name=s[3], **(s[4] if len(s) > 4 else {}))
            for s in _in_order(steps)
        ],
        file.stem,
        [helper.make_tensor_value_info(name, kinds[dtype], shape)],
        [
            helper.make_tensor_value_info(
                each, kinds[output_dtype], declared.get(each, outputs[each].shape)
            )
            for each in kept
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items() if k in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)
    return file


def _in_order(steps: Sequence[Any]) -> list[Any]:
    """Named nodes first: the package looks at the names of the first few."""
    return sorted(steps, key=lambda step: not step[3])
