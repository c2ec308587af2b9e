"""Deterministic stand-in weights in the released layout, and the golden data that goes with them.

Every tensor follows from its name and a seed alone, on any platform: full key = module + "/" +
state-dict key; PCG64 seeded with [seed, crc32(full key)]; the upper 24 bits of each raw number
give u in (-1, 1); value = offset + amplitude u in float64, cast to float32.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

GOLDEN = Path(__file__).parents[1] / "golden" / "liveportrait"
POWER_ITERATIONS = 5

# Gains of matrices and kernels: uniform on (-a, a), a = gain sqrt(3 / fan_in). First match wins.
GAINS = (
    (r"^appearance_feature_extractor/resblocks_3d\..*\.conv2\.weight$", 0.6),
    (r"^motion_extractor/.*\.dwconv\.weight$", 1.0),
    (r"^motion_extractor/.*\.pwconv2\.weight$", 0.5),
    (r"^motion_extractor/.*\.fc_kp\.weight$", 0.35),
    (r"^motion_extractor/.*\.fc_exp\.weight$", 0.03),
    (r"^motion_extractor/.*\.fc_(t|scale)\.weight$", 0.08),
    (r"^motion_extractor/.*\.fc_(pitch|yaw|roll)\.weight$", 1.5),
    (r"^warping_module/dense_motion_network\.mask\.weight$", 1.5),
    (r"^warping_module/dense_motion_network\.occlusion\.weight$", 0.8),
    (r"^warping_module/fourth\.weight$", 1.0),
    (r"^spade_generator/.*\.mlp_(gamma|beta)\.weight$", 0.5),
    (r"^spade_generator/conv_img\.0\.weight$", 1.2),
    (r"^((stitching|lip)/mlp\.6|eye/mlp\.10)\.weight$", 0.06),
    (r"", math.sqrt(2.0)),
)
BIASES = (
    (r"^motion_extractor/.*\.fc_scale\.bias$", (1.3, 0.05)),
    (r"^motion_extractor/.*\.fc_kp\.bias$", (0.0, 0.3)),
    (r"^motion_extractor/.*\.fc_(exp|t)\.bias$", (0.0, 0.02)),
    (r"^((stitching|lip)/mlp\.6|eye/mlp\.10)\.bias$", (0.0, 0.01)),
    (r"", (0.0, 0.1)),
)


@cache
def layout() -> Mapping[str, Any]:
    """The released files: path, container entry, prefix, and every tensor's key, shape, dtype."""
    content: Mapping[str, Any] = json.loads((GOLDEN / "checkpoint_layout.json").read_text())
    return content


@cache
def golden() -> Mapping[str, Array]:
    """Inputs and reference outputs for weight seed 1."""
    with np.load(GOLDEN / "golden_seed1.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def module_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Module to state-dict key to shape."""
    return {
        part["module"]: {t["key"]: tuple(t["shape"]) for t in part["tensors"]}
        for file in layout()["files"]
        for part in file["parts"]
    }


def uniform(seed: int, full_key: str, count: int) -> Array:
    """`count` float64 numbers in (-1, 1), identical on every platform."""
    entropy = [seed, zlib.crc32(full_key.encode())]
    raw = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return ((raw >> np.uint64(40)).astype(np.float64) + 0.5) * 2.0**-23 - 1.0


def synthetic_module(module: str, seed: int) -> dict[str, Array]:
    """Every tensor of one module, by state-dict key."""
    shapes = module_shapes()[module]
    tensors = {
        key: _tensor(module, key, shape, seed)
        for key, shape in shapes.items()
        if not key.endswith(("weight_u", "weight_v"))
    }
    for prefix in (key.removesuffix("weight_u") for key in shapes if key.endswith("weight_u")):
        u, v = _spectral_vectors(module, prefix, tensors[prefix + "weight_orig"], seed)
        tensors |= {prefix + "weight_u": u, prefix + "weight_v": v}
    return {key: tensors[key] for key in shapes}


def write_checkpoints(folder: Path, seed: int, only: Collection[str] = ()) -> None:
    """Write `.pth` files in the released layout under `folder`: those of these stems, or all five.

    All are 520 MB.
    """
    import torch

    for file in layout()["files"]:
        if only and Path(file["path"]).stem not in only:
            continue
        content: dict[str, Any] = {}
        for part in file["parts"]:
            tensors = {
                part["key_prefix_on_disk"] + key: torch.from_numpy(np.array(value))
                for key, value in synthetic_module(part["module"], seed).items()
            }
            content |= {part["container_key"]: tensors} if part["container_key"] else tensors
        path = folder / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """The safetensors format: u64 header length, JSON header, raw tensors."""
    import torch

    names = {torch.float32: "F32", torch.int64: "I64"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for key, value in tensors.items():
        raw = value.numpy().tobytes()
        header[key] = {
            "dtype": names[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def _tensor(module: str, key: str, shape: tuple[int, ...], seed: int) -> Array:
    full_key = f"{module}/{key}"
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    offset, amplitude = _range(full_key, leaf, shape)
    count = math.prod(shape)
    values = offset + amplitude * uniform(seed, full_key, count)
    return values.astype(np.float32).reshape(shape)


def _range(full_key: str, leaf: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if leaf == "bias":
        return next(value for pattern, value in BIASES if re.search(pattern, full_key))
    if leaf in ("weight", "weight_orig") and len(shape) > 1:
        gain = next(value for pattern, value in GAINS if re.search(pattern, full_key))
        return 0.0, gain * math.sqrt(3.0 / math.prod(shape[1:]))
    return {
        "weight": (1.0, 0.2),
        "running_var": (1.0, 0.5),
        "running_mean": (0.0, 0.1),
        "gamma": (0.0, 0.5),
        "beta": (0.0, 0.1),
    }[leaf]


def _spectral_vectors(module: str, prefix: str, weight: Array, seed: int) -> tuple[Array, Array]:
    matrix = weight.astype(np.float64).reshape(len(weight), -1)
    u = uniform(seed, f"{module}/{prefix}weight_u", len(matrix))
    u /= np.linalg.norm(u)
    for _ in range(POWER_ITERATIONS):
        v = matrix.T @ u
        v /= np.linalg.norm(v)
        u = matrix @ v
        u /= np.linalg.norm(u)
    return u.astype(np.float32), v.astype(np.float32)
