"""Recorded motion: LivePortrait's pickled templates into a safe form (specification 9). No torch.

A pickle can run code, and even its arrays can carry malformed state. So the reader resolves the
names that a template needs to stand-ins of its own, which accept plain numbers only, and
refuses every other name. What has been read is checked and kept as `.npz` without pickles.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.types import Float32Array

MAX_BYTES: Final = 256_000_000
MAX_FRAMES: Final = 100_000
MAX_FPS: Final = 240
_FORMAT: Final = 1
_DTYPES: Final = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


@dataclass(frozen=True, slots=True, eq=False)
class MotionTemplate:
    """A recorded motion, frame by frame.

    Attributes:
        fps: frames per second.
        scale: (N, 1). rotation: (N, 3, 3) for row vectors. exp: (N, 21, 3). t: (N, 3). All
            float32 and finite.
        eyes: (N, 2) left and right eye ratios, or None. lips: (N, 1) lip ratios, or None.
    """

    fps: int
    scale: Float32Array
    rotation: Float32Array
    exp: Float32Array
    t: Float32Array
    eyes: Float32Array | None = None
    lips: Float32Array | None = None

    def __post_init__(self) -> None:
        frames = len(self.scale)
        if not (1 <= frames <= MAX_FRAMES and 1 <= self.fps <= MAX_FPS):
            raise ValueError(f"{frames} frames at {self.fps} fps")
        shapes = {
            "scale": (1,), "rotation": (3, 3), "exp": (21, 3), "t": (3,), "eyes": (2,), "lips": (1,)
        }  # fmt: skip
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is None:
                continue
            if array.shape != (frames, *shape) or array.dtype != np.float32:
                raise ValueError(f"{name}: expected float32 {(frames, *shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite numbers")

    def __len__(self) -> int:
        return len(self.scale)

    @classmethod
    def import_pickle(cls, path: Path) -> Self:
        """Read a `.pkl` template without running anything that it holds.

        Raises:
            ConfigError: not a template, or one that holds more than numbers.
            OSError: the file cannot be read.
        """
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(str(path), f"a template of more than {MAX_BYTES} bytes")
        try:
            return cls._from_content(_Reader(io.BytesIO(path.read_bytes())).load())
        except Exception as error:  # whatever a hostile pickle makes the reader stumble over
            raise ConfigError(str(path), f"not a motion template: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written.

        Raises:
            ConfigError: it is something else.
            OSError: the file cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if int(arrays["format"]) != _FORMAT:
                    raise ConfigError(str(path), f"not format {_FORMAT} of a motion template")
                content = {name: arrays[name] for name in arrays.files if name != "format"}
                return cls(int(content.pop("fps")), **content)
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(str(path), f"not a motion template: {error}") from error

    def save(self, path: Path) -> None:
        """Write the safe form, an `.npz` of plain arrays."""
        arrays = {
            name: array
            for name in ("scale", "rotation", "exp", "t", "eyes", "lips")
            if (array := getattr(self, name)) is not None
        }
        with path.open("wb") as file:
            np.savez_compressed(file, format=_FORMAT, fps=self.fps, **arrays)

    @classmethod
    def _from_content(cls, content: Any) -> Self:
        motion = content["motion"]
        frames = content["n_frames"]
        if not isinstance(motion, list) or frames != len(motion):
            raise ValueError(f"n_frames is {frames!r}, motion is a {type(motion).__name__}")
        return cls(
            fps=int(content["output_fps"]),
            scale=_stacked(motion, "scale", shape=(1,)),
            rotation=_stacked(motion, "R", "R_d", shape=(3, 3)),
            exp=_stacked(motion, "exp", shape=(21, 3)),
            t=_stacked(motion, "t", shape=(3,)),
            eyes=_listed(content, "c_eyes_lst", "c_d_eyes_lst", shape=(2,)),
            lips=_listed(content, "c_lip_lst", "c_d_lip_lst", shape=(1,)),
        )


def _stacked(motion: list[Mapping[str, Any]], *names: str, shape: tuple[int, ...]) -> Float32Array:
    arrays = [frame[next(n for n in names if n in frame)] for frame in motion]
    return _joined(arrays, names[0], shape)


def _listed(content: Mapping[str, Any], *names: str, shape: tuple[int, ...]) -> Float32Array | None:
    arrays = next((content[name] for name in names if content.get(name)), None)
    return None if arrays is None else _joined(arrays, names[0], shape)


def _joined(arrays: list[Any], name: str, shape: tuple[int, ...]) -> Float32Array:
    values = [array.value if isinstance(array, _Array) else None for array in arrays]
    for value in values:
        if value is None or value.dtype != np.float32 or value.shape != (1, *shape):
            raise ValueError(f"{name}: expected float32 arrays of shape {(1, *shape)}")
    return np.concatenate([value for value in values if value is not None]).reshape(-1, *shape)


class _Dtype:
    """Stands in for numpy.dtype: plain numbers only."""

    def __init__(self, name: str, *_flags: object) -> None:
        if name not in _DTYPES:
            raise pickle.UnpicklingError(f"arrays of {name!r}")
        self.value = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray: checks its state before it believes it."""

    value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, data = state
        if not (isinstance(dtype, _Dtype) and isinstance(data, bytes)):
            raise pickle.UnpicklingError("an array of objects")
        if len(data) != math.prod(shape) * dtype.value.itemsize:
            raise pickle.UnpicklingError("an array whose data do not fit its shape")
        flat = np.frombuffer(data, dtype.value)
        ordered = flat.reshape(shape, order="F" if fortran else "C")
        self.value = ordered.astype(dtype.value.newbyteorder("="))


class _ArrayType:
    """What the name numpy.ndarray means; an argument and nothing else."""


def _reconstruct(*_arguments: object) -> _Array:
    """Stands in for numpy's function of that name, whose shape is always replaced later."""
    return _Array()


class _Reader(pickle.Unpickler):
    _NAMES: Final = {
        ("numpy", "ndarray"): _ArrayType,
        ("numpy", "dtype"): _Dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Only the names above."""
        try:
            return self._NAMES[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"the name {module_name}.{global_name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """Nothing is stored elsewhere."""
        raise pickle.UnpicklingError("a reference to something outside")
