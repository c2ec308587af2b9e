"""`avatar-orchestrator render`: one picture or a contact sheet, without a daemon."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TextIO

import msgspec

from orchestrator.app import characters_dir, choose_renderers, emotions_file
from orchestrator.characters import CharacterBook
from orchestrator.expression.blending import compose
from orchestrator.expression.emotions import EmotionTable
from orchestrator.settings import Settings
from pipeline.contact_sheet import contact_sheet
from pipeline.encoding import encode
from pipeline.errors import ConfigError
from pipeline.portrait import LoadedPortrait, load_portrait
from pipeline.types import ARKIT_BLENDSHAPES, HEAD_LIMIT_DEG, FaceControls, Image, ImageFormat

SHEET_CELL_PX: Final = 320
SHEET_COLUMNS: Final = 4
SHEET_STEPS: Final = (0.25, 0.5, 0.75, 1.0)
FORMATS: Final = {
    ".jpg": ImageFormat.JPEG,
    ".jpeg": ImageFormat.JPEG,
    ".png": ImageFormat.PNG,
    ".webp": ImageFormat.WEBP,
}
HEAD_NAMES: Final = ("pitch", "yaw", "roll")

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
    if options.renderer:
        backend = msgspec.structs.replace(settings.renderer, backend=options.renderer)
        settings = msgspec.structs.replace(settings, renderer=backend)
    sources, _ = choose_renderers(settings)
    emotions = EmotionTable.load(emotions_file(settings, config))
    loaded = _portrait(settings, config, emotions, options)
    size_px = (options.size, options.size) if options.size else settings.stage.size_px

    renderer = sources[0].make()
    try:
        prepared = renderer.prepare(loaded.portrait)
        if options.sheet:
            image = _sheet(
                emotions,
                lambda face: renderer.render(prepared, face, (SHEET_CELL_PX, SHEET_CELL_PX)),
            )
        else:
            image = renderer.render(prepared, _face(emotions, options), size_px)
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


def _portrait(
    settings: Settings, config: Path, emotions: EmotionTable, options: argparse.Namespace
) -> LoadedPortrait:
    if options.portrait is not None:
        return load_portrait(options.portrait, landmarks=options.landmarks)
    book = CharacterBook.load(characters_dir(settings, config), emotions.labels)
    return book.get(options.character or settings.stage.character).load()


def _face(emotions: EmotionTable, options: argparse.Namespace) -> FaceControls:
    if not 0.0 <= options.intensity <= 1.0:
        raise ConfigError("--intensity", "expected a number from 0 to 1")
    face = emotion_face(emotions, emotions.resolve(options.expression), options.intensity)
    extra = dict(_control(text) for text in options.control)
    weights = (
        face.weights
        + FaceControls.of(
            **{name: value for name, value in extra.items() if name not in HEAD_NAMES}
        ).weights
    )
    head = {name: getattr(face, name) + extra.get(name, 0.0) for name in HEAD_NAMES}
    return FaceControls.clamped(weights, **head)


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


def emotion_face(emotions: EmotionTable, label: str, intensity: float) -> FaceControls:
    """The face of one emotion at rest, as the daemon shows it: without idle life."""
    weight = intensity * emotions[label].maximum if label != "neutral" else 0.0
    return compose({label: weight, "neutral": 1.0 - weight}, emotions)


def _sheet(emotions: EmotionTable, draw: Draw) -> Image:
    cells = [(label, draw(face)) for label, face in _sheet_faces(emotions)]
    return contact_sheet(cells, columns=SHEET_COLUMNS, cell_px=SHEET_CELL_PX)


def _sheet_faces(emotions: EmotionTable) -> Iterator[tuple[str, FaceControls]]:
    """Seven emotions x four intensities, then blink, gaze, jaw and head turns."""
    for label in emotions.labels:
        for step in SHEET_STEPS:
            yield f"{label} {step:.2f}", emotion_face(emotions, label, step)
    for step in SHEET_STEPS:
        yield f"blink {step:.2f}", FaceControls.of(eyeBlinkLeft=step, eyeBlinkRight=step)
    yield "look left", FaceControls.of(eyeLookOutLeft=0.8, eyeLookInRight=0.8)
    yield "look right", FaceControls.of(eyeLookInLeft=0.8, eyeLookOutRight=0.8)
    yield "look up", FaceControls.of(eyeLookUpLeft=0.8, eyeLookUpRight=0.8)
    yield "look down", FaceControls.of(eyeLookDownLeft=0.8, eyeLookDownRight=0.8)
    for step in SHEET_STEPS:
        yield f"jaw {step:.2f}", FaceControls.of(jawOpen=step)
    for name, angle in (("yaw", -12.0), ("yaw", 12.0), ("pitch", -10.0), ("pitch", 10.0)):
        yield f"{name} {angle:+.0f}", FaceControls.of(**{name: angle})
    yield "roll -8", FaceControls.of(roll=-8.0)
    yield "roll +8", FaceControls.of(roll=8.0)
    yield "pucker", FaceControls.of(mouthPucker=0.9)
    yield "lips closed", FaceControls.of(mouthPressLeft=0.6, mouthPressRight=0.6)
