"""A video file through PyAV: frames at a constant rate in, a finished file or none out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

import cv2

from pipeline.errors import ConfigError, StorageError
from pipeline.types import Image

INSTALL: Final = "pip install '.[record]' in the checkout"
MAX_FPS: Final = 240.0


@dataclass(frozen=True, slots=True)
class _Encoder:
    """One of FFmpeg's encoders, with what it is told."""

    name: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Container:
    """A file format, with its encoders, wanted first."""

    format: str
    options: Mapping[str, str]
    encoders: tuple[_Encoder, ...]


# Fast enough to keep up with the daemon beside it, and close to what was published.
_CONTAINERS: Final = {
    ".mp4": _Container(
        "mp4",
        {"movflags": "+faststart"},
        (
            _Encoder("libx264", {"preset": "veryfast", "crf": "18"}),
            _Encoder("libopenh264", {"b": "4000000"}),
        ),
    ),
    ".webm": _Container(
        "webm",
        {},
        (
            _Encoder(
                "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"}
            ),
            _Encoder("libvpx", {"deadline": "realtime", "cpu-used": "8", "crf": "8", "b": "4M"}),
        ),
    ),
}
SUFFIXES: Final = tuple(_CONTAINERS)
_BT709: Final = 1
_LIMITED_RANGE: Final = 1


class VideoFile:
    """Writes beside `path` and takes its place when it is finished, so it is whole or not there.

    One thread at a time.

    Args:
        path: ends in one of `SUFFIXES`, any case.
        fps: frames per second.
        size_px: (width, height), even; frames of another size are scaled to it.

    Attributes:
        frames: written so far.
        codec: the encoder's name.

    Raises:
        ConfigError: the suffix, the folder or the rate is wrong, or no encoder is installed.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path, fps: float, size_px: tuple[int, int]) -> None:
        container, encoder = check_video(path, fps)
        import av

        self.frames = 0
        self.codec = encoder.name
        self._av: Any = av
        self._path = path
        self._size_px = size_px
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._done = False
        rate = Fraction(fps).limit_denominator(1001)
        self._tick = 1 / rate
        with self._writing():
            self._file: Any = av.open(
                str(self._partial), "w", format=container.format, options=dict(container.options)
            )
            self._stream: Any = self._file.add_stream(
                encoder.name, rate=rate, options=dict(encoder.options)
            )
            stream: Any = self._stream
            stream.width, stream.height = size_px
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.time_base = self._tick
            context.color_range = _LIMITED_RANGE
            context.colorspace = context.color_primaries = context.color_trc = _BT709

    def write(self, image: Image, times: int = 1) -> None:
        """Add a frame, `times` times.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            StorageError: it cannot be written; the file is given up.
        """
        if image.shape[1::-1] != self._size_px:
            image = cast(Image, cv2.resize(image, self._size_px, interpolation=cv2.INTER_AREA))
        with self._writing():
            frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            for _ in range(times):
                frame.pts, frame.time_base = self.frames, self._tick
                self._file.mux(self._stream.encode(frame))
                self.frames += 1

    def finish(self) -> None:
        """Write the end, and give the file its name; a file of that name is replaced.

        Raises:
            StorageError: it cannot be written; the file is given up.
        """
        with self._writing():
            self._file.mux(self._stream.encode(None))
            self._file.close()
            self._partial.replace(self._path)
        self._done = True

    def give_up(self) -> None:
        """Leave no file, unless it is finished. Idempotent."""
        if not self._done:
            self._done = True
            with contextlib.suppress(self._av.FFmpegError, OSError):
                self._file.close()
            self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (self._av.FFmpegError, OSError) as error:
            self.give_up()
            problem = getattr(error, "strerror", None) or error
            raise StorageError(f"{self._path} could not be written: {problem}") from error


def check_video(path: Path, fps: float) -> tuple[_Container, _Encoder]:
    """Say whether such a file can be made, before there are frames for it.

    Raises:
        ConfigError: the suffix, the folder or the rate is wrong, or no encoder is installed.
    """
    container = _CONTAINERS.get(path.suffix.lower())
    if container is None:
        problem = f"expected a file that ends in one of {', '.join(SUFFIXES)}"
        raise ConfigError(str(path), problem)
    if not path.parent.is_dir():
        raise ConfigError(str(path), f"there is no folder {path.parent}")
    if path.is_dir():
        raise ConfigError(str(path), "this is a folder; a file is needed")
    if not 1.0 <= fps <= MAX_FPS:
        raise ConfigError("--fps", f"expected 1 to {MAX_FPS:g}, got {fps:g}")
    return container, _installed(path, container)


def _installed(path: Path, container: _Container) -> _Encoder:
    try:
        import av
    except ImportError as error:
        problem = f"videos need PyAV, which cannot be imported ({error}): {INSTALL}"
        raise ConfigError(str(path), problem) from error
    for encoder in container.encoders:
        with contextlib.suppress(ValueError):  # PyAV's UnknownCodecError
            av.Codec(encoder.name, "w")
            return encoder
    names = " or ".join(encoder.name for encoder in container.encoders)
    raise ConfigError(
        str(path), f"this PyAV has no encoder {names}; the one of its own wheels has: {INSTALL}"
    )
