"""LivePortrait as the daemon and the command line run it, on synthetic weights."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from orchestrator.__main__ import main
from orchestrator.lifecycle import ExitStatus
from pipeline.errors import ConfigError, RenderError
from pipeline.types import FaceControls
from tests.fakes.daemon import DaemonProcess
from tests.fakes.liveportrait_weights import Array

torch = pytest.importorskip("torch", reason="torch is not installed")

PATIENCE_S = 250.0
pytestmark = pytest.mark.timeout(300.0)


def wait_for(look: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline_s, f"{what} did not come about"
        time.sleep(0.2)


def test_the_command_line_draws_through_liveportrait(
    tmp_path: Path, weights_dir: Path, golden: Mapping[str, Array]
) -> None:
    """A photo and its 106 points give the picture that the model's own interface draws of them."""
    photo, points, out = tmp_path / "photo.png", tmp_path / "points.json", tmp_path / "out.png"
    cv2.imwrite(str(photo), cv2.cvtColor(golden["e2e/in_photo"], cv2.COLOR_RGB2BGR))
    points.write_text(json.dumps(golden["e2e/in_lmk106"].tolist()))
    arguments = ["render", "--renderer", "liveportrait", "--weights", str(weights_dir)]
    arguments += ["--portrait", str(photo), "--landmarks", str(points)]
    arguments += ["--expression", "happy", "--intensity", "0.8", "--out", str(out)]
    assert main(arguments) == ExitStatus.OK
    smiling = cv2.imread(str(out))
    assert smiling is not None
    assert smiling.shape == (512, 512, 3)
    assert smiling.std() > 10.0


def test_weights_that_are_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the file that is missing."""
    empty = tmp_path / "weights"
    empty.mkdir()
    arguments = ["render", "--renderer", "liveportrait", "--weights", str(empty)]
    assert main([*arguments, "--out", str(tmp_path / "x.png")]) != ExitStatus.OK
    said = capsys.readouterr().err
    assert "base_models" in said
    assert ".pth" in said
    assert main([*arguments[:-1], str(tmp_path / "none"), "--out", "x.png"]) == ExitStatus.CONFIG
    assert "--weights" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_named(weights_dir: Path) -> None:
    """Asking for CUDA on a machine without it is an error of the setting."""
    from pipeline.liveportrait.renderer import LivePortraitRenderer, Options

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    for options in (Options(weights_dir, device="cuda:0"), Options(weights_dir, on_cpu=False)):
        with pytest.raises(ConfigError, match=r"liveportrait\.device"):
            LivePortraitRenderer.load(options)


def test_what_others_prepared_is_refused() -> None:
    """A portrait of another renderer is a mistake that is said."""
    from pipeline.liveportrait.renderer import LivePortraitRenderer

    with pytest.raises(RenderError, match="prepared by LivePortrait"):
        LivePortraitRenderer.render(_Nobody(), object(), FaceControls(), (64, 64))  # type: ignore[arg-type]


class _Nobody:
    """Stands in for a renderer that is not reached."""


def health(daemon: DaemonProcess) -> dict[str, Any]:
    body: dict[str, Any] = httpx.get(f"{daemon.http}/health").json()
    return body


def snapshot(daemon: DaemonProcess) -> Array:
    data = httpx.get(f"{daemon.http}/v1/snapshot.jpg").content
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_the_daemon_takes_liveportrait_over_and_survives_its_weights(
    tmp_path: Path, weights_dir: Path
) -> None:
    """It publishes at once without the weights, takes them when they come, and keeps publishing
    when they go."""
    weights = tmp_path / "weights"
    settings = {
        "AVATAR_RENDERER__BACKEND": "liveportrait",
        "AVATAR_LIVEPORTRAIT__WEIGHTS_DIR": str(weights),
        "AVATAR_LIVEPORTRAIT__THREADS": "1",
    }
    with DaemonProcess(tmp_path / "state", **settings) as daemon:
        first = "appearance_feature_extractor.pth"
        wait_for(lambda: first in (health(daemon)["degraded"] or ""), "the reason")
        body = health(daemon)
        assert (body["status"], body["renderer"], body["model_loaded"]) == (
            "degraded", "mesh", False,
        )  # fmt: skip
        assert httpx.get(f"{daemon.http}/ready").status_code == 200
        photo_like = snapshot(daemon)

        weights.symlink_to(weights_dir)
        wait_for(lambda: health(daemon)["renderer"] == "liveportrait", "LivePortrait")
        body = health(daemon)
        assert (body["status"], body["device"], body["model_loaded"]) == ("ok", "cpu", True)
        assert body["degraded"] is None
        # Synthetic weights draw another face than the photo's.
        wait_for(lambda: np.abs(snapshot(daemon) - photo_like.astype(float)).mean() > 10.0, "it")

        weights.unlink()
        before = httpx.get(f"{daemon.http}/v1/state").json()["seq"]
        wait_for(
            lambda: (
                snapshot(daemon).size > 0
                and httpx.get(f"{daemon.http}/v1/state").json()["seq"] > before + 5
            ),
            "more frames",
        )
        # It draws ahead all the time: the stop comes in the middle of a frame.
        assert daemon.stop() == ExitStatus.OK


def test_a_truncated_file_is_named_and_the_stream_goes_on(
    tmp_path: Path, weights_dir: Path
) -> None:
    """A damaged checkpoint is a reason that names it, not the end of the daemon."""
    weights = tmp_path / "weights"
    shutil.copytree(weights_dir, weights, copy_function=_link)
    victim = weights / "liveportrait" / "base_models" / "motion_extractor.pth"
    victim.unlink()
    victim.write_bytes((weights_dir / victim.relative_to(weights)).read_bytes()[:100_000])
    settings = {
        "AVATAR_RENDERER__BACKEND": "liveportrait",
        "AVATAR_LIVEPORTRAIT__WEIGHTS_DIR": str(weights),
    }
    with DaemonProcess(tmp_path / "state", **settings) as daemon:
        wait_for(lambda: "motion_extractor.pth" in (health(daemon)["degraded"] or ""), "the reason")
        assert httpx.get(f"{daemon.http}/ready").status_code == 200
        assert snapshot(daemon).std() > 10.0
        assert daemon.stop() == ExitStatus.OK


def _link(source: str, target: str) -> str:
    Path(target).symlink_to(source)
    return target
