"""`avatar-orchestrator render`: one picture or a contact sheet, without a daemon."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

import msgspec

from orchestrator.expression.emotions import EmotionTable
from orchestrator.look import Look
from orchestrator.motion import read_motion
from orchestrator.renderers import choose_renderers, face_detectors
from orchestrator.settings import Settings
from orchestrator.sheet import HEAD_NAMES, sheet_faces, with_controls
from orchestrator.tables import character_store, emotions_file, everybody
from pipeline.contact_sheet import contact_sheet
from pipeline.encoding import encode
from pipeline.errors import ConfigError
from pipeline.portrait import LoadedPortrait, load_portrait
from pipeline.types import ARKIT_BLENDSHAPES, HEAD_LIMIT_DEG, FaceControls, Image, ImageFormat

SHEET_CELL_PX: Final = 320
SHEET_COLUMNS: Final = 4
_SIDES_PX: Final = range(16, 2048 + 1)
FORMATS: Final = {
    ".jpg": ImageFormat.JPEG,
    ".jpeg": ImageFormat.JPEG,
    ".png": ImageFormat.PNG,
    ".webp": ImageFormat.WEBP,
}

Draw = Callable[[FaceControls], Image]


def render(settings: Settings, config: Path, options: argparse.Namespace, out: TextIO) -> int:
    """Draw what the options ask for and write it to `options.out`.

    Raises:
        ConfigError: an option or file is wrong.
        PortraitError: the portrait cannot be used.
        InvalidEventError: there is no such expression.
    """
    image_format = FORMATS.get(options.out.suffix.lower())
    if image_format is None:
        raise ConfigError("--out", f"expected a file that ends in one of {', '.join(FORMATS)}")
    if not options.out.parent.is_dir():
        raise ConfigError("--out", f"{options.out.parent} is not a folder")
    if options.size is not None and options.size not in _SIDES_PX:
        raise ConfigError("--size", f"expected {_SIDES_PX[0]} to {_SIDES_PX[-1]} pixels")
    settings = _overridden(settings, options)
    sources, _ = choose_renderers(settings)
    emotions = EmotionTable.load(emotions_file(settings, config), motions=read_motion)
    loaded, look = _subject(settings, config, emotions, options)
    face = _face(look, options)
    size_px = (options.size, options.size) if options.size else settings.stage.size_px

    renderer = sources[0].make()
    out.write(f"{renderer.name} on {renderer.device}\n")
    try:
        prepared = renderer.prepare(loaded.portrait)
        if options.sheet:
            image = _sheet(
                look,
                lambda face: renderer.render(prepared, face, (SHEET_CELL_PX, SHEET_CELL_PX)),
            )
        else:
            image = renderer.render(prepared, face, size_px)
    finally:
        renderer.close()

    try:
        options.out.write_bytes(encode(image, image_format, settings.stage.jpeg_quality))
    except OSError as error:
        raise ConfigError("--out", f"cannot be written: {error.strerror}") from error
    for warning in loaded.warnings:
        out.write(f"warning: {warning}\n")
    out.write(f"{options.out}: {image.shape[1]}x{image.shape[0]}, {renderer.name}\n")
    return 0


def _overridden(settings: Settings, options: argparse.Namespace) -> Settings:
    """The settings with what the command line says instead."""
    if options.renderer:
        renderer = msgspec.structs.replace(settings.renderer, backend=options.renderer)
        settings = msgspec.structs.replace(settings, renderer=renderer)
    if options.weights is not None:
        if not options.weights.is_dir():
            raise ConfigError("--weights", f"{options.weights} is not a folder")
        weights = msgspec.structs.replace(
            settings.liveportrait, weights_dir=str(options.weights.absolute())
        )
        settings = msgspec.structs.replace(settings, liveportrait=weights)
    return settings


def _subject(
    settings: Settings, config: Path, emotions: EmotionTable, options: argparse.Namespace
) -> tuple[LoadedPortrait, Look]:
    if options.portrait is not None:
        detectors = face_detectors(settings)
        loaded = load_portrait(options.portrait, landmarks=options.landmarks, detectors=detectors)
        return loaded, Look(emotions)
    if options.landmarks is not None:
        raise ConfigError("--landmarks", "they belong to a picture: expected --portrait, too")
    book = everybody(settings, config, emotions, character_store(settings))
    character = book.get(options.character or settings.stage.character)
    return character.load(), Look(emotions, character.gains, character.rest)


def _face(look: Look, options: argparse.Namespace) -> FaceControls:
    if not 0.0 <= options.intensity <= 1.0:
        raise ConfigError("--intensity", "expected a number from 0 to 1")
    face = look.face(look.emotions.resolve(options.expression), options.intensity)
    return with_controls(face, **dict(_control(text) for text in options.control))


def _control(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in ARKIT_BLENDSHAPES and name not in HEAD_NAMES:
        raise ConfigError("--control", f"{name!r} is no ARKit blendshape and no head angle")
    lowest, highest = (-HEAD_LIMIT_DEG, HEAD_LIMIT_DEG) if name in HEAD_NAMES else (0.0, 1.0)
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not lowest <= number <= highest:
        raise ConfigError("--control", f"{name}: expected a number from {lowest} to {highest}")
    return name, number


def _sheet(look: Look, draw: Draw) -> Image:
    cells = [(label, draw(face)) for label, face in sheet_faces(look)]
    return contact_sheet(cells, columns=SHEET_COLUMNS, cell_px=SHEET_CELL_PX)
