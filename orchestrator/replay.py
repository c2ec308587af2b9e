"""`avatar-orchestrator replay`: a logged run drawn again, in virtual time, to a video or images."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import msgspec

from orchestrator.characters import CharacterBook
from orchestrator.event_log import EmotionsLine, digest
from orchestrator.event_log_reader import Message, Run, read_runs
from orchestrator.expression.emotions import EmotionTable
from orchestrator.playback import Moment, Playback
from orchestrator.renderers import choose_renderers
from orchestrator.replay_output import Output, open_output
from orchestrator.settings import Settings
from orchestrator.tables import character_store, load_tables
from pipeline.errors import ConfigError
from pipeline.frame_cache import face_code, face_of
from pipeline.ports import PreparedPortrait, Renderer
from pipeline.types import FaceControls, Image

BEFORE_S: Final = 1.0
AFTER_S: Final = 1.0
LONGEST_END_S: Final = 60.0
"""A cue that holds for ever is shown for so long after the last message."""
MAX_FPS: Final = 240.0
MAX_SIDE_PX: Final = 2048
PORTRAITS_KEPT: Final = 4


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a run to draw, at which rate.

    Attributes:
        fps: frames per second.
        from_s, to_s: seconds since the run's beginning; None: from a second before the first
            message, until a second after all is over.
    """

    fps: float
    from_s: float | None = None
    to_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One frame to draw.

    Attributes:
        at_s: seconds since the run's beginning.
        code: the quantised face, which is what a live stage draws.
    """

    at_s: float
    moment: Moment
    code: bytes

    @property
    def face(self) -> FaceControls:
        """What is drawn."""
        return face_of(self.code)


def shots(run: Run, playback: Playback, span: Span) -> Iterator[Shot]:
    """The frames of a run on a grid that begins with it, whatever part is wanted.

    Args:
        playback: of the run, not played yet.
    """
    begin_s = run.begin_s
    first = max(0, math.ceil(_start_s(run, span) * span.fps - 1e-9))
    place, over_s = 0, None
    last_s = max((step.t_s for step in run.steps if isinstance(step, Message)), default=begin_s)
    while True:
        at_s = place / span.fps
        if span.to_s is not None and at_s >= span.to_s:
            return
        moment = playback.at(begin_s + at_s)
        if place >= first and moment.character is not None:
            yield Shot(at_s, moment, face_code(moment.controls))
        if span.to_s is None:
            if over_s is None and playback.over(begin_s + at_s):
                over_s = at_s
            end_s = last_s - begin_s + LONGEST_END_S if over_s is None else over_s + AFTER_S
            if at_s >= max(end_s, first / span.fps):
                return
        place += 1


def _start_s(run: Run, span: Span) -> float:
    if span.from_s is not None:
        return span.from_s
    asked = (step.t_s for step in run.steps if isinstance(step, Message) and step.source)
    return max(0.0, next(asked, run.begin_s) - run.begin_s - BEFORE_S)


class Artist:
    """Draws the shots of a run with one renderer.

    Args:
        renderer: closed by whoever made it.
        characters: whose portraits are drawn.
        size_px: (width, height).

    Attributes:
        differences: what is not as it was, such as a character's portrait.
    """

    def __init__(
        self, renderer: Renderer, characters: CharacterBook, size_px: tuple[int, int]
    ) -> None:
        self._renderer = renderer
        self._characters = characters
        self._size_px = size_px
        self._prepared: OrderedDict[str, PreparedPortrait] = OrderedDict()
        self.differences: list[str] = []

    def draw(self, shot: Shot) -> Image:
        """The frame, (height, width, 3) uint8 RGB.

        Raises:
            ConfigError: its character is not there.
            PortraitError, RenderError: it cannot be drawn.
        """
        prepared = self._portrait(shot)
        return self._renderer.render(prepared, shot.face, self._size_px)

    def _portrait(self, shot: Shot) -> PreparedPortrait:
        wanted = shot.moment.character
        assert wanted is not None
        prepared = self._prepared.get(wanted.character)
        if prepared is None:
            if wanted.character not in self._characters.names:
                there = ", ".join(self._characters.names)
                problem = f"there is no character {wanted.character!r}; there are {there}"
                raise ConfigError("characters.dir", problem)
            portrait = self._characters.get(wanted.character).load().portrait
            if portrait.key != wanted.portrait:
                self.differences.append(
                    f"the portrait of {wanted.character} is not the one of the log, or was decoded "
                    "by another library: pixels differ from what was live"
                )
            prepared = self._renderer.prepare(portrait)
            self._prepared[wanted.character] = prepared
            while len(self._prepared) > PORTRAITS_KEPT:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(wanted.character)
        return prepared


def replay(settings: Settings, config: Path, options: argparse.Namespace, out: TextIO) -> int:
    """Draw a run again and say what came of it.

    Raises:
        ConfigError: an option, a file or the log is wrong.
        PortraitError, RenderError: a frame cannot be drawn.
        StorageError: the output cannot be written.
    """
    if options.renderer:
        chosen = msgspec.structs.replace(settings.renderer, backend=options.renderer)
        settings = msgspec.structs.replace(settings, renderer=chosen)
    runs = read_runs(options.files, options.stage)
    run = runs[-1]
    span = _span(run, options)
    size_px = _size(run, options)
    emotions, characters = load_tables(settings, config, character_store(settings))
    _check_emotions(run, emotions, anyway=options.anyway)
    if len(runs) > 1:
        out.write(f"the last of {len(runs)} runs of the stage {options.stage}\n")
    for warning in _warnings(run):
        out.write(f"warning: {warning}\n")
    sources, _ = choose_renderers(settings)
    renderer = sources[0].make()
    artist = Artist(renderer, characters, size_px)
    try:
        with open_output(options.out, span.fps, size_px) as output:
            played = play(run, emotions, artist, span, output)
            name = output.name
    finally:
        renderer.close()
    for difference in artist.differences:
        out.write(f"warning: {difference}\n")
    if played.refused:
        out.write(f"warning: {played.refused} messages were refused that were taken then\n")
    out.write(
        f"{name}: {played.frames} frames, {played.frames / span.fps:.3f} s at {span.fps:g} fps\n"
        f"faces  sha256:{played.faces}\npixels sha256:{played.pixels}\n"
    )
    return 0


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a replay.

    Attributes:
        faces: SHA-256 over the quantised controls of all frames.
        pixels: SHA-256 over their pixels.
        refused: messages that could not act.
    """

    frames: int
    faces: str
    pixels: str
    refused: int


def play(run: Run, emotions: EmotionTable, artist: Artist, span: Span, output: Output) -> Played:
    """Draw a span of a run into an output.

    Raises:
        ConfigError: there is nothing in that span, or its character is not there.
        PortraitError, RenderError: a frame cannot be drawn.
        StorageError: the output cannot be written.
    """
    playback = Playback(run, emotions)
    faces, pixels, frames = hashlib.sha256(), hashlib.sha256(), 0
    for shot in shots(run, playback, span):
        image = artist.draw(shot)
        faces.update(shot.code)
        pixels.update(image.tobytes())
        output.add(shot, image)
        frames += 1
    if not frames:
        raise ConfigError("--from", "nothing of the run lies there")
    output.finish()
    return Played(frames, faces.hexdigest(), pixels.hexdigest(), playback.refused)


def _span(run: Run, options: argparse.Namespace) -> Span:
    fps = run.opened.fps if options.fps is None else options.fps
    if not 1.0 <= fps <= MAX_FPS:
        raise ConfigError("--fps", f"expected 1 to {MAX_FPS:g}, got {fps:g}")
    for name, value in (("--from", options.from_s), ("--to", options.to_s)):
        if value is not None and not 0.0 <= value <= 1e7:
            raise ConfigError(name, f"expected seconds since the run's beginning, got {value:g}")
    if options.from_s is not None and options.to_s is not None and options.from_s >= options.to_s:
        raise ConfigError("--to", "expected a later moment than --from")
    return Span(fps, options.from_s, options.to_s)


def _size(run: Run, options: argparse.Namespace) -> tuple[int, int]:
    size_px = (
        (options.size, options.size) if options.size else (run.opened.width, run.opened.height)
    )
    if not all(64 <= side <= MAX_SIDE_PX and side % 2 == 0 for side in size_px):
        raise ConfigError("--size", f"expected an even number from 64 to {MAX_SIDE_PX}")
    return size_px


def _check_emotions(run: Run, emotions: EmotionTable, *, anyway: bool) -> None:
    """The faces are those of the log only with its table."""
    changes = [step.emotions for step in run.steps if isinstance(step, EmotionsLine)]
    if not anyway and any(table != digest(emotions) for table in (run.opened.emotions, *changes)):
        raise ConfigError(
            "emotions.file",
            "the emotions are not those of the log, so the faces would not be; name its table, "
            "or give --anyway",
        )


def _warnings(run: Run) -> Iterator[str]:
    if run.opened.continued_s is not None:
        yield "the log goes on from an older file; cues that had begun before are missing"
    if run.lost:
        yield f"{run.lost} messages are missing from the log"
