"""Opening ONNX networks: which device they run on, and what happens when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from pipeline.liveportrait.errors import CheckpointError
from pipeline.liveportrait.onnx_network import Network, open_network, usable_providers
from tests.fakes.face_networks import LANDMARKS_203, write_landmarks_203

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TRUE_SESSION = onnxruntime.InferenceSession


class Device:
    """A GPU that stands behind onnxruntime's sessions, and fails as told.

    Args:
        opens: whether sessions open on it.
        runs: how many runs it does before its memory is full.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, opens: bool = True, runs: int) -> None:
        self.opens, self.runs = opens, runs
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU, CUDA])
        monkeypatch.setattr(onnxruntime, "InferenceSession", self._session)

    def _session(self, file: str, *, providers: list[str], **options: Any) -> Any:
        if CUDA in providers and not self.opens:
            raise RuntimeError("no CUDA driver")
        return _OnDevice(self, TRUE_SESSION(file, providers=[CPU], **options), providers)


class _OnDevice:
    def __init__(self, device: Device, session: Any, providers: list[str]) -> None:
        self._device, self._session, self._providers = device, session, providers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return self._providers

    def set_providers(self, providers: list[str]) -> None:
        self._providers = providers

    def run(self, outputs: Any, feed: Any) -> Any:
        if CUDA in self._providers:
            if self._device.runs == 0:
                raise RuntimeError("CUDA out of memory")
            self._device.runs -= 1
        return self._session.run(outputs, feed)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_landmarks_203(tmp_path, np.full((203, 2), 0.25))


def opened(file: Path) -> Network:
    return open_network(
        file, "the network", takes=("input", (1, 3, 224, 224)), gives=(None, None, (406,))
    )


def points(network: Network) -> Any:
    return network.run(None, {"input": np.ones((1, 3, 224, 224), np.float32)})[2]


def test_cuda_goes_before_the_cpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wanted but not there is left out; the CPU is always there."""
    assert usable_providers() == (CPU,)
    assert usable_providers([CUDA]) == (CPU,)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["X", CPU, CUDA])
    assert usable_providers() == (CUDA, CPU)
    assert usable_providers([CPU]) == (CPU,)


def test_a_device_that_works_is_used(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the end, without a word."""
    Device(monkeypatch, runs=9)
    with capture_logs() as lines:
        network = opened(file)
        assert (points(network) == 0.25).all()
    assert network.get_providers() == [CUDA, CPU]
    assert lines == []


@pytest.mark.parametrize(
    ("opens", "runs"), [(False, 0), (True, 0), (True, 1)], ids=["never", "at once", "later"]
)
def test_where_the_device_fails_the_cpu_goes_on(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    opens: bool,
    runs: int,
) -> None:
    """It does not open, fails its trial, or fails later: the same points, one line in the log."""
    Device(monkeypatch, opens=opens, runs=runs)
    with capture_logs() as lines:
        network = opened(file)
        for _ in range(2):
            assert (points(network) == 0.25).all()
    assert network.get_providers() == [CPU]
    assert [(line["event"], line["instead_of"]) for line in lines] == [("onnx_on_the_cpu", CUDA)]
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file_is_the_files_fault_on_any_device(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another device does not make it a network, and none is blamed."""
    Device(monkeypatch, runs=9)
    file.write_bytes(b"<html>")
    with capture_logs() as lines, pytest.raises(CheckpointError, match="6 bytes that do not load"):
        opened(file)
    assert lines == []


def test_a_fault_on_the_cpu_is_not_hidden(file: Path) -> None:
    """There is nowhere left to go on."""
    network = opened(file)
    with pytest.raises(Exception, match="input"):
        network.run(None, {"input": np.ones((1, 3, 5, 5), np.float32)})


def test_a_folder_in_the_files_place_is_no_file(tmp_path: Path) -> None:
    """It is missing, and how to get it is said."""
    (tmp_path / LANDMARKS_203).mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"models download.*no such file"):
        opened(tmp_path / LANDMARKS_203)
