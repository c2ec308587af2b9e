"""Released checkpoints to networks, strictly checked.

Two forms are read. The official one (specification 2.1) lies under the weights folder as
`liveportrait/base_models/*.pth` and `liveportrait/retargeting_models/*.pth`: flat state dicts, the
small networks together in one file under an entry each. The community one is safetensors, a flat
file per module with the same stem, the small networks in one file with a prefix each; it is looked
for in the official folders, in `liveportrait/` and in the weights folder itself. Where both
exist the official file is read.

A pickle is only ever read with `weights_only=True`, so a file cannot run code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import OutOfMemoryError
from pipeline.liveportrait.devices import translated
from pipeline.liveportrait.errors import CheckpointError
from pipeline.liveportrait.files import SMALL_FILE, STEMS, find_checkpoint
from pipeline.liveportrait.networks import Networks

_SMALL: Final = {
    "stitching": "retarget_shoulder",
    "lip": "retarget_mouth",
    "eye": "retarget_eye",
}
_PARALLEL_PREFIX: Final = "module."
_MAX_HEADER_BYTES: Final = 100_000_000
_SAFETENSORS_DTYPES: Final = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def load_networks(weights_dir: Path) -> Networks:
    """The seven plain networks on the CPU, in eval mode, float32, without gradients.

    Args:
        weights_dir: the folder that holds `liveportrait/`.

    Raises:
        CheckpointError: a file is missing, damaged, or not the one it should be.
    """
    networks = _empty()
    for stem in STEMS:
        _fill_from(networks, find_checkpoint(weights_dir, stem), stem)
    return networks


def check_checkpoint(weights_dir: Path, stem: str) -> Path:
    """Read one module's file, checked as strictly as for loading, and let go of it.

    Args:
        weights_dir: the folder that holds `liveportrait/`.
        stem: one of `files.STEMS`.

    Returns:
        The file that would be loaded.

    Raises:
        CheckpointError: it is missing, damaged, or not the one it should be.
    """
    file = find_checkpoint(weights_dir, stem)
    _fill_from(_empty(), file, stem)
    return file


def _empty() -> Networks:
    with torch.device("meta"):
        return Networks.empty()


def _fill_from(networks: Networks, file: Path, stem: str) -> None:
    modules, content = networks.by_name(), _read(file)
    if stem != SMALL_FILE:
        _fill(modules[stem], file, _without_prefix(content))
        return
    for name, entry in _SMALL.items():
        _fill(modules[name], file, _without_prefix(_entry(file, content, entry)), f"{entry}.")


def _read(file: Path) -> Mapping[str, Any]:
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no root of what a damaged file can raise
        if isinstance(translated(error), OutOfMemoryError):
            raise  # the machine is to blame, not the file
        problem = (str(error).strip().splitlines() or [""])[0]
        if "weights_only" in problem:  # torch's advice is to switch off what keeps pickles out
            problem = "no tensors, or damaged"
        size = file.stat().st_size if file.is_file() else 0
        raise CheckpointError(
            file,
            None,
            "a checkpoint of tensors as torch.save writes it",
            f"{size} bytes that do not load ({type(error).__name__}: {problem[:200]})",
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(file, None, "a dict of tensors", _describe(content))
    return content


@dataclass(frozen=True, slots=True)
class _Stored:
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read the safetensors format: u64 header length, JSON header, raw little-endian tensors."""
    data = np.fromfile(file, dtype=np.uint8)
    if len(data) < 8:
        raise CheckpointError(file, None, "a safetensors header", f"{len(data)} bytes")
    (header_bytes,) = struct.unpack("<Q", data[:8].tobytes())
    if header_bytes > min(len(data) - 8, _MAX_HEADER_BYTES):
        raise CheckpointError(
            file, None, f"a safetensors header of {header_bytes} bytes", f"{len(data)} bytes"
        )
    try:
        header = json.loads(data[8 : 8 + header_bytes].tobytes())
        stored = {
            key: _Stored(
                _SAFETENSORS_DTYPES[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"]
            )
            for key, entry in header.items()
            if key != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(file, None, "a safetensors header", repr(error)) from error
    body = data[8 + header_bytes :]
    return {key: _stored_tensor(file, key, body, entry) for key, entry in stored.items()}


def _stored_tensor(file: Path, key: str, body: np.ndarray[Any, Any], entry: _Stored) -> Tensor:
    size = int(np.prod(entry.shape, dtype=np.int64)) * entry.dtype.itemsize
    if not (0 <= entry.start <= entry.end <= len(body) and entry.end - entry.start == size):
        raise CheckpointError(
            file,
            key,
            f"{size} bytes for {_form(entry.shape, entry.dtype)}",
            f"bytes {entry.start} to {entry.end} of {len(body)}",
        )
    raw = body[entry.start : entry.end].copy()  # a copy is aligned, a slice need not be
    return torch.from_numpy(raw).view(entry.dtype).reshape(entry.shape)


def _entry(file: Path, content: Mapping[str, Any], entry: str) -> Mapping[str, Any]:
    """One small network out of the file that the three share; other entries are ignored."""
    found = content.get(entry)
    if isinstance(found, Mapping):
        return found
    for prefix in (f"{entry}_module.", f"{entry}."):
        tensors = {k.removeprefix(prefix): v for k, v in content.items() if k.startswith(prefix)}
        if tensors:
            return tensors
    described = _describe(found) if entry in content else _names(content)
    raise CheckpointError(file, entry, "an entry that is a dict of tensors", described)


def _without_prefix(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Keys without what a data-parallel wrapper left in front of all of them."""
    if tensors and all(str(key).startswith(_PARALLEL_PREFIX) for key in tensors):
        return {str(key).removeprefix(_PARALLEL_PREFIX): value for key, value in tensors.items()}
    return dict(tensors)


def _fill(module: nn.Module, file: Path, tensors: Mapping[str, Any], within: str = "") -> None:
    """Take a file's tensors; `within` says before a key where in the file it lies."""
    wanted: dict[str, Tensor] = module.state_dict()
    for key, want in wanted.items():
        expected = _form(want.shape, want.dtype)
        if key not in tensors:
            among = f"no such key among {_names(tensors)}"
            raise CheckpointError(file, within + key, expected, among)
        found = tensors[key]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (want.shape, want.dtype):
            raise CheckpointError(file, within + key, expected, _describe(found))
    for key in tensors:
        if key not in wanted:
            none = f"no such key ({_names(wanted)})"
            raise CheckpointError(file, f"{within}{key}", none, _describe(tensors[key]))
    module.load_state_dict({key: tensors[key] for key in wanted}, assign=True)
    module.eval().requires_grad_(False)


def _form(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"


def _describe(value: object) -> str:
    return _form(value.shape, value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _names(content: Mapping[str, Any]) -> str:
    names = ", ".join(str(key) for key in list(content)[:3])
    return f"{len(content)} keys: {names}{', ...' if len(content) > 3 else ''}" if names else "none"
