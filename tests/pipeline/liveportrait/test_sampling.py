"""The sampler in plain operations against torch's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from pipeline.liveportrait import sampling  # noqa: E402
from pipeline.liveportrait.sampling import identity_grid, sample, sample_by_gather  # noqa: E402


@pytest.fixture(autouse=True)
def _seeded(one_thread: None) -> None:
    torch.manual_seed(0)


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    assert found.shape == expected.shape
    return bool((found - expected).abs().max() <= tolerance)


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_rows_gathered_and_weighted_are_the_sample(spread: float, batch: int) -> None:
    """Inside, across the border and far outside, every picture of a batch from its own volume."""
    volume = torch.randn(batch, 5, 4, 6, 8, dtype=torch.float64)
    grid = torch.randn(batch, 3, 5, 7, 3, dtype=torch.float64) * spread
    assert close(sample_by_gather(volume, grid), sample(volume, grid), 1e-12)


def test_grid_points_on_the_border_read_alike() -> None:
    """Exactly -1, 1, the first and last centre, and half a cell beyond."""
    edges = torch.tensor((-1.25, -1.0, -0.75, 0.0, 0.75, 1.0, 1.25), dtype=torch.float64)
    grid = torch.cartesian_prod(edges, edges, edges).reshape(1, 7, 7, 7, 3)
    volume = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64)
    assert close(sample_by_gather(volume, grid), sample(volume, grid), 1e-12)


def test_the_networks_own_grid_in_float32() -> None:
    """The full size, deformed a little."""
    volume = torch.randn(1, 32, 16, 64, 64)
    grid = identity_grid(16, 64, 64, like=volume)[None]
    grid = grid + torch.randn_like(grid) * 0.1
    assert close(sample_by_gather(volume, grid), sample(volume, grid), 2e-4)


def test_what_is_not_a_number_is_seen() -> None:
    """A broken deformation must not read as a clean picture, nor end the process."""
    grid = torch.zeros(1, 1, 1, 2, 3)
    grid[0, 0, 0, 0, 0] = float("nan")
    found = sample_by_gather(torch.ones(1, 1, 2, 2, 2), grid)
    assert torch.isnan(found[..., 0]).all()
    assert torch.isfinite(found[..., 1]).all()


def test_devices_without_a_kernel_take_the_plain_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which one runs depends on the device alone."""
    monkeypatch.setattr(sampling, "sample_by_gather", lambda volume, grid: "gathered")

    class OnMps:
        device = torch.device("mps")

    assert sample(OnMps(), OnMps()) == "gathered"  # type: ignore[arg-type, comparison-overlap]
