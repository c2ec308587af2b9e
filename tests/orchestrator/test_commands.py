"""The sub-commands that need no daemon: check and render."""

import json
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

from orchestrator.__main__ import main
from orchestrator.settings import default_config_dir

ASTRONAUT = default_config_dir() / "characters" / "astronaut"


def image(path: Path) -> np.ndarray:
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(int)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's is read or written."""
    monkeypatch.setenv("AVATAR_STATE__DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AVATAR_SERVER__PORT", "0")


def test_render_draws_the_expression(tmp_path: Path) -> None:
    """Two expressions of one portrait are two pictures of the asked size; formats by suffix."""
    pictures = []
    for label, suffix in (("neutral", ".png"), ("shock", ".jpg")):
        out = tmp_path / f"{label}{suffix}"
        status = main(["render", "--expression", label, "--size", "256", "--out", str(out)])
        assert status == 0
        pictures.append(image(out))
    assert pictures[0].shape == (256, 256, 3)
    assert np.abs(pictures[0] - pictures[1]).mean() > 1.0


def test_render_takes_a_portrait_and_landmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--portrait with --landmarks draws it, single controls on top included."""
    out = tmp_path / "jaw.png"
    arguments = ["render", "--portrait", str(ASTRONAUT / "portrait.jpg")]
    arguments += ["--landmarks", str(ASTRONAUT / "landmarks.json"), "--out", str(out)]
    assert main([*arguments, "--control", "jawOpen=0.8", "--control", "yaw=-5"]) == 0
    assert "512x512, mesh" in capsys.readouterr().out
    opened = image(out)
    assert main(arguments) == 0
    assert np.abs(opened - image(out)).mean() > 1.0


def test_render_draws_a_contact_sheet(tmp_path: Path) -> None:
    """--sheet puts emotions, blink, gaze, jaw and head turns on one picture."""
    out = tmp_path / "sheet.jpg"
    assert main(["render", "--sheet", "--out", str(out)]) == 0
    height, width, _ = image(out).shape
    assert width > 4 * 300
    assert height > 12 * 300


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (["--out", "x.gif"], "--out"),
        (["--expression", "hapy", "--out", "x.png"], "hapy"),
        (["--intensity", "2", "--out", "x.png"], "--intensity"),
        (["--control", "jawOpn=1", "--out", "x.png"], "jawOpn"),
        (["--control", "jawOpen=2", "--out", "x.png"], "jawOpen"),
        (["--control", "jawOpen=nan", "--out", "x.png"], "jawOpen"),
        (["--portrait", "none.jpg", "--out", "x.png"], "none.jpg"),
        (["--size", "100000", "--out", "x.png"], "--size: expected 16 to 2048"),
        (["--landmarks", "points.json", "--out", "x.png"], "--portrait"),
        (["--out", "no/such/folder/x.png"], "--out"),
    ],
)
def test_render_refuses_with_a_reason(
    extra: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A wrong option ends with a status and a sentence that names it, before a model is loaded."""
    monkeypatch.chdir(tmp_path)
    assert main(["render", *extra]) in (70, 78)
    out, err = capsys.readouterr()
    assert problem in err
    assert not out
    assert not list(tmp_path.glob("x.*"))


def test_a_picture_without_a_face_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No face is a clear error, never a distorted picture."""
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    out = tmp_path / "out.png"
    status = main(["render", "--portrait", str(tmp_path / "noise.png"), "--out", str(out)])
    assert status == 70
    assert "face" in capsys.readouterr().err
    assert not out.exists()


def test_check_says_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    """With the bundled configuration nothing fails."""
    assert main(["check"]) == 0
    text = capsys.readouterr().out
    assert "FAIL" not in text
    for topic in ("emotions", "astronaut", "mesh on cpu", "port", "state", "would run"):
        assert topic in text


def test_check_finds_what_would_stop_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A taken port, an unknown character and an unwritable state directory are each named."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVATAR_STATE__DIR", str(tmp_path / "file" / "below"))
    monkeypatch.setenv("AVATAR_STAGE__CHARACTER", "nobody")
    monkeypatch.setenv("AVATAR_RENDERER__BACKEND", "liveportrait")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("AVATAR_SERVER__PORT", str(taken.getsockname()[1]))
        assert main(["check"]) == 78
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    for problem in ("server.port", "nobody", "liveportrait.weights_dir", "file"):
        assert any(problem in line for line in failed), failed


def test_check_looks_at_the_other_ways_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trackers' port is tried, publishers are counted, an address open to others is refused."""
    monkeypatch.setenv("AVATAR_EVENTS__CONNECT", '["ws://a.example/", "wss://b.example/"]')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AVATAR_VMC__PORT", str(taken.getsockname()[1]))
        assert main(["check"]) == 78
    text = capsys.readouterr().out
    assert "vmc.port: UDP 127.0.0.1" in text
    assert "2 will be dialled" in text
    assert main(["check"]) == 0
    assert "which is free" in capsys.readouterr().out
    monkeypatch.setenv("AVATAR_VMC__HOST", "0.0.0.0")
    assert main(["check"]) == 78
    assert "vmc.host: listening on 0.0.0.0" in capsys.readouterr().out


def test_settings_errors_end_with_their_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command refuses wrong settings with 78 and the key's full path."""
    monkeypatch.setenv("AVATAR_STAGE__FPS", "0")
    for command in (["check"], ["run"], ["send", "happy"], ["render", "--out", "x.png"]):
        assert main(command) == 78
        assert "stage.fps" in capsys.readouterr().err


def test_landmarks_of_another_picture_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Points that lie outside the portrait name the landmarks file."""
    points = json.loads((ASTRONAUT / "landmarks.json").read_text())
    points["points"] = [[x + 5000, y] for x, y in points["points"]]
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(points))
    arguments = ["render", "--portrait", str(ASTRONAUT / "portrait.jpg")]
    assert main([*arguments, "--landmarks", str(wrong), "--out", str(tmp_path / "o.png")]) != 0
    assert "wrong.json" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["send", "happy"], ["record", "face.mp4"]])
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:9/?token=s-e-c-r-e-t", "'http://127.0.0.1:9/' must end there"),
        ("ws://127.0.0.1:9/#s-e-c-r-e-t", "must end there"),
        ("http://me:s-e-c-r-e-t@127.0.0.1:9", "use the token"),
        ("ftp://s-e-c-r-e-t@127.0.0.1", "'ftp://127.0.0.1' is no address of a daemon"),
        ("http://s-e-c-r-e-t@[::1", "is no address"),
        ("http://me:s-e-c-r-e-t#1@127.0.0.1", "'http://...' is no address"),
        ("http://me:s-e-c-r-e-t\N{ACCOUNT OF}@127.0.0.1", "'http://127.0.0.1' is no address"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_secrets(
    command: list[str], url: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anybody is dialled; a token that was put into it is not said again."""
    pytest.importorskip("av", reason="PyAV is not installed")
    assert main([*command, "--url", url]) == 78
    told = capsys.readouterr().err
    assert "--url: " in told
    assert problem in told
    assert "s-e-c-r-e-t" not in told
