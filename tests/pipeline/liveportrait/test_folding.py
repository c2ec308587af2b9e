"""Each piece of exact algebra against the plain form, on small random weights in float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from pipeline.liveportrait import fast_generator, fast_warping, folding, volumes  # noqa: E402
from pipeline.liveportrait.folding import Folded  # noqa: E402
from pipeline.liveportrait.keypoints import KEYPOINTS  # noqa: E402
from pipeline.liveportrait.sampling import identity_grid, sample  # noqa: E402
from pipeline.liveportrait.spade_generator import SpadeNorm, SpectralConv2d  # noqa: E402
from pipeline.liveportrait.warping_module import (  # noqa: E402
    DenseMotionNetwork,
)


@pytest.fixture(autouse=True)
def _seeded(one_thread: None) -> None:
    torch.manual_seed(0)


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> bool:
    assert found.shape == expected.shape
    return bool((found - expected).norm() <= tolerance * expected.norm())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_batch_norm_folds_into_the_convolution(dimensions: int) -> None:
    """One convolution gives what the convolution and its BatchNorm give."""
    conv = (nn.Conv2d, nn.Conv3d)[dimensions - 2](4, 6, 3).double()
    norm = (nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 2](6).double().eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    x = double(1, 4, *[5] * dimensions)
    folded = folding.with_norm(conv, norm)
    convolve = (functional.conv2d, functional.conv3d)[dimensions - 2]
    with torch.inference_mode():
        assert close(convolve(x, *folded), norm(conv(x)))


def test_spectral_norm_folds_into_the_weight() -> None:
    """The folded convolution is the module's, bias or none."""
    for bias in (True, False):
        conv = SpectralConv2d(3, 5, 3, bias=bias).double()
        for tensor in conv.state_dict().values():
            nn.init.normal_(tensor)
        x = double(1, 3, 6, 6)
        with torch.inference_mode():
            folded = fast_generator._normalised(conv)
            assert close(functional.conv2d(x, *folded, padding=1), conv(x))


def test_phase_kernels_replace_upsampling_by_two() -> None:
    """Four convolutions at the input's size interleave to the convolution of the upsampled."""
    conv = Folded(double(5, 4, 3, 3), double(5))
    x = double(1, 4, 6, 6)
    expected = functional.conv2d(functional.interpolate(x, scale_factor=2), *conv, padding=1)
    for p, row in enumerate(folding.phases(conv, folding.DOUBLED)):
        for q, phase in enumerate(row):
            found = fast_generator._cells(x, phase, p, q)
            assert close(found, expected[:, :, p::2, q::2])


def test_phase_kernels_replace_upsampling_a_volume() -> None:
    """The same in a volume whose depth stays, with the ReLU after it."""
    conv = Folded(double(5, 4, 3, 3, 3), double(5))
    x = double(6, 4, 4, 4)
    found = volumes.upsampled_convolved_relu(x, folding.phases(conv, folding.DOUBLED))
    volume = functional.interpolate(x.transpose(0, 1)[None], scale_factor=(1, 2, 2))
    expected = functional.relu(functional.conv3d(volume, *conv, padding=1))
    assert close(found.transpose(0, 1)[None], expected)


def test_a_volume_convolves_by_slices() -> None:
    """Two-dimensional convolutions, summed over depth, are the three-dimensional one."""
    conv = Folded(double(5, 4, 3, 3, 3), double(5))
    x = double(6, 4, 7, 8)
    expected = functional.conv3d(x.transpose(0, 1)[None], *conv, padding=1)[0].transpose(0, 1)
    assert close(volumes.convolved(x, conv), expected)
    assert close(volumes.convolved(x, folding.sliced(conv)), expected)
    rows = folding.phases(conv, folding.DOUBLED)
    sliced = [[folding.sliced(phase) for phase in row] for row in rows]
    found = volumes.upsampled_convolved_relu(x, sliced)
    assert close(found, volumes.upsampled_convolved_relu(x, rows))


def test_a_pointwise_convolution_needs_no_volume() -> None:
    """1x1x1 is 1x1 over a picture of as many cells."""
    conv = Folded(double(5, 4, 1, 1, 1), double(5))
    x = double(1, 4, 3, 6, 7)
    assert close(volumes.pointwise(x, conv), functional.conv3d(x, *conv))


def test_padding_channels_change_nothing() -> None:
    """Zero outputs come last; inputs that are not read may hold anything."""
    conv = Folded(double(5, 4, 3, 3), double(5))
    x = double(1, 6, 8, 8)
    wider = folding.with_more_outputs(folding.with_more_inputs(conv, 6), 8)
    found = functional.conv2d(x, *wider)
    assert close(found[:, :5], functional.conv2d(x[:, :4], *conv))
    assert found.shape[1] == 8
    assert not found[:, 5:].any()


def test_the_hourglass_input_holds_every_channel_once() -> None:
    """All but the background's zero heat map; padding makes it a multiple of eight."""
    order = fast_warping._input_order(1)
    assert sorted(c for c in order if c is not None) == list(range(1, 110))
    padded = fast_warping._input_order(8)
    assert (len(padded), padded.count(None)) == (112, 3)
    assert [c for c in padded if c is not None] == order


def test_condensed_map_replaces_two_convolutions_after_upsampling_by_four() -> None:
    """Nine distinct hidden values per cell, then sixteen strided convolutions."""
    shared = Folded(double(128, 3, 3, 3), double(128))
    after = Folded(double(2, 128, 3, 3), double(2))
    x = double(1, 3, 64, 64)
    hidden = functional.conv2d(functional.interpolate(x, scale_factor=4), *shared, padding=1)
    expected = functional.conv2d(hidden, *after, padding=1)
    condensed = fast_generator._Condensed.zeros(x)
    for p, row in enumerate(folding.phases(shared, folding.QUADRUPLED)):
        for q, conv in enumerate(row):
            condensed.put(fast_generator._cells(x, conv, p, q), p, q)
    for p, row in enumerate(folding.phases(after, folding.AFTER_QUADRUPLED)):
        for q, conv in enumerate(row):
            assert close(condensed.convolved(conv, p, q), expected[:, :, p::4, q::4])


def test_whitening_is_the_instance_norm_and_commutes_with_upsampling() -> None:
    """Statistics of an upsampled tensor are the small one's."""
    x = double(1, 5, 8, 8) * 3 + 1
    upsampled = functional.interpolate(x, scale_factor=2)
    small = functional.interpolate(fast_generator._whitened(x), scale_factor=2)
    assert close(small, functional.instance_norm(upsampled))


def test_what_overflowed_is_seen_in_the_picture() -> None:
    """The sigmoid of infinity would be plain white."""
    x = torch.tensor((-1e4, 0.0, 6e4, float("inf"), -float("inf"), float("nan")))
    found = fast_generator._squashed(x.half())
    assert found[:3].tolist() == [0.0, 0.5, 1.0]
    assert torch.isnan(found[3:]).all()


def test_modulation_of_an_upsampled_tensor_needs_no_upsampling() -> None:
    """Every small value modulates its 2x2 pixels."""
    small = double(1, 5, 4, 4)
    gamma, beta = (
        double(1, 5, 8, 8).contiguous(memory_format=torch.channels_last) for _ in range(2)
    )
    expected = functional.interpolate(small, scale_factor=2) * gamma
    assert close(fast_generator._modulated_doubled(small, gamma.clone(), beta), expected + beta)
    assert close(fast_generator._scaled_doubled(small, gamma.clone()), expected)


def test_one_plus_gamma_is_in_the_bias_and_beta_passes_the_shortcut() -> None:
    """The learned shortcut of a modulated tensor is two terms, one of them a convolution."""
    norm = SpadeNorm(6).double()
    conv_s = SpectralConv2d(6, 4, 1, bias=False).double()
    for tensor in (*norm.state_dict().values(), *conv_s.state_dict().values()):
        nn.init.normal_(tensor)
    x, segment = double(1, 6, 8, 8), double(1, 256, 8, 8)
    with torch.inference_mode():
        shortcut = fast_generator._normalised(conv_s)
        gamma, beta = fast_generator._modulation(norm)
        hidden = norm.mlp_shared(segment)
        scaled = functional.instance_norm(x) * functional.conv2d(hidden, *gamma, padding=1)
        through = fast_generator._through(shortcut, beta)
        found = functional.conv2d(scaled, *shortcut) + functional.conv2d(
            hidden, *through, padding=1
        )
        assert close(found, conv_s(norm(x, segment)))


def test_translations_are_separable() -> None:
    """Three products with interpolation matrices read what a gather at moved points reads."""
    volume = torch.randn(4, 16, 64, 64)
    shift = torch.randn(KEYPOINTS, 3) * 0.3
    shift[0] = 0.0
    shift[1] = torch.tensor([2.5, -0.1, 0.2])  # leaves the volume altogether
    grid = identity_grid(16, 64, 64, like=volume) + shift[:, None, None, None]
    expected = sample(volume.expand(KEYPOINTS, -1, -1, -1, -1), grid)
    assert close(volumes.translated(volume, shift), expected, 2e-5)


def test_heat_maps_are_outer_products() -> None:
    """Three Gaussians multiplied are the Gaussian of the distance."""
    keypoints = torch.randn(1, KEYPOINTS, 3) * 0.4
    grid = identity_grid(16, 64, 64, like=keypoints)
    warping = object.__new__(fast_warping.FastWarping)
    warping._grid = grid
    expected = DenseMotionNetwork._heat_maps(grid, keypoints)[0].permute(1, 2, 3, 0)
    assert close(warping._heat_maps(keypoints), expected, 2e-6)


def test_mask_by_slices_is_the_mask_up_to_a_shift() -> None:
    """Softmax of the sliced, background-relative logits is the softmax of the 3-D convolution."""
    full = Folded(torch.randn(22, 3, 7, 7, 7) * 0.1, torch.randn(22))
    features = torch.randn(16, 3, 64, 64)
    warping = object.__new__(fast_warping.FastWarping)
    relative = fast_warping._relative(full)
    warping._mask = folding.sliced(relative)
    warping._mask_bias = relative.bias
    volume = features.transpose(0, 1)[None]
    expected = functional.softmax(functional.conv3d(volume, *full, padding=3), dim=1)
    found = functional.softmax(warping._mask_logits(features), dim=-1).permute(3, 0, 1, 2)
    assert close(found[None], expected, 1e-5)


def test_deformation_is_the_identity_plus_masked_shifts() -> None:
    """The mask sums to one, so the identity can be taken out of the sum."""
    source, driving = double(1, KEYPOINTS, 3), double(1, KEYPOINTS, 3)
    grid = identity_grid(2, 4, 4, like=source)
    mask = functional.softmax(double(1, KEYPOINTS + 1, 2, 4, 4), dim=1)
    motions = DenseMotionNetwork._motions(grid, source, driving)
    expected = torch.einsum("bkdhw,bkdhwc->bdhwc", mask, motions)
    shifts = torch.einsum("kdhw,kc->dhwc", mask[0, 1:], (source - driving)[0])
    assert close((grid + shifts)[None], expected)


def test_occlusion_by_taps_is_the_convolution() -> None:
    """One matrix product per slice and a sum over shifted taps give the 2272-channel kernel."""
    conv = Folded(torch.randn(1, 3 * 16, 7, 7) * 0.1, torch.randn(1))
    features = torch.randn(16, 3, 64, 64)
    warping = object.__new__(fast_warping.FastWarping)
    warping._occlusion = fast_warping._tap_matrices(conv, 3)
    warping._last_dtype = torch.float32
    flat = features.transpose(0, 1).reshape(1, -1, 64, 64)
    expected = torch.sigmoid(functional.conv2d(flat, *conv, padding=3))
    assert close(warping._occlude(features), expected, 1e-5)
