"""Video files: what is in them is what was written, and they are whole or not there."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.video import VideoFile, check_video
from pipeline.errors import ConfigError, StorageError
from pipeline.types import Image

av = pytest.importorskip("av", reason="PyAV is not installed")

SIZE = (96, 64)


def picture(shade: int) -> Image:
    """Red, and a green part that grows with the shade."""
    image = np.full((64, 96, 3), (200, 40, 60), np.uint8)
    image[:, : shade % 96] = (30, 180, 70)
    return image


def frames(path: Path) -> tuple[list[Any], list[Image]]:
    """Times in seconds and pictures of a file."""
    with av.open(str(path)) as file:
        decoded = list(file.decode(video=0))
    return [each.time for each in decoded], [each.to_ndarray(format="rgb24") for each in decoded]


@pytest.mark.parametrize("name", ["face.mp4", "FACE.WEBM"])
@pytest.mark.parametrize("fps", [30.0, 29.97, 12.5])
def test_the_file_has_exactly_the_frames(tmp_path: Path, name: str, fps: float) -> None:
    """At equal intervals, with the colours that were given; repeats included."""
    file = VideoFile(tmp_path / name, fps, SIZE)
    for shade in range(10):
        file.write(picture(9 * shade), times=3 if shade == 4 else 1)
    file.finish()
    times, pictures = frames(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert file.frames == len(times) == 12
    assert np.allclose(np.diff(times), 1.0 / fps, atol=1.1e-3)  # WebM counts milliseconds
    for number, shade in ((0, 0), (5, 4), (6, 4), (11, 9)):
        wanted = picture(9 * shade).astype(int)
        assert np.abs(pictures[number] - wanted).mean() < 4.0, number


def test_a_frame_of_another_size_is_scaled(tmp_path: Path) -> None:
    """A stage may come back with another one in the middle of a file."""
    file = VideoFile(tmp_path / "a.mp4", 30.0, SIZE)
    file.write(picture(0))
    file.write(np.zeros((128, 192, 3), np.uint8))
    file.finish()
    _, (first, second) = frames(tmp_path / "a.mp4")
    assert first.shape == second.shape == (64, 96, 3)
    assert second.mean() < 5 < first.mean()


def test_what_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    """Also twice; and not what is finished."""
    given_up = VideoFile(tmp_path / "a.mp4", 30.0, SIZE)
    given_up.write(picture(0))
    given_up.give_up()
    given_up.give_up()
    assert list(tmp_path.iterdir()) == []
    finished = VideoFile(tmp_path / "a.mp4", 30.0, SIZE)
    finished.write(picture(0))
    finished.finish()
    finished.give_up()
    assert len(frames(tmp_path / "a.mp4")[0]) == 1


def test_an_older_file_stays_until_the_new_one_is_finished(tmp_path: Path) -> None:
    """Then it is replaced."""
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    file = VideoFile(path, 30.0, SIZE)
    file.write(picture(0))
    assert path.read_bytes() == b"older"
    file.finish()
    assert len(frames(path)[0]) == 1


@pytest.mark.parametrize(
    ("name", "fps", "right"),
    [
        ("face.avi", 30.0, "one of .mp4, .webm"),
        ("face", 30.0, "one of .mp4, .webm"),
        ("no/such/face.mp4", 30.0, "there is no folder"),
        ("folder.mp4", 30.0, "this is a folder"),
        ("face.mp4", 0.5, "expected 1 to 240"),
        ("face.mp4", float("nan"), "expected 1 to 240"),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path: Path, name: str, fps: float, right: str) -> None:
    """Before there is a frame, and without a trace."""
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ConfigError, match=right):
        check_video(tmp_path / name, fps)
    with pytest.raises(ConfigError, match=right):
        VideoFile(tmp_path / name, fps, SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.mp4"]


def test_the_next_encoder_is_taken_where_one_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV may be built without x264 or VP9; without both of a kind, it says what to install."""
    missing = {"libvpx-vp9"}
    codec = av.Codec

    def reduced(name: str, mode: str) -> Any:
        if name in missing:
            raise av.codec.codec.UnknownCodecError(name)
        return codec(name, mode)

    monkeypatch.setattr(av, "Codec", reduced)
    file = VideoFile(tmp_path / "a.webm", 30.0, SIZE)
    file.write(picture(0))
    file.finish()
    assert file.codec == "libvpx"
    missing |= {"libx264", "libopenh264"}
    with pytest.raises(ConfigError, match="no encoder libx264 or libopenh264"):
        VideoFile(tmp_path / "a.mp4", 30.0, SIZE)


def test_without_pyav_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra: a daemon has no use for it."""
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[record\]'"):
        VideoFile(tmp_path / "a.mp4", 30.0, SIZE)


FULL_DISK = """
import sys
from pathlib import Path
import numpy as np
from orchestrator.video import VideoFile
from pipeline.errors import StorageError
file = VideoFile(Path(sys.argv[1]), 30.0, (256, 256))
chance = np.random.default_rng(0)
try:
    for _ in range(200):
        file.write(chance.integers(0, 255, (256, 256, 3), np.uint8))
    file.finish()
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    """A limit on the size of files stands for it."""
    path = tmp_path / f"a{suffix}"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
    assert "could not be written: File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """The sentence names the file."""
    taken = tmp_path / "a.mp4"
    file = VideoFile(taken, 30.0, SIZE)
    file.write(picture(0))
    taken.mkdir()
    (taken / "full").touch()
    with pytest.raises(StorageError, match=r"a\.mp4 could not be written"):
        file.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
