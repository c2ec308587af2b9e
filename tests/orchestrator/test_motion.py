"""Recorded motion from the shell to the face: the commands, the check, an emotion made of it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.expression.emotions import EmotionTable
from orchestrator.expression.idle import IdleLife
from orchestrator.expression.performance import Performance
from orchestrator.expression.sequencer import Sequencer
from orchestrator.motion import read_motion
from orchestrator.settings import default_config_dir
from pipeline.errors import ConfigError
from pipeline.types import EmotionEvent, FaceControls
from tests.fakes.motions import pickled, recorded, with_offsets

GRIN = {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9, "jawOpen": 0.4, "eyeBlinkLeft": 0.3,
        "eyeBlinkRight": 0.3}  # fmt: skip
STEPS = (0.0, 0.2, 0.6, 1.0, 0.5)
EMOTION = """
[broad_grin]
aliases = ["beaming grins"]
max = 1.0
attack_ms = 200
hold_ms = 1000
decay_ms = 400
motion = "grin.motion"
"""


def faces() -> list[FaceControls]:
    """Rest to a grin with the head turned, and half back."""
    return [
        FaceControls.of(**{n: w * step for n, w in GRIN.items()}, yaw=10.0 * step) for step in STEPS
    ]


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return pickled(tmp_path / "grin.pkl", recorded(*faces()))


@pytest.fixture
def emotions(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled table and one recorded emotion, imported; the settings name it."""
    assert main(["motion", "import", str(template)]) == 0
    path = tmp_path / "emotions.toml"
    path.write_text((default_config_dir() / "emotions.toml").read_text("utf-8") + EMOTION, "utf-8")
    monkeypatch.setenv("AVATAR_EMOTIONS__FILE", str(path))
    monkeypatch.setenv("AVATAR_STATE__DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AVATAR_SERVER__PORT", "0")
    return path


def test_import_writes_a_motion_file_and_says_what_it_shows(
    tmp_path: Path, template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the template unless --out says otherwise; frames, duration, peak, fit and controls."""
    out = tmp_path / "smiling.motion"
    assert main(["motion", "import", str(template), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    for part in ("5 frames at 25 fps, 0.20 s", "eyes and lips", "frame 3 of 0 to 4, at 0.12 s",
                 "show 100% of", "yaw 10.0", 'motion = "smiling.motion"'):  # fmt: skip
        assert part in text
    assert len(read_motion(out)) == len(STEPS)
    assert main(["motion", "import", str(template)]) == 0
    assert (tmp_path / "grin.motion").read_bytes() == out.read_bytes()


def test_show_says_the_face_of_any_frame(
    tmp_path: Path, template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a motion file as of a template that is not imported yet."""
    assert main(["motion", "import", str(template)]) == 0
    capsys.readouterr()
    assert main(["motion", "show", str(tmp_path / "grin.motion")]) == 0
    shown = capsys.readouterr().out
    assert "mouthSmileLeft 0.90" in shown
    assert main(["motion", "show", str(template)]) == 0
    assert capsys.readouterr().out == shown
    assert main(["motion", "show", str(template), "--frame", "4"]) == 0
    text = capsys.readouterr().out
    assert "face      frame 4" in text
    assert "mouthSmileLeft 0.45" in text
    assert main(["motion", "show", str(template), "--frame", "0"]) == 0
    assert "controls  none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["import", "none.pkl"], "none.pkl: cannot be read: No such file"),
        (["import", "."], "cannot be read: Is a directory"),
        (["import", "evil.pkl"], "the name posix.system"),
        (["import", "grin.pkl", "--out", "emotions.toml"], "--out: expected a file that ends in"),
        (["import", "grin.pkl", "--out", "no/such.motion"], "--out: no/such.motion: cannot be"),
        (["show", "grin.pkl", "--frame", "5"], "--frame: expected a frame from 0 to 4, got 5"),
        (["show", "text.motion"], "not a motion file; `motion import` makes one"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_written(
    arguments: list[str],
    problem: str,
    template: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A sentence that names the file or option, exit status 78."""
    folder = template.parent
    monkeypatch.chdir(folder)
    (folder / "text.motion").write_text("grin")
    (folder / "emotions.toml").write_text("kept")

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("touch ran",)

    (folder / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    before = {path.name for path in folder.iterdir()}
    assert main(["motion", *arguments]) == 78
    assert problem in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == before
    assert (folder / "emotions.toml").read_text() == "kept"


def test_a_recorded_emotion_plays_like_any_other(emotions: Path) -> None:
    """Template to table to sequencer to face: what was recorded is what is on at full strength."""
    table = EmotionTable.load(emotions, motions=read_motion)
    assert table.resolve("Beaming Grins") == "broad_grin"
    assert table["broad_grin"].controls.weights == pytest.approx(
        FaceControls.of(**GRIN).weights, abs=0.03
    )
    sequencer, performance = Sequencer(table), Performance(table, IdleLife(0, enabled=False))
    sequencer.push(EmotionEvent("a", "broad_grin"), 0.0)

    def face(now_s: float) -> FaceControls:
        return performance.controls(sequencer.sample(now_s).weights, now_s)

    before, during, full = face(0.0), face(0.1), face(0.9)
    assert before["mouthSmileLeft"] == 0.0 < during["mouthSmileLeft"] < full["mouthSmileLeft"]
    for name, weight in GRIN.items():
        assert full[name] == pytest.approx(weight, abs=0.03), name
    assert full.yaw == pytest.approx(10.0, abs=0.1)
    assert face(9.0)["mouthSmileLeft"] == 0.0


def test_check_says_how_well_recorded_emotions_map(
    emotions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A good fit is ok, a bad one is noted, a missing or broken file stops the boot."""
    assert main(["check"]) == 0
    text = capsys.readouterr().out
    assert "broad_grin: frame 3 of" in text
    assert "controls show 100% of its keypoint motion" in text

    offsets = with_offsets(recorded(*faces()).exp[0] + 0.05)
    offsets.save(tmp_path / "grin.motion")
    assert main(["check"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "broad_grin: frame 1" in line]
    assert lines[0].startswith("note")

    (tmp_path / "grin.motion").unlink()
    assert main(["check"]) == 78
    text = capsys.readouterr().out
    assert "grin.motion" in text
    assert f"{emotions}: broad_grin.motion: " in text
    assert "No such file" in text


def test_render_draws_a_recorded_emotion(emotions: Path, tmp_path: Path) -> None:
    """From the shell as in the daemon."""
    for label in ("neutral", "broad_grin"):
        out = str(tmp_path / f"{label}.png")
        assert main(["render", "--expression", label, "--size", "128", "--out", out]) == 0
    assert (tmp_path / "broad_grin.png").read_bytes() != (tmp_path / "neutral.png").read_bytes()


def test_a_template_in_a_motions_place_is_refused(emotions: Path, template: Path) -> None:
    """The daemon itself never reads a pickle."""
    (emotions.parent / "grin.motion").write_bytes(template.read_bytes())
    with pytest.raises(ConfigError, match="not a motion file; `motion import` makes one"):
        EmotionTable.load(emotions, motions=read_motion)
