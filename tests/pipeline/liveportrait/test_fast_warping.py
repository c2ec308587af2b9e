"""W's fast form in the shapes that other devices ask for, against the plain form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fakes.liveportrait_weights import Array

torch = pytest.importorskip("torch", reason="torch is not installed")

from pipeline.liveportrait import sampling, warping_module  # noqa: E402
from pipeline.liveportrait.fast_warping import FastWarping  # noqa: E402

if TYPE_CHECKING:
    from pipeline.liveportrait.networks import Networks

pytestmark = pytest.mark.timeout(180)

CPU = torch.device("cpu")


@pytest.mark.parametrize(("lanes", "by_slices"), [(8, False), (1, True)])
def test_other_layouts_give_the_plain_forms_numbers(
    networks: Networks,
    plain: Mapping[str, Array],
    golden: Mapping[str, Array],
    lanes: int,
    by_slices: bool,
) -> None:
    """Channels padded for tensor cores, volumes by slices for MPS."""
    form = FastWarping(
        networks.warping_module, torch.float32, CPU, lanes=lanes, by_slices=by_slices
    )
    with torch.inference_mode():
        source = form.prepare(torch.from_numpy(plain["volume"]), torch.from_numpy(golden["x_s"]))
        warped = form(source, torch.from_numpy(golden["x_d"]))
    for name, found in warped._asdict().items():
        expected = plain[name]
        assert np.linalg.norm(found.numpy() - expected) < 2e-5 * np.linalg.norm(expected), name


def test_the_plain_form_runs_without_a_sampling_kernel(
    networks: Networks,
    plain: Mapping[str, Array],
    golden: Mapping[str, Array],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gathering in plain operations serves the whole network."""
    monkeypatch.setattr(warping_module, "sample", sampling.sample_by_gather)
    with torch.inference_mode():
        warped = networks.warping_module(
            torch.from_numpy(plain["volume"]),
            kp_source=torch.from_numpy(golden["x_s"]),
            kp_driving=torch.from_numpy(golden["x_d"]),
        )
    expected = plain["out"]
    assert np.linalg.norm(warped.out.numpy() - expected) < 2e-5 * np.linalg.norm(expected)
