"""What a weights folder may look like, and what an unusable one is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.liveportrait.errors import CheckpointError
from tests.fakes.liveportrait_weights import write_safetensors

torch = pytest.importorskip("torch", reason="torch is not installed")

pytestmark = pytest.mark.timeout(180)  # the first of a run makes the weights

if TYPE_CHECKING:
    from pipeline.liveportrait.networks import Networks

BASE = "liveportrait/base_models"
SMALL = "liveportrait/retargeting_models/stitching_retargeting_module.pth"
FEATURES = f"{BASE}/appearance_feature_extractor.pth"


@pytest.fixture
def folder(weights_dir: Path, tmp_path: Path) -> Path:
    """A weights folder of links, so that a test can replace single files."""
    for path in weights_dir.rglob("*.pth"):
        link = tmp_path / path.relative_to(weights_dir)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return tmp_path


def load(folder: Path) -> Networks:
    from pipeline.liveportrait.checkpoints import load_networks

    return load_networks(folder)


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Replace a checkpoint by a changed copy."""
    content = change(torch.load(path, weights_only=True))
    path.unlink()
    torch.save(content, path)


def refused(folder: Path, file: str, key: str | None, *words: str) -> None:
    """Loading fails, blaming that file and key, with those words in the sentence."""
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert caught.value.file == folder / file
    assert caught.value.key == key
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_named(folder: Path) -> None:
    """The error names the official path that was looked for."""
    (folder / BASE / "spade_generator.pth").unlink()
    refused(folder, f"{BASE}/spade_generator.pth", None, "neither")


def test_a_truncated_file_is_named_with_its_size(folder: Path) -> None:
    """A download that broke off is told from a good file."""
    path = folder / FEATURES
    data = path.read_bytes()[:100_000]
    path.unlink()
    path.write_bytes(data)
    refused(folder, FEATURES, None, "100000 bytes")


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"version https://git-lfs\n"])
def test_a_file_of_something_else_is_refused(folder: Path, data: bytes) -> None:
    """An empty file, an error page or a pointer file is no checkpoint."""
    path = folder / FEATURES
    path.unlink()
    path.write_bytes(data)
    refused(folder, FEATURES, None, f"{len(data)} bytes")


def test_nobody_is_told_to_unpickle_what_was_refused(folder: Path, tmp_path: Path) -> None:
    """Torch's own advice is to load such a file without its guard: that is not passed on."""
    rewrite(folder / FEATURES, lambda c: {**c, "second.bias": _Runs(tmp_path / "ran")})
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert "weights_only" not in str(caught.value)


def test_a_missing_key_is_named(folder: Path) -> None:
    """The error names the key and what it should hold."""
    rewrite(folder / FEATURES, lambda c: {k: v for k, v in c.items() if k != "second.bias"})
    refused(folder, FEATURES, "second.bias", "float32 (512,)", "no such key")


def test_an_unexpected_key_is_named(folder: Path) -> None:
    """A key that no network has makes a file the wrong one."""
    rewrite(folder / FEATURES, lambda c: {**c, "third.bias": torch.zeros(3)})
    refused(folder, FEATURES, "third.bias", "no such key", "float32 (3,)")


@pytest.mark.parametrize(
    "tensor", [torch.zeros(511), torch.zeros(512, dtype=torch.float16), [0.0] * 512]
)
def test_a_wrong_shape_or_dtype_is_named(folder: Path, tensor: object) -> None:
    """The error says what the key should hold and what it holds."""
    rewrite(folder / FEATURES, lambda c: {**c, "second.bias": tensor})
    refused(folder, FEATURES, "second.bias", "expected float32 (512,)")


def test_a_pickle_that_would_run_code_is_refused(folder: Path, tmp_path: Path) -> None:
    """Nothing but tensors and containers is unpickled."""
    marker = tmp_path / "ran"
    rewrite(folder / FEATURES, lambda c: {**c, "second.bias": _Runs(marker)})
    refused(folder, FEATURES, None)
    assert not marker.exists()


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


def test_the_small_file_may_hold_more_and_lack_the_prefix(folder: Path, networks: Networks) -> None:
    """Other entries are ignored, and `module.` is optional."""

    def change(content: dict[str, Any]) -> dict[str, Any]:
        bare = {k.removeprefix("module."): v for k, v in content["retarget_eye"].items()}
        return {**content, "retarget_eye": bare, "retarget_nose": {"mlp.0.weight": torch.ones(1)}}

    rewrite(folder / SMALL, change)
    assert torch.equal(load(folder).eye.mlp[0].weight, networks.eye.mlp[0].weight)


def test_a_missing_small_network_is_named(folder: Path) -> None:
    """The error names the entry that the shared file lacks."""
    rewrite(folder / SMALL, lambda c: {k: v for k, v in c.items() if k != "retarget_mouth"})
    refused(folder, SMALL, "retarget_mouth", "retarget_shoulder")


def test_a_key_of_the_small_file_is_named_with_its_network(folder: Path) -> None:
    """Three networks in one file have keys of the same names."""

    def change(content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "retarget_eye": {**content["retarget_eye"], **wrong}}

    wrong = {"module.mlp.0.weight": torch.zeros(3, 3)}
    rewrite(folder / SMALL, change)
    refused(folder, SMALL, "retarget_eye.mlp.0.weight", "float32 (256, 66)", "float32 (3, 3)")


@pytest.mark.parametrize("place", ["", "liveportrait", BASE])
def test_safetensors_serve_as_well(folder: Path, networks: Networks, place: str) -> None:
    """A flat safetensors file per module is read where the official file is absent."""
    path = folder / FEATURES
    tensors = torch.load(path, weights_only=True)
    path.unlink()
    write_safetensors(folder / place / "appearance_feature_extractor.safetensors", tensors)
    state = load(folder).appearance_feature_extractor.state_dict()
    for key, value in networks.appearance_feature_extractor.state_dict().items():
        assert torch.equal(state[key], value)


def test_safetensors_of_the_small_networks_carry_prefixes(folder: Path, networks: Networks) -> None:
    """The three small networks share a file whose keys begin with their names."""
    content = torch.load(folder / SMALL, weights_only=True)
    tensors = {
        f"{entry}_module.{key.removeprefix('module.')}": value
        for entry, state in content.items()
        for key, value in state.items()
    }
    (folder / SMALL).unlink()
    write_safetensors(folder / "stitching_retargeting_module.safetensors", tensors)
    loaded = load(folder)
    for name in ("stitching", "lip", "eye"):
        found, wanted = (n.by_name()[name].state_dict() for n in (loaded, networks))
        assert all(torch.equal(found[key], value) for key, value in wanted.items())


@pytest.mark.parametrize("keep", [4, 100, -10])
def test_a_truncated_safetensors_file_is_refused(folder: Path, keep: int) -> None:
    """A file that broke off in its length, its header or its data is told from a good one."""
    tensors = torch.load(folder / FEATURES, weights_only=True)
    (folder / FEATURES).unlink()
    file = "appearance_feature_extractor.safetensors"
    write_safetensors(folder / file, tensors)
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match="appearance_feature_extractor"):
        load(folder)


def test_the_official_file_goes_first(folder: Path) -> None:
    """A stray safetensors file beside the official one is not read."""
    (folder / "appearance_feature_extractor.safetensors").write_bytes(b"not read")
    load(folder)


def test_a_folder_without_anything_is_told_what_is_missing(tmp_path: Path) -> None:
    """An empty weights folder names the first file that it lacks."""
    shutil.rmtree(tmp_path / "liveportrait", ignore_errors=True)
    refused(tmp_path, FEATURES, None, "appearance_feature_extractor.safetensors")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 12")]
)
def test_a_machine_without_memory_does_not_make_a_file_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Where there is no room to read a file, the room is to blame."""

    def no_room(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", no_room)
    with pytest.raises(type(error)):
        load(folder)
