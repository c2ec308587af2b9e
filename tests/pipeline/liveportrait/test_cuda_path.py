"""Fixed buffers, repeated work and copies in flight, without a GPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from pipeline.errors import DeviceLostError, OutOfMemoryError

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from pipeline.liveportrait import cuda_path, pinned  # noqa: E402
from pipeline.liveportrait.cuda_path import CudaPath, GraphCapture, StaticFrame  # noqa: E402
from pipeline.liveportrait.devices import device_errors  # noqa: E402
from pipeline.liveportrait.frame_path import painted, unpacked  # noqa: E402
from pipeline.liveportrait.pinned import PinnedCopies  # noqa: E402
from tests.fakes.liveportrait_engine import FlatEngine, FlatSource, Recording, at  # noqa: E402

CPU = torch.device("cpu")


def source(level: float) -> FlatSource:
    return FlatSource(torch.tensor(level))


def level(packed: Tensor) -> int:
    picture = unpacked(packed.numpy())
    assert picture is not None
    assert picture.shape == (512, 512, 3)
    assert (picture == picture[0, 0, 0]).all()
    return int(picture[0, 0, 0])


def test_a_packed_frame_tells_whether_it_is_finite() -> None:
    """Pixels truncate as the reference's; one value that is no number spoils the frame."""
    engine = FlatEngine()
    packed = painted(engine, source(0.25), at(0.25))
    assert packed.shape == (512 * 512 * 3 + 1,)
    assert level(packed) == 127
    assert level(painted(engine, source(7.0), at(0))) == 255
    assert unpacked(painted(FlatEngine(faults=1), source(0.5), at(0)).numpy()) is None

    class OnePixel(FlatEngine):
        def decode(self, features: Tensor) -> Tensor:
            image = super().decode(features)
            image[0, 1, 300, 17] = float("inf")
            return image

    assert unpacked(painted(OnePixel(), source(0.5), at(0)).numpy()) is None


def test_repeated_work_follows_keypoints_and_source() -> None:
    """One capture serves every frame of every portrait."""
    recording = Recording()
    one, other = source(0.25), source(0.5)
    frame = StaticFrame(FlatEngine(), one, recording, CPU)
    drawn = [
        level(frame.draw(which, at(moved)))
        for which, moved in ((one, 0), (one, 0.25), (other, 0.25), (other, 0), (one, 0))
    ]
    assert drawn == [int(v * 255) for v in (0.25, 0.5, 0.75, 0.5, 0.25)]
    assert recording.calls == ["warm_up", "capture"]
    assert frame.fallback_reason is None


def test_a_source_is_copied_when_the_portrait_changes_and_only_then() -> None:
    """The buffers keep what they hold; another portrait at the same address is another one."""
    shown = source(0.25)
    frame = StaticFrame(FlatEngine(), shown, Recording(), CPU)
    frame.draw(shown, at(0))
    shown.level.fill_(0.9)
    assert level(frame.draw(shown, at(0))) == 63
    for value in (0.375, 0.5, 0.75):
        del shown
        shown = source(value)
        assert level(frame.draw(shown, at(0))) == int(value * 255)


def test_where_capture_fails_the_same_work_runs_eagerly() -> None:
    """Frames come all the same; the reason is kept."""
    error = RuntimeError("CUDA error: operation not permitted when stream is capturing\nSearch")
    recording = Recording(capture=error)
    shown = source(0.25)
    frame = StaticFrame(FlatEngine(), shown, recording, CPU)
    assert [level(frame.draw(shown, at(moved))) for moved in (0, 0.25, 0.5)] == [63, 127, 191]
    assert recording.calls == ["warm_up", "capture"]
    assert frame.fallback_reason == (
        "CUDA graph: CUDA error: operation not permitted when stream is capturing"
    )


def test_a_device_that_is_lost_in_the_capture_is_lost() -> None:
    """No eager frame can come from it."""
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    shown = source(0.25)
    frame = StaticFrame(FlatEngine(), shown, Recording(capture=error), CPU)
    with pytest.raises(DeviceLostError), device_errors():
        frame.draw(shown, at(0))
    assert frame.fallback_reason is None


def test_a_warm_up_without_memory_is_tried_again() -> None:
    """The first frame raises; once there is memory the next one is captured."""
    recording = Recording(warm_up=torch.OutOfMemoryError("CUDA out of memory."))
    shown = source(0.25)
    frame = StaticFrame(FlatEngine(), shown, recording, CPU)
    with pytest.raises(OutOfMemoryError), device_errors():
        frame.draw(shown, at(0))
    recording.errors["warm_up"] = None
    assert level(frame.draw(shown, at(0))) == 63
    assert recording.calls == ["warm_up", "warm_up", "capture"]


class Stream:
    """Does everything at once, and remembers in which order."""

    log: list[str]

    def __init__(self, device: object = None) -> None:
        pass

    def wait_stream(self, other: Stream) -> None:
        self.log.append("stream waits")


class Event:
    """Reached as soon as it is recorded."""

    log: list[str]

    def __init__(self, blocking: bool) -> None:
        assert blocking

    def record(self, stream: Stream) -> None:
        self.log.append("recorded")

    def synchronize(self) -> None:
        self.log.append("waited")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CUDA's streams and events, imitated."""
    log: list[str] = []
    Stream.log = Event.log = log

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        log.append("on a stream")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("synchronized"))
    monkeypatch.setattr(pinned, "_page_locked", torch.empty_like)
    return log


def packed(value: int) -> Tensor:
    return torch.full((8,), value, dtype=torch.uint8)


def test_a_frame_is_waited_for_when_it_is_fetched(log: list[str]) -> None:
    """Sending returns after the copy is ordered behind the drawing; fetching waits, once."""
    copies = PinnedCopies(packed(0))
    sent = copies.send(packed(7))
    assert log == ["stream waits", "on a stream", "recorded"]
    assert (sent.array() == 7).all()
    assert sent.array() is sent.array()
    assert log[3:] == ["waited"]


def test_what_a_frame_was_drawn_into_may_be_overwritten_at_once(log: list[str]) -> None:
    """The frame was put aside; what a caller got is its own for good."""
    copies = PinnedCopies(packed(0))
    canvas = packed(1)
    first = copies.send(canvas)
    canvas.fill_(2)
    second = copies.send(canvas)
    canvas.fill_(3)
    kept = first.array()
    for value in range(10, 20):
        copies.send(packed(value))
    assert (kept == 1).all()
    assert (second.array() == 2).all()
    assert not np.shares_memory(kept, second.array())


def test_a_third_frame_waits_for_the_first(log: list[str]) -> None:
    """Two are under way at most; the buffer's frame goes to whoever will ask for it."""
    copies = PinnedCopies(packed(0))
    first, second = copies.send(packed(1)), copies.send(packed(2))
    assert "waited" not in log
    copies.send(packed(3))
    assert log.count("waited") == 1
    assert (first.array() == 1).all()
    assert log.count("waited") == 1
    copies.close()
    assert (second.array() == 2).all()
    assert log.count("waited") == 3


def test_frames_go_from_keypoints_to_arrays(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun, repeated, copied; closing waits for the device and lets go."""
    monkeypatch.setattr(cuda_path, "GraphCapture", lambda device: Recording())
    engine = FlatEngine()
    path = CudaPath(engine, CPU)
    assert path.fallback_reason is None
    shown = source(0.25)
    copies = [path.begin(shown, at(moved)) for moved in (0, 0.25, 0.5)]
    levels = [level(torch.from_numpy(copy.array())) for copy in copies]
    assert levels == [63, 127, 191]
    held = weakref.ref(engine)
    last = path.begin(shown, at(0))
    path.close()
    assert log[-1] == "synchronized"
    assert level(torch.from_numpy(last.array())) == 63
    del engine
    gc.collect()
    assert held() is None


class Graph:
    """A CUDA graph that runs the work again."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


@pytest.mark.parametrize("fails", [False, True])
def test_a_graph_is_captured_on_the_stream_it_was_warmed_up_on(
    log: list[str], monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Others may use the device meanwhile; replaying gives the captured memory."""
    graphs: list[Graph] = []

    def made() -> Graph:
        graphs.append(Graph())
        return graphs[-1]

    @contextmanager
    def capturing(graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert graph is graphs[0]
        assert capture_error_mode == "thread_local"
        log.append("capture begins")
        yield
        log.append("capture ends")
        if fails:
            raise RuntimeError(
                "CUDA error: operation failed due to a previous error during capture"
            )

    monkeypatch.setattr(torch.cuda, "CUDAGraph", made)
    monkeypatch.setattr(torch.cuda, "graph", capturing)

    def work() -> Tensor:
        log.append("work")
        return memory

    memory = packed(5)
    capture = GraphCapture(CPU)
    capture.warm_up(work)
    assert log == ["stream waits", "on a stream", "work", "work", "work", "stream waits"]
    log.clear()
    if fails:
        with pytest.raises(RuntimeError, match="previous error"):
            capture.capture(work)
    else:
        repeat = capture.capture(work)
        assert repeat() is memory
        assert repeat() is memory
        assert graphs[0].replays == 2
    assert log == ["on a stream", "capture begins", "work", "capture ends"]
