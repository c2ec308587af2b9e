"""A replay shows what was live, and the same every time."""

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from orchestrator.__main__ import main
from orchestrator.characters import CharacterBook
from orchestrator.event_log import encode_line, line_of
from orchestrator.event_log_reader import Run, read_runs
from orchestrator.expression.emotions import EmotionTable
from orchestrator.journal import Entry, Took
from orchestrator.playback import Playback
from orchestrator.replay import Shot, Span, shots
from orchestrator.settings import IdleSettings, StageSettings, default_config_dir
from orchestrator.stage import Stage
from pipeline.ahead import Face
from pipeline.fallback import FallbackLadder
from pipeline.frame_cache import face_of
from pipeline.types import (
    Activity,
    CharacterSwitch,
    ControlsMode,
    DirectControls,
    EmotionEvent,
    FaceControls,
    Interrupt,
    Mood,
    Policy,
    StageMessage,
    StateChange,
    TextDelta,
)
from tests.fakes.audience import Answers, Viewer
from tests.fakes.clock import VirtualClock
from tests.fakes.ladder import FakeLadder, FakePicture
from tests.fakes.metrics import RecordingMetrics

CONFIG = default_config_dir()
EMOTIONS = EmotionTable.load(CONFIG / "emotions.toml")
GOLDEN = Path(__file__).parents[1] / "golden" / "replay"
EVENTS = GOLDEN / "events.jsonl"
FACES = GOLDEN / "faces.jsonl"
FPS = 12.0


# --- as it was live -----------------------------------------------------------------------


class SeeingLadder(FakeLadder):
    """Keeps every face that it was asked for, with its moment."""

    stage: Stage

    def __init__(self, clock: VirtualClock, render_s: float) -> None:
        super().__init__(clock, render_s)
        self.seen: list[tuple[float, FaceControls, dict[str, float]]] = []

    async def picture(
        self,
        controls: FaceControls,
        weights: Any,
        steps: Sequence[Face] = (),
        *,
        by_s: float = math.inf,
    ) -> FakePicture:
        assert self.stage._sampled_s is not None
        self.seen.append((self.stage._sampled_s, controls, dict(weights)))
        return await super().picture(controls, weights, steps, by_s=by_s)


@asynccontextmanager
async def live(
    book: CharacterBook, entries: list[Entry]
) -> AsyncIterator[tuple[Stage, SeeingLadder]]:
    """A stage with idle life that is watched and keeps a journal; a frame takes 12 ms."""
    clock = VirtualClock(1234.5678)
    ladder = SeeingLadder(clock, 0.012)
    with ThreadPoolExecutor(1) as files:
        ladder.stage = stage = Stage(
            "main",
            server="test/0",
            settings=StageSettings(),
            idle=IdleSettings(gaze=1.5),
            emotions=EMOTIONS,
            characters=book,
            ladder=cast(FallbackLadder, ladder),
            files=files,
            metrics=RecordingMetrics(),
            clock=clock,
            journal=entries.append,
        )
        stage.remember({"mood": {"valence": -0.4, "arousal": 0.3, "decay_s": 40.0}})
        await stage.introduce(book.get("first"))
        stage.attach(Viewer())
        running = asyncio.create_task(stage.run())
        try:
            yield stage, ladder
        finally:
            running.cancel()
            await asyncio.wait([running])


PLAY: list[tuple[int, StageMessage]] = [
    (5, EmotionEvent("e1", "joy", 0.7, attack_s=0.2, hold_s=0.6)),
    (5, StateChange(None, Activity.LISTENING)),
    (12, EmotionEvent("e2", "surprised", 0.5, policy=Policy.BLEND, hold_s=0.1, ttl_s=3.0)),
    (20, TextDelta("t", "[sad:0.9]Oh no ")),
    (25, TextDelta("t", "[angry] grr", final=True)),
    (26, Mood(None, 0.9, -0.2, 30.0)),
    (31, DirectControls(None, ControlsMode.SET, {"jawOpen": 0.7, "eyeLookUpLeft": 0.2})),
    (32, DirectControls(None, ControlsMode.ADD, {"browInnerUp": 0.3}, {"yaw": 4.0}, 0.5)),
    (40, EmotionEvent("bad", "no such emotion")),
    (44, EmotionEvent("e1", "joy", 0.7, attack_s=0.2, hold_s=0.6)),  # resent: happens once
    (50, EmotionEvent("e3", "fear", at_s=0.333, hold_s=math.inf, policy=Policy.QUEUE)),
    (55, CharacterSwitch("c", "second")),
    (120, StateChange(None, Activity.SPEAKING)),
    (140, Interrupt("i", 0.25)),
]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> CharacterBook:
    """Two characters that differ in all that is not their picture."""
    folder = tmp_path_factory.mktemp("characters")
    astronaut = CONFIG / "characters" / "astronaut"
    for name, more in (
        ("first", "idle_seed = 3\n[gains]\nhappy = 0.8\n"),
        ("second", "idle_seed = 8\n[rest]\nmouthClose = 0.4\n"),
    ):
        (folder / f"{name}.toml").write_text(
            f'portrait = "{astronaut}/portrait.jpg"\n'
            f'landmarks = "{astronaut}/landmarks.json"\n{more}'
        )
    return CharacterBook.load(folder, EMOTIONS.labels)


@pytest.mark.parametrize("every", [1, 2, 7])
async def test_the_faces_are_those_that_were_live(
    book: CharacterBook, tmp_path: Path, every: int
) -> None:
    """At the moments of live frames, a replay gives the very same controls and weights.

    Also where it is not asked for all of them, as a viewer may have missed some.
    Messages come while a frame is in the making, that is after the face of a moment that is
    still to come has been sampled.
    """
    entries: list[Entry] = []
    producers = [Answers(), Answers()]
    async with live(book, entries) as (stage, ladder):
        for number in range(165):
            for at, message in PLAY:
                if at == number:
                    stage.submit(message, producers[isinstance(message, DirectControls)])
            frames = len(ladder.seen) + 1
            async with asyncio.timeout(10):
                while len(ladder.seen) < frames:  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(0)
            if number == 60:
                async with asyncio.timeout(10):  # the portrait is read by a real thread
                    while stage.character_name != "second":  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
    early = [entry for entry in entries if isinstance(entry, Took) and entry.after_s]
    assert any(entry.t_s < (entry.after_s or 0.0) for entry in early)
    log = tmp_path / "events.jsonl"
    numbers = {None: 0, producers[0]: 1, producers[1]: 2}
    log.write_bytes(
        b"".join(
            encode_line(line_of(entry, numbers[cast(Any, getattr(entry, "source", None))]))
            for entry in entries
        )
    )
    (run,) = read_runs([log], "main")
    playback = Playback(run, EMOTIONS)
    for due_s, controls, weights in ladder.seen[::every]:
        moment = playback.at(due_s)
        assert moment.weights == weights
        assert (moment.controls.weights == controls.weights).all()
        angles = [(c.pitch, c.yaw, c.roll) for c in (moment.controls, controls)]
        assert angles[0] == angles[1]
    assert playback.refused == 0
    shown = {n for _, _, weights in ladder.seen for n, w in weights.items() if w > 0.1}
    assert shown == {"neutral", "happy", "surprised", "sad", "angry", "fearful"}
    assert moment.character is not None
    assert moment.character.character == "second"


# --- golden -------------------------------------------------------------------------------


def golden_run() -> tuple[Run, EmotionTable]:
    """A log, and the emotions that it was made with: those of the product may change."""
    return read_runs([EVENTS], "main")[0], EmotionTable.load(GOLDEN / "emotions.toml")


def golden_shots(span: Span) -> list[Shot]:
    run, emotions = golden_run()
    return list(shots(run, Playback(run, emotions), span))


def as_line(shot: Shot) -> dict[str, Any]:
    weights = {label: round(w, 6) for label, w in shot.moment.weights.items() if round(w, 6)}
    return {"at_s": round(shot.at_s, 6), "emotion": weights, "face": shot.code.hex()}


def test_the_faces_are_the_golden_ones() -> None:
    """Weights to six digits; controls to one step of the quantisation, 1/128 or 0.1 degree.

    Controls are summed in float32, whose last bit differs between machines and may carry one
    over the edge of a step. Where a change of the faces is wanted, RENEW_GOLDEN=1 writes them
    anew.
    """
    lines = [as_line(shot) for shot in golden_shots(Span(FPS))]
    if os.environ.get("RENEW_GOLDEN"):
        FACES.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    golden = [json.loads(line) for line in FACES.read_text("utf-8").splitlines()]
    assert [line["at_s"] for line in lines] == [line["at_s"] for line in golden]
    for line, wanted in zip(lines, golden, strict=True):
        assert line["emotion"] == pytest.approx(wanted["emotion"], abs=2e-6), line["at_s"]
        face, old = (face_of(bytes.fromhex(each["face"])) for each in (line, wanted))
        assert np.abs(face.weights - old.weights).max() < 1.01 / 127, line["at_s"]
        angles = [(each.pitch, each.yaw, each.roll) for each in (face, old)]
        assert angles[0] == pytest.approx(angles[1], abs=0.101), line["at_s"]


def test_the_golden_log_shows_something() -> None:
    """It is no proof otherwise: emotions, speech, direct controls, blinks, a mood."""
    faces = golden_shots(Span(30.0, 0.0, 6.0))
    most = {
        label: max(shot.moment.weights.get(label, 0.0) for shot in faces)
        for label in ("happy", "surprised", "angry", "fearful")
    }
    assert min(most.values()) > 0.2, most
    assert max(shot.face["jawOpen"] for shot in faces) > 0.2
    assert max(shot.face["eyeBlinkLeft"] for shot in faces) > 0.9
    assert {shot.moment.event for shot in faces} == {None, "e1", "e2", "e3", "e4"}


def test_the_frame_rate_does_not_change_the_face() -> None:
    """Every third frame at 30 fps is a frame at 10."""
    slow, fast = golden_shots(Span(10.0, 0.0, 5.0)), golden_shots(Span(30.0, 0.0, 5.0))
    assert [shot.at_s for shot in slow] == pytest.approx([shot.at_s for shot in fast[::3]])
    for one, other in zip(slow, fast[::3], strict=True):
        assert np.abs(one.face.weights - other.face.weights).max() < 1.01 / 127


def test_a_part_is_the_same_as_in_the_whole() -> None:
    """--from and --to cut; what happened before is played all the same."""
    whole, part = golden_shots(Span(FPS, 0.0, 5.0)), golden_shots(Span(FPS, 1.0, 2.0))
    assert [shot.code for shot in part] == [s.code for s in whole if 1.0 - 1e-6 <= s.at_s < 2.0]
    assert len(part) == 12


def test_by_itself_it_begins_before_the_first_message_and_ends_after_all_is_over() -> None:
    """A second each; nothing is shown before the character has come."""
    faces = golden_shots(Span(FPS))
    assert faces[0].at_s == pytest.approx(2 / FPS)  # the character came at 0.1 s
    last = max(shot.at_s for shot in faces if shot.moment.weights["neutral"] < 0.999)
    assert 0.9 < faces[-1].at_s - last < 1.4


# --- the command --------------------------------------------------------------------------


@pytest.fixture
def golden_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_STATE__DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AVATAR_EMOTIONS__FILE", str(GOLDEN / "emotions.toml"))


def replayed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    status = main(["replay", str(EVENTS), "--fps", "6", "--renderer", "mesh", *arguments])
    out, err = capsys.readouterr()
    assert status == 0, err
    return [line for line in out.splitlines() if not line.startswith("warning: the portrait of")]


@pytest.mark.usefixtures("golden_settings")
def test_the_pixels_are_the_same_every_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte for byte, to a folder, to a video, and to digests alone."""
    folder = tmp_path / "frames"
    alone = replayed(capsys)
    assert replayed(capsys, "--out", str(folder))[1:] == alone[1:]
    assert alone[0].startswith("replayed: ")
    assert [line.split(":")[0] for line in alone[1:]] == ["faces  sha256", "pixels sha256"]

    index = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    assert {path.name for path in folder.glob("*.png")} == {line["file"] for line in index}
    assert int(alone[0].split()[1]) == len(index) > 20
    by_happiness = sorted(index, key=lambda line: line["emotion"]["happy"])
    pictures = [
        cv2.imread(str(folder / line["file"])) for line in (by_happiness[0], by_happiness[-1])
    ]
    assert pictures[0].shape == (128, 128, 3)
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 1.0

    part = ["--from", "1", "--to", "2", "--size", "64"]
    assert replayed(capsys, *part)[0] == "replayed: 6 frames, 1.000 s at 6 fps"


@pytest.mark.usefixtures("golden_settings")
def test_a_replay_makes_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With as many frames as it says."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "face.mp4"
    out = replayed(capsys, "--out", str(path), "--to", "2")
    assert out[0].startswith(f"{path} (")
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    assert len(frames) == int(out[0].split(": ")[1].split()[0]) == 11
    assert (frames[0].width, frames[0].height) == (128, 128)


@pytest.mark.usefixtures("golden_settings")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.jsonl"], "none.jsonl: cannot be read: No such file"),
        ([str(GOLDEN / "emotions.toml")], "emotions.toml:1: no line of an event log"),
        ([str(EVENTS), "--stage", "other"], "there is no stage 'other' in it; there is main"),
        ([str(EVENTS), "--fps", "0"], "--fps: expected 1 to 240"),
        ([str(EVENTS), "--size", "33"], "--size: expected an even number"),
        ([str(EVENTS), "--from", "-1"], "--from: expected seconds"),
        ([str(EVENTS), "--from", "3", "--to", "2"], "--to: expected a later moment"),
        ([str(EVENTS), "--from", "0", "--to", "0.05"], "--from: nothing of the run lies there"),
        ([str(EVENTS), "--out", str(EVENTS)], "expected a folder or a .mp4 or .webm file"),
        ([str(EVENTS), "--out", str(GOLDEN)], "is not empty"),
        ([str(EVENTS), "--out", "no/such/x.mp4"], "there is no folder no/such"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 78, one sentence, and nothing has been written."""
    before = {path: path.read_bytes() for path in GOLDEN.iterdir()}
    assert main(["replay", *arguments]) == 78
    assert problem in capsys.readouterr().err
    assert {path: path.read_bytes() for path in GOLDEN.iterdir()} == before


def test_other_emotions_are_refused_unless_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The faces would not be those of the log."""
    table = tmp_path / "emotions.toml"
    text = (GOLDEN / "emotions.toml").read_text()
    table.write_text(text.replace("max = 0.", "max = 0.1", 1))
    monkeypatch.setenv("AVATAR_STATE__DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AVATAR_EMOTIONS__FILE", str(table))
    arguments = ["replay", str(EVENTS), "--to", "0.5", "--renderer", "mesh"]
    assert main(arguments) == 78
    assert "the emotions are not those of the log" in capsys.readouterr().err
    assert main([*arguments, "--anyway"]) == 0


@pytest.mark.usefixtures("golden_settings")
def test_what_is_not_as_it_was_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing lines, an older file that is not there, another picture of the character, an
    earlier run in the same file."""
    stage, character, *rest = EVENTS.read_text().splitlines()
    log = tmp_path / "log"
    changed = [
        stage,
        stage.replace('"t_s": 1000.0', '"t_s": 990.0, "continued_s": 1000.0'),
        character.replace('"portrait": "', '"portrait": "00'),
        '{"type":"lost","lines":7}',
        *rest,
    ]
    log.write_text("\n".join(changed))
    assert main(["replay", str(log), "--to", "0.5", "--renderer", "mesh"]) == 0
    out = capsys.readouterr().out
    for sentence in (
        "the last of 2 runs of the stage main",
        "7 messages are missing from the log",
        "goes on from an older file",
        "the portrait of astronaut is not the one of the log",
    ):
        assert sentence in out
