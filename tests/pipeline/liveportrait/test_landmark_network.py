"""The 203-point network's loading and running code, on a tiny network of the same form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.liveportrait.crop import LANDMARKS_INPUT, Crop
from pipeline.liveportrait.errors import CheckpointError
from pipeline.liveportrait.landmark_network import FILE, LandmarkNetwork

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")


def write_network(folder: Path, values: int = 406, name: str = "input", outputs: int = 3) -> None:
    """Every point is (mean of red, mean of blue) of the input."""
    helper, kinds = onnx.helper, onnx.TensorProto
    matrix = np.zeros((3, values), np.float32)
    matrix[0, ::2] = matrix[2, 1::2] = 1.0
    nodes = [
        helper.make_node("GlobalAveragePool", [name], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["means"]),
        helper.make_node("MatMul", ["means", "matrix"], ["points"]),
        helper.make_node("Identity", ["means"], ["first"]),
        helper.make_node("Identity", ["means"], ["second"]),
    ]
    shapes = {"first": (1, 3), "second": (1, 3), "points": (1, values)}
    described = [helper.make_tensor_value_info(n, kinds.FLOAT, s) for n, s in shapes.items()]
    graph = helper.make_graph(
        nodes,
        "landmark",
        [helper.make_tensor_value_info(name, kinds.FLOAT, (1, 3, 224, 224))],
        described[-outputs:],
        [onnx.numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / FILE)


def face() -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    return np.stack((200 + 60 * np.cos(angle), 210 + 70 * np.sin(angle)), axis=1)


def test_points_come_back_in_pixels_of_the_image(tmp_path: Path) -> None:
    """RGB over 255 goes in; the third output, in crop sides, is mapped back."""
    write_network(tmp_path)
    image = np.zeros((400, 400, 3), np.uint8)
    image[...] = (102, 7, 51)
    found = LandmarkNetwork(tmp_path)(image, face())
    assert found.shape == (203, 2)
    crop = Crop.around(face(), LANDMARKS_INPUT)
    expected = crop.points_in_image([[0.4 * 224, 0.2 * 224]])
    assert np.abs(found - expected).max() < 0.05


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """So that one knows what to fetch."""
    with pytest.raises(CheckpointError, match=r"landmark\.onnx.*no such file"):
        LandmarkNetwork(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """An error page is no network."""
    write_network(tmp_path)
    (tmp_path / FILE).write_bytes(b"<html>404</html>")
    with pytest.raises(CheckpointError, match="16 bytes that do not load"):
        LandmarkNetwork(tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"values": 212}, "406"),
        ({"name": "data"}, "'input'"),
        ({"outputs": 1}, "expected 3 outputs"),
    ],
)
def test_another_network_is_refused(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    """By its input's name, its number of outputs, or their size."""
    write_network(tmp_path, **changes)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=expected):
        LandmarkNetwork(tmp_path)
