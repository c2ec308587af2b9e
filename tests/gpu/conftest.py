"""Fixtures of the tests that need an NVIDIA GPU; without one all of them are skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipeline.liveportrait.conftest import golden, networks, one_thread, weights_dir

__all__ = ["golden", "networks", "one_thread", "weights_dir"]


@pytest.fixture(scope="session", autouse=True)
def cuda() -> None:
    """Skip where there is none; before any fixture that costs something."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """Every test finds the device's memory as empty as it can be."""
    import torch

    from pipeline.liveportrait.devices import release

    release("cuda")
    yield
    torch.cuda.synchronize()
    release("cuda")
