"""Weights, networks and reference outputs, made once and shared by the workers of one run."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.fakes import liveportrait_weights

if TYPE_CHECKING:
    import torch

    from pipeline.liveportrait.networks import Networks

Array = liveportrait_weights.Array


@pytest.fixture(scope="session")
def golden() -> Mapping[str, Array]:
    """Inputs and reference outputs for weight seed 1."""
    return liveportrait_weights.golden()


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Torch on one thread, so that several workers do not fight for the cores."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Path]:
    """A folder in the released layout with synthetic weights, seed 1; 520 MB until the end."""
    folder = _shared_folder(tmp_path_factory)
    user = folder / f"user-{os.getpid()}"
    with _locked(folder):
        user.touch()
        if not (folder / "complete").exists():
            liveportrait_weights.write_checkpoints(folder / "weights", seed=1)
            (folder / "complete").touch()
    yield folder / "weights"
    with _locked(folder):
        user.unlink()
        if not list(folder.glob("user-*")):
            shutil.rmtree(folder / "weights")
            (folder / "complete").unlink()


@pytest.fixture(scope="session")
def networks(weights_dir: Path) -> Networks:
    """The plain networks with the synthetic weights."""
    from pipeline.liveportrait.checkpoints import load_networks

    return load_networks(weights_dir)


@pytest.fixture(scope="session")
def plain(
    networks: Networks,
    golden: Mapping[str, Array],
    weights_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Mapping[str, Array]:
    """What the plain networks make of the golden inputs; one worker runs them."""
    folder = _shared_folder(tmp_path_factory)
    file = folder / "plain.npz"
    with _locked(folder):
        if not file.exists():
            np.savez(file, **{k: v.numpy() for k, v in _run_plain(networks, golden).items()})
    with np.load(file) as arrays:
        return dict(arrays)


def _run_plain(networks: Networks, golden: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    import torch

    with torch.inference_mode():
        volume = networks.appearance_feature_extractor(_as_image(golden["in/img256"]))
        warped = networks.warping_module(
            volume,
            kp_source=torch.from_numpy(golden["x_s"]),
            kp_driving=torch.from_numpy(golden["x_d"]),
        )
        image = networks.spade_generator(warped.out)
    return {"volume": volume, **warped._asdict(), "image": image}


def _as_image(picture: Array) -> torch.Tensor:
    """(H, W, 3) uint8 to the (1, 3, H, W) float32 in [0, 1] that networks take."""
    import torch

    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "liveportrait"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[Any]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
