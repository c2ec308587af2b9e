"""Checking weights: the real catalogue, and real files where they are small."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from orchestrator.__main__ import main
from orchestrator.lifecycle import ExitStatus
from orchestrator.models.catalogue import bundled_catalogue
from pipeline.liveportrait.files import FLAT_FILES, SMALL_FILE
from tests.fakes import liveportrait_weights
from tests.fakes.face_networks import (
    DETECTOR,
    LANDMARKS_106,
    LANDMARKS_203,
    write_detector,
    write_landmarks_106,
    write_landmarks_203,
)

SMALL = f"liveportrait/retargeting_models/{SMALL_FILE}"
FEATURES = f"liveportrait/base_models/{FLAT_FILES[0]}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest flat checkpoint and the shared one, in the official form."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    folder: Path = tmp_path_factory.mktemp("made")
    liveportrait_weights.write_checkpoints(folder, seed=1, only=(FLAT_FILES[0], SMALL_FILE))
    # The released file is larger by entries that are not read.
    content = torch.load(folder / f"{SMALL}.pth", weights_only=True)
    content["other"] = {"weight": torch.zeros(375_000)}
    torch.save(content, folder / f"{SMALL}.pth")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "weights"))


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """File to its line."""
    assert main(["models", "check", str(folder)]) == ExitStatus.CONFIG
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[1]: line for line in lines[:-1]}


def test_files() -> None:
    """Every checkpoint that the loader asks for is in the catalogue, and needed."""
    paths = {Path(file.path).stem for file in bundled_catalogue().files if file.needed}
    assert paths == {*FLAT_FILES, SMALL_FILE}
    assert bundled_catalogue().sets["insightface"].licence == "non-commercial research only"


def test_check_reads_the_layout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint with the right tensors is right, one that lacks a tensor is named."""
    import torch

    found = check(folder, capsys)
    for path in (FEATURES, SMALL):
        assert re.match("ok .*no SHA-256 known, layout right", found[f"{path}.pth"])
    content = torch.load(folder / f"{FEATURES}.pth", weights_only=True)
    del content["second.bias"]
    torch.save(content, folder / f"{FEATURES}.pth")
    line = check(folder, capsys)[f"{FEATURES}.pth"]
    assert re.match("FAIL .*second.bias: expected .*Fetch it anew", line)


@pytest.mark.parametrize("place", ["", "liveportrait/base_models/"])
def test_check_takes_safetensors(
    place: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The community form is found where the loader finds it."""
    import torch

    content = torch.load(folder / f"{FEATURES}.pth", weights_only=True)
    (folder / f"{FEATURES}.pth").unlink()
    name = f"{place}{FLAT_FILES[0]}.safetensors"
    liveportrait_weights.write_safetensors(folder / name, content)
    line = check(folder, capsys)[name]
    assert re.match("ok .*in place of the official file, layout right", line)
    (folder / name).write_bytes((folder / name).read_bytes()[:1000])
    assert check(folder, capsys)[name].startswith("FAIL")


def test_check_knows_what_is_no_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pointer file, a page of HTML and a file of zeros are told, with what to do."""
    pytest.importorskip("insightface", reason="insightface is not installed")
    generator = "liveportrait/base_models/spade_generator.pth"
    (folder / DETECTOR).parent.mkdir(parents=True)
    (folder / DETECTOR).write_bytes(bytes(16_923_827))
    (folder / LANDMARKS_106).write_bytes(bytes(5_030_888))
    (folder / generator).write_bytes(b"version https://git-lfs")
    (folder / LANDMARKS_203).write_bytes(b"<html></html>")
    found = check(folder, capsys)
    assert re.match("FAIL .*that do not load.*Fetch it anew", found[str(DETECTOR)])
    assert "layout not checked (det_10g.onnx" in found[str(LANDMARKS_106)]
    assert re.match("FAIL .*23 bytes that do not load.*Fetch it anew", found[generator])
    assert re.match("FAIL .*Fetch it anew", found[str(LANDMARKS_203)])


def test_check_opens_the_face_networks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that loads but is not the published one is noted; each stands for itself."""
    pytest.importorskip("insightface", reason="insightface is not installed")
    write_landmarks_203(folder, np.full((203, 2), 0.5))
    write_detector(folder)
    points = write_landmarks_106(folder, np.full((106, 2), 0.5))
    found = check(folder, capsys)
    assert re.match("ok .*no SHA-256 known, layout right", found[str(LANDMARKS_203)])
    for path in (DETECTOR, LANDMARKS_106):
        assert re.match("note .* are published, layout right", found[str(path)])
    points.write_bytes(bytes(5_030_888))
    found = check(folder, capsys)
    assert found[str(LANDMARKS_106)].startswith("FAIL")
    assert "layout right" in found[str(DETECTOR)]


def test_check_without_torch_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be looked at is not called right."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    found = check(folder, capsys)
    assert re.match("ok .*layout not checked .torch is not", found[f"{FEATURES}.pth"])
    (folder / f"{FEATURES}.pth").write_bytes(b"short")
    found = check(folder, capsys)
    assert re.match("FAIL .*5 bytes where about 3.3 MiB", found[f"{FEATURES}.pth"])


def test_check_is_content_when_everything_needed_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 0 takes every needed file, and none of the others."""
    checkpoints = pytest.importorskip(
        "pipeline.liveportrait.checkpoints", reason="torch is not installed"
    )
    monkeypatch.setattr(checkpoints, "check_checkpoint", lambda folder, stem: folder / stem)
    needed = [tmp_path / file.path for file in bundled_catalogue().files if file.needed]
    for path in needed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stands for a checkpoint that loads")
    for folder in ([str(tmp_path)], ["--to", str(tmp_path)]):
        assert main(["models", "check", *folder]) == 0
        assert "LivePortrait would load" in capsys.readouterr().out
    needed[2].unlink()
    assert main(["models", "check", str(tmp_path)]) == ExitStatus.CONFIG
    assert "would not load" in capsys.readouterr().out
