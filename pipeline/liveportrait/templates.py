"""Recorded motion: LivePortrait's pickled templates into a safe form (specification 9). No torch.

What has been read is checked in full and kept as an `.npz` without pickles.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from pipeline.errors import ConfigError
from pipeline.liveportrait.template_pickle import PickledArray, read_pickle
from pipeline.types import Float32Array

MAX_BYTES: Final = 64_000_000
MAX_FRAMES: Final = 100_000
MAX_FPS: Final = 240
LARGEST: Final = 1000.0
"""No number of a motion comes near this; float32 could not be squared far beyond it."""
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class MotionTemplate:
    """A recorded motion, frame by frame.

    Attributes:
        fps: frames per second.
        scale: (N, 1). rotation: (N, 3, 3) for row vectors. exp: (N, 21, 3). t: (N, 3). All
            float32, finite and at most `LARGEST`.
        eyes: (N, 2) ratios of the eyes at the image's left and right, or None. lips: (N, 1) lip
            ratios, or None.
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
        if not 1 <= frames <= MAX_FRAMES:
            raise ValueError(f"expected 1 to {MAX_FRAMES} frames, got {frames}")
        if not 1 <= self.fps <= MAX_FPS:
            raise ValueError(f"fps: expected 1 to {MAX_FPS}, got {self.fps}")
        shapes = {
            "scale": (1,), "rotation": (3, 3), "exp": (21, 3), "t": (3,), "eyes": (2,), "lips": (1,)
        }  # fmt: skip
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is None:
                continue
            if array.shape != (frames, *shape) or array.dtype != np.float32:
                raise ValueError(
                    f"{name}: expected float32 {(frames, *shape)}, got {array.dtype} {array.shape}"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite numbers")
            if np.abs(array).max() > LARGEST:
                raise ValueError(f"{name}: expected numbers within {LARGEST:.0f}")

    def __len__(self) -> int:
        return len(self.scale)

    @classmethod
    def import_pickle(cls, path: Path) -> Self:
        """Read a `.pkl` template without running anything that it holds.

        Raises:
            ConfigError: not a template, or one that holds more than numbers.
            OSError: the file cannot be read.
        """
        data = _limited(path)
        try:
            return cls._from_content(read_pickle(data))
        except Exception as error:  # whatever a hostile pickle makes the reader stumble over
            raise ConfigError(str(path), f"not a motion template: {_reason(error)}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written.

        Raises:
            ConfigError: it is something else.
            OSError: the file cannot be read.
        """
        data = _limited(path)
        try:
            # An entry never gives more than the size that the archive's index states for it.
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES} bytes when unpacked")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                if int(arrays["format"]) != _FORMAT:
                    raise ValueError(f"not of format {_FORMAT}")
                content = {name: arrays[name] for name in arrays.files if name != "format"}
            return cls(int(content.pop("fps")), **content)
        except zipfile.BadZipFile as error:
            raise ConfigError(
                str(path), "not a motion file; `motion import` makes one of a .pkl template"
            ) from error
        except (
            ArithmeticError, AttributeError, EOFError, KeyError, MemoryError, RuntimeError,
            SyntaxError, TypeError, ValueError, zlib.error,
        ) as error:  # fmt: skip
            raise ConfigError(str(path), f"not a motion file: {_reason(error)}") from error

    def save(self, path: Path) -> None:
        """Write the safe form, an `.npz` of plain arrays; the file is whole or untouched.

        Raises:
            OSError: it cannot be written.
        """
        arrays: dict[str, Any] = {
            name: array
            for name in ("scale", "rotation", "exp", "t", "eyes", "lips")
            if (array := getattr(self, name)) is not None
        }
        whole = io.BytesIO()
        np.savez_compressed(whole, format=_FORMAT, fps=self.fps, **arrays)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}-")
        beside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(whole.getvalue())
            beside.chmod(0o644)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    @classmethod
    def _from_content(cls, content: object) -> Self:
        if not isinstance(content, dict):
            raise ValueError(f"expected a dict, got a {type(content).__name__}")
        for key in ("n_frames", "output_fps", "motion"):
            if key not in content:
                raise ValueError(f"there is no {key}")
        motion = _list(content["motion"], "motion")
        if not 1 <= len(motion) <= MAX_FRAMES:
            raise ValueError(f"motion: expected 1 to {MAX_FRAMES} frames, got {len(motion)}")
        if _integer(content["n_frames"], "n_frames") != len(motion):
            raise ValueError(f"n_frames: expected {len(motion)}, the frames of motion")
        return cls(
            fps=_integer(content["output_fps"], "output_fps"),
            scale=_stacked(motion, "scale", shape=(1,)),
            rotation=_stacked(motion, "R", "R_d", shape=(3, 3)),
            exp=_stacked(motion, "exp", shape=(21, 3)),
            t=_stacked(motion, "t", shape=(3,)),
            eyes=_listed(content, len(motion), "c_eyes_lst", "c_d_eyes_lst", shape=(2,)),
            lips=_listed(content, len(motion), "c_lip_lst", "c_d_lip_lst", shape=(1,)),
        )


def _limited(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(str(path), f"a motion of more than {MAX_BYTES} bytes")
    return data


def _reason(error: Exception) -> str:
    """What is wrong, printable and short whatever the file says."""
    text = str(error) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list, got a {type(value).__name__}")
    return value


def _integer(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}: expected an integer, got a {type(value).__name__}")
    return value


def _stacked(motion: Sequence[object], *names: str, shape: tuple[int, ...]) -> Float32Array:
    arrays = []
    for index, frame in enumerate(motion):
        if not isinstance(frame, dict):
            raise ValueError(f"motion[{index}]: expected a dict, got a {type(frame).__name__}")
        name = next((name for name in names if name in frame), None)
        if name is None:
            raise ValueError(f"motion[{index}]: there is no {names[0]}")
        arrays.append(frame[name])
    return _joined(arrays, f"motion[{{}}].{names[0]}", shape)


def _listed(
    content: Mapping[str, object], frames: int, *names: str, shape: tuple[int, ...]
) -> Float32Array | None:
    """A list with an entry for each frame; absent, None and empty are the same."""
    name = next((name for name in names if content.get(name) not in (None, [])), None)
    if name is None:
        return None
    arrays = _list(content[name], name)
    if len(arrays) != frames:
        raise ValueError(f"{name}: expected {frames} entries, one for each frame")
    return _joined(arrays, f"{name}[{{}}]", shape)


def _joined(arrays: Sequence[object], where: str, shape: tuple[int, ...]) -> Float32Array:
    values = []
    for index, array in enumerate(arrays):
        value = array.value if isinstance(array, PickledArray) else None
        if (
            value is None
            or value.dtype.newbyteorder("=") != np.float32
            or (value.shape != (1, *shape))
        ):
            raise ValueError(f"{where.format(index)}: expected a float32 array {(1, *shape)}")
        values.append(value)
    return np.concatenate(values, dtype=np.float32).reshape(-1, *shape)
