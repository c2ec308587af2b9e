"""The plain networks against the reference's outputs, in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fakes.liveportrait_weights import Array, layout

torch = pytest.importorskip("torch", reason="torch is not installed")

if TYPE_CHECKING:
    from pipeline.liveportrait.networks import Networks

pytestmark = pytest.mark.timeout(180)


def relative(found: Array, expected: Array) -> float:
    """Norm of the difference over the norm."""
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def as_image(picture: Array) -> torch.Tensor:
    """(H, W, 3) uint8 to the (1, 3, H, W) float32 in [0, 1] that networks take."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def test_state_dicts_have_the_released_keys_shapes_and_dtypes(networks: Networks) -> None:
    """Every network's state dict is exactly what its checkpoint file holds."""
    for file in layout()["files"]:
        for part in file["parts"]:
            state = networks.by_name()[part["module"]].state_dict()
            found = {key: (tuple(t.shape), str(t.dtype)) for key, t in state.items()}
            assert found == {
                t["key"]: (tuple(t["shape"]), f"torch.{t['dtype']}") for t in part["tensors"]
            }


def test_motion_extractor_gives_the_reference_heads(
    networks: Networks, golden: Mapping[str, Array]
) -> None:
    """All seven heads agree, and so do the layers on the way there."""
    with traced(networks.motion_extractor, "M", golden) as traces, torch.inference_mode():
        heads = networks.motion_extractor(as_image(golden["in/img256"]))
    for name, value in heads.items():
        assert relative(value.numpy(), golden[f"M_raw/{name}"]) < 1e-5, name
    assert len(traces) == 8
    for name, value in traces.items():
        assert relative(value, golden[f"trace/M/{name}"]) < 1e-5, name


def test_appearance_volume_is_the_references(
    plain: Mapping[str, Array], golden: Mapping[str, Array]
) -> None:
    """F agrees in the sampled cells and in mean and deviation of all of them."""
    volume = plain["volume"]
    assert relative(volume[:, ::2, ::2, ::4, ::4], golden["F/volume_s4"]) < 1e-5
    assert [volume.mean(), volume.std()] == pytest.approx(list(golden["F/stats"]), rel=1e-4)


def test_warp_is_the_references(plain: Mapping[str, Array], golden: Mapping[str, Array]) -> None:
    """Occlusion, deformation and features of W agree."""
    assert relative(plain["occlusion"], golden["W/occlusion"]) < 1e-5
    deformation = plain["deformation"][:, ::3, ::4, ::4]
    assert relative(deformation, golden["W/deformation_s"]) < 1e-5
    assert relative(plain["out"][:, ::8, ::4, ::4], golden["W/out_s"]) < 2e-5
    out = plain["out"]
    assert [out.mean(), out.std()] == pytest.approx(list(golden["W/out_stats"]), rel=1e-4)


def test_picture_is_the_references(plain: Mapping[str, Array], golden: Mapping[str, Array]) -> None:
    """The decoded picture is within 1e-5 of full range on average and 2e-4 anywhere."""
    image = plain["image"][0]
    difference = np.abs(image[:, ::4, ::4] - golden["G/image_s4"])
    assert difference.mean() < 1e-5
    assert difference.max() < 2e-4
    assert np.abs(image - golden["G/image_f16"].astype(np.float32)).max() < 1e-3
    stats = [*image.mean((1, 2)), *image.std((1, 2))]
    assert stats == pytest.approx(list(golden["G/image_stats"]), rel=1e-4)


def test_small_networks_give_the_reference_offsets(
    networks: Networks, golden: Mapping[str, Array]
) -> None:
    """S, R_eye and R_lip agree."""
    x_s = torch.from_numpy(golden["x_s"]).flatten(1)
    x_d = torch.from_numpy(golden["x_d"]).flatten(1)
    eye, lip = (torch.from_numpy(golden[f"in/{name}_ratio"]) for name in ("eye", "lip"))
    with torch.inference_mode():
        stitch = networks.stitching(torch.cat((x_s, x_d), dim=1))
        eyes = networks.eye(torch.cat((x_s, eye), dim=1)).reshape(1, 21, 3)
        lips = networks.lip(torch.cat((x_s, lip), dim=1)).reshape(1, 21, 3)
    assert np.abs(stitch.numpy() - golden["S/stitch_delta"]).max() < 1e-6
    assert np.abs(eyes.numpy() - golden["S/eye_delta"]).max() < 1e-6
    assert np.abs(lips.numpy() - golden["S/lip_delta"]).max() < 1e-6


@contextmanager
def traced(
    module: torch.nn.Module, name: str, golden: Mapping[str, Array]
) -> Iterator[dict[str, Array]]:
    """Fill the answer with samples of each layer that the golden data has a trace of."""
    found: dict[str, Array] = {}

    def keep(layer: str, output: torch.Tensor) -> None:
        flat = output.contiguous().numpy().reshape(-1)
        found[layer] = flat[:: max(1, flat.size // 256)][:256]

    with ExitStack() as hooks:
        for key in golden:
            layer = key.removeprefix(f"trace/{name}/")
            if layer != key and not layer.endswith("#stats"):
                hook = module.get_submodule(layer).register_forward_hook(
                    lambda _module, _inputs, output, layer=layer: keep(layer, output)
                )
                hooks.callback(hook.remove)
        yield found
