"""The event log: exact, bounded, complete or honest about what is missing."""

import errno
import json
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.event_codec import decode
from orchestrator import event_log_file
from orchestrator.characters import CharacterBook
from orchestrator.event_log import (
    CharacterLine,
    EmotionsLine,
    LostLine,
    MessageLine,
    StageLine,
    decode_line,
    digest,
    encode_line,
    line_of,
    wire_form,
)
from orchestrator.event_log_file import EventLog
from orchestrator.event_log_reader import Message, read_runs
from orchestrator.expression.emotions import EmotionTable
from orchestrator.journal import CastChanged, Entry, Opened, TableChanged, Took
from orchestrator.settings import IdleSettings, StageSettings, default_config_dir
from pipeline.errors import ConfigError
from pipeline.ports import Metric
from pipeline.types import (
    ARKIT_BLENDSHAPES,
    Activity,
    ControlsMode,
    DirectControls,
    EmotionEvent,
    Interrupt,
    Mood,
    Policy,
    StateChange,
)
from tests.fakes.audience import Answers
from tests.fakes.metrics import RecordingMetrics
from tests.fakes.waiting import until

CONFIG = default_config_dir()
EMOTIONS = EmotionTable.load(CONFIG / "emotions.toml")
BOOK = CharacterBook.load(CONFIG / "characters", EMOTIONS.labels)
MAX_BYTES = 2**16


def opened(stage: str = "main", t_s: float = 100.0) -> Opened:
    return Opened(stage, t_s, "test/0", StageSettings(), IdleSettings(), EMOTIONS)


def cast(t_s: float = 100.5, stage: str = "main") -> CastChanged:
    return CastChanged(stage, t_s, None, BOOK.get("astronaut"), 5, "0123")


def took(message: Any, t_s: float, source: Any = None, stage: str = "main") -> Took:
    return Took(stage, t_s, t_s - 0.01, message, source)


# --- text ---------------------------------------------------------------------------------

# As producers send them: milliseconds, which are read as seconds.
seconds = st.floats(0.0, 60_000.0).map(lambda ms: ms / 1000.0)
ids = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64)
labels = st.text(max_size=128)
share = st.floats(0.0, 1.0)
number = st.floats(allow_nan=False, allow_infinity=False)
angles = st.dictionaries(st.sampled_from(["pitch", "yaw", "roll"]), st.floats(-45.0, 45.0))
messages = st.one_of(
    st.builds(
        EmotionEvent,
        ids,
        labels,
        number,
        st.dictionaries(labels, number, max_size=4),
        st.none() | seconds,
        st.none() | st.just(math.inf) | seconds,
        st.none() | seconds,
        seconds,
        st.sampled_from(Policy),
        st.integers(0, 9),
        st.none() | st.floats(1.0, 3.6e6).map(lambda ms: ms / 1000.0),
    ),
    st.builds(Interrupt, ids, seconds),
    st.builds(Mood, st.none() | ids, st.floats(-1.0, 1.0), st.floats(-1.0, 1.0), seconds),
    st.builds(StateChange, st.none() | ids, st.sampled_from(Activity)),
    st.builds(
        DirectControls,
        st.none() | ids,
        st.sampled_from(ControlsMode),
        st.dictionaries(st.sampled_from(ARKIT_BLENDSHAPES), share),
        angles,
        share,
    ),
)


@settings(deadline=None)
@given(messages, number, st.none() | number)
def test_what_is_logged_is_read_to_the_last_bit(
    message: Any, t_s: float, after_s: float | None
) -> None:
    """Every message that a producer can send, with its times."""
    line = decode_line(encode_line(line_of(Took("main", t_s, after_s, message, None), 3)))
    assert isinstance(line, MessageLine)
    assert (line.t_s, line.after_s, line.source) == (t_s, after_s, 3)
    assert decode(bytes(line.message)).message == message


def test_a_message_is_in_the_log_as_on_the_wire() -> None:
    """People read it, and write such logs by hand."""
    event = EmotionEvent("e", "happy", attack_s=0.3, hold_s=math.inf, policy=Policy.BLEND)
    assert wire_form(event) == {
        "type": "emotion", "id": "e", "emotion": "happy", "intensity": 1.0, "attack_ms": 300.0,
        "hold_ms": None, "policy": "blend", "priority": 5,
    }  # fmt: skip


def test_conditions_are_read_as_they_were() -> None:
    """Character with gains and rest, idle life, size and rate."""
    line = decode_line(encode_line(line_of(opened(), 0)))
    assert isinstance(line, StageLine)
    assert (line.fps, line.width, line.height, line.idle) == (30.0, 512, 512, IdleSettings())
    character = decode_line(encode_line(line_of(cast(), 0)))
    assert isinstance(character, CharacterLine)
    assert (character.resting.weights == BOOK.get("astronaut").rest.weights).all()
    assert character.gains == BOOK.get("astronaut").gains
    changed = decode_line(encode_line(line_of(TableChanged("main", 1.0, 0.5, EMOTIONS), 0)))
    assert changed == EmotionsLine(stage="main", t_s=1.0, after_s=0.5, emotions=digest(EMOTIONS))


def test_the_digest_tells_tables_apart(tmp_path: Path) -> None:
    """One number of one face, or one alias, is another table; a comment is not."""
    text = (CONFIG / "emotions.toml").read_text("utf-8")
    assert "mouthSmileLeft = " in text
    for change, same in (
        (("mouthSmileLeft = ", "mouthSmileLeft = 0."), False),
        (('"joy"', '"joi"'), False),
        (("[happy]", "# a comment\n[happy]"), True),
    ):
        file = tmp_path / "emotions.toml"
        changed = text.replace(*change, 1)
        assert changed != text
        file.write_text(changed.replace("= 0.0.", "= 0.0"))
        assert (digest(EmotionTable.load(file)) == digest(EMOTIONS)) is same, change


# --- files --------------------------------------------------------------------------------


@asynccontextmanager
async def logging(path: Path, max_bytes: int = MAX_BYTES) -> AsyncIterator[EventLog]:
    log = EventLog(path, max_bytes, RecordingMetrics())
    try:
        yield log
    finally:
        assert await log.close(5.0)


def first_times(folder: Path) -> dict[str, float]:
    return {each.name: lines(each)[0]["t_s"] for each in folder.iterdir()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def size(path: Path) -> int:
    return path.stat().st_size


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def test_entries_are_lines_with_their_sources_numbered(tmp_path: Path) -> None:
    """In order; a producer has one number, an earlier run has 0. The folder is made."""
    path = tmp_path / "state" / "events.jsonl"
    one, other = Answers(), Answers()
    async with logging(path) as log:
        log(opened())
        log(took(Mood(None, 0.5, 0.0, 60.0), 100.1))
        log(cast())
        for number, source in enumerate((one, other, one)):
            log(took(Interrupt(f"i{number}"), 101.0 + number, source))
    assert [line["type"] for line in lines(path)] == [
        "stage", "message", "character", "message", "message", "message",
    ]  # fmt: skip
    (run,) = read_runs([path], "main")
    assert [step.source for step in run.steps if isinstance(step, Message)] == [0, 1, 2, 1]
    assert mode(path) == 0o600


async def test_what_an_earlier_run_left_is_put_aside(tmp_path: Path) -> None:
    """Up to four of them, the youngest as .1."""
    path = tmp_path / "events.jsonl"
    for run in range(6):
        async with logging(path) as log:
            log(opened(t_s=float(run)))
    assert first_times(tmp_path) == {
        "events.jsonl": 5.0, "events.jsonl.1": 4.0, "events.jsonl.2": 3.0, "events.jsonl.3": 2.0,
        "events.jsonl.4": 1.0,
    }  # fmt: skip


async def test_a_full_file_is_continued_with_what_still_counts(tmp_path: Path) -> None:
    """Both files are one run; the newer one alone knows stage, character, mood and state."""
    path = tmp_path / "events.jsonl"
    older = tmp_path / "events.jsonl.1"
    async with logging(path) as log:
        log(opened())
        log(opened("other"))
        log(cast())
        log(took(Mood(None, 0.5, 0.0, 60.0), 100.6, Answers()))
        log(took(StateChange(None, Activity.SPEAKING), 100.7, Answers()))
        sent = 0
        while not older.exists():
            log(took(Interrupt(f"i{sent}"), 101.0 + sent, Answers()))
            sent += 1
            # Not so far ahead of the writer that it fills several files before that is seen.
            await until(lambda: len(log._waiting) < 64)
        log(took(Interrupt("last"), 5000.0, Answers()))
    assert MAX_BYTES <= size(older) < MAX_BYTES + 1000

    (whole,) = read_runs([older, path], "main")
    assert whole.opened.continued_s is None
    interrupts = [s.message.id for s in whole.steps if isinstance(s, Message) and s.message.id]
    assert interrupts == [*(f"i{number}" for number in range(sent)), "last"]
    assert len(whole.steps) == sent + 1 + 3

    (newer,) = read_runs([path], "main")
    assert newer.opened.continued_s is not None
    assert newer.begin_s > newer.opened.t_s == 100.0
    character, mood, state, *_ = newer.steps
    assert isinstance(character, CharacterLine)
    assert isinstance(mood, Message)
    assert mood.message == Mood(None, 0.5, 0.0, 60.0)
    assert isinstance(state, Message)
    assert state.message == StateChange(None, Activity.SPEAKING)
    assert read_runs([path], "other")[0].steps == []


async def test_a_disk_that_is_full_for_a_while_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written is counted, in the metrics and in the log itself."""
    path = tmp_path / "events.jsonl"
    write, left = os.write, 150

    def limited(file: int, data: Any) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, bytes(data)[:left])
        left -= written
        return written

    async with logging(path) as log:
        log(opened())
        await until(lambda: size(path) > 0)
        monkeypatch.setattr(event_log_file.os, "write", limited)
        metrics = log._metrics
        assert isinstance(metrics, RecordingMetrics)
        for number in range(5):
            log(took(Interrupt(f"lost{number}"), 101.0 + number, Answers()))
        await until(lambda: metrics.total(Metric.EVENTS_UNLOGGED) > 0)
        await until(lambda: not log._waiting)
        left = 10**6
        log(took(Interrupt("again"), 200.0, Answers()))
    lost = [decode_line(line) for line in path.read_bytes().splitlines()]
    counted = sum(line.lines for line in lost if isinstance(line, LostLine))
    (run,) = read_runs([path], "main")
    assert run.lost == counted == metrics.total(Metric.EVENTS_UNLOGGED)
    assert counted + len(run.steps) == 6
    assert run.steps[-1].t_s == 200.0


async def test_a_writer_that_cannot_keep_up_loses_entries_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller never waits."""
    monkeypatch.setattr(event_log_file, "MAX_WAITING", 3)
    path = tmp_path / "events.jsonl"
    async with logging(path) as log:
        with log._changed:  # the writer cannot take anything meanwhile
            log._changed = Unlocked(log._changed)  # type: ignore[assignment]
            for number in range(10):
                log(took(Interrupt(f"i{number}"), 101.0 + number, Answers()))
            log._changed = log._changed.inner  # type: ignore[attr-defined]
            log._changed.notify()
    assert [line["type"] for line in lines(path)] == ["lost", "message", "message", "message"]
    assert lines(path)[0]["lines"] == 7


class Unlocked:
    """A condition whose lock is held already."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def notify(self) -> None: ...


def test_a_file_that_cannot_be_written_stops_the_boot(tmp_path: Path) -> None:
    """The setting is named."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"log\.events_file: .*file/events\.jsonl"):
        EventLog(tmp_path / "file" / "events.jsonl", MAX_BYTES, RecordingMetrics())


# --- reading ------------------------------------------------------------------------------


def written(path: Path, *entries: Entry) -> Path:
    path.write_bytes(b"".join(encode_line(line_of(entry, 1)) for entry in entries))
    return path


def test_the_runs_of_a_stage_are_told_apart(tmp_path: Path) -> None:
    """A stage that was removed and made again, and another stage beside it."""
    log = written(
        tmp_path / "log",
        opened("a", 1.0),
        took(Interrupt("1"), 1.5, stage="a"),
        opened("b", 2.0),
        took(Interrupt("2"), 2.5, stage="b"),
        opened("a", 3.0),
        took(Interrupt("3"), 3.5, stage="a"),
    )
    runs = read_runs([log], "a")
    assert [run.opened.t_s for run in runs] == [1.0, 3.0]
    assert [step.t_s for run in runs for step in run.steps] == [1.5, 3.5]
    with pytest.raises(ConfigError, match=r"no stage 'c' in it; there is a, b"):
        read_runs([log], "c")


def test_half_a_line_at_the_end_is_passed_over(tmp_path: Path) -> None:
    """A daemon that was killed may leave one; anywhere else it is a mistake."""
    log = written(tmp_path / "log", opened(), took(Interrupt("1"), 101.0))
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:40])
    assert len(read_runs([log], "main")[0].steps) == 1
    log.write_bytes(whole + whole[:40] + b"\n")
    with pytest.raises(ConfigError, match=r"log:3: no line of an event log"):
        read_runs([log], "main")


def _changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    line = json.loads(encode_line(line_of(took(EmotionEvent("e", "happy"), 101.0), 1)))
    change(line)
    return json.dumps(line).encode()


@pytest.mark.parametrize(
    ("line", "right"),
    [
        (b"hello", "malformed"),
        (b"[1]", "no line"),
        (b'{"type":"stag"}', "Invalid value 'stag'"),
        (b'{"type":"stage","stage":"main"}', "missing required field"),
        (encode_line(line_of(opened(), 0)).replace(b'"format":1', b'"format":2'), "reads format 1"),
        (_changed(lambda line: line.pop("t_s")), "t_s"),
        (_changed(lambda line: line["message"].update(priority=11)), "whole number from 0 to 9"),
        (_changed(lambda line: line.update(message={"type": "text", "id": "t"})), "emotion, int"),
        (_changed(lambda line: line.update(message={"type": "ping"})), "expected emotion"),
        (b"[" * 100_000, "no line of an event log"),
        (b"\xff\xfe", "no line of an event log"),
        (
            encode_line(line_of(cast(), 0)).replace(b"mouthClose", b"mouthOpen"),
            "expected ARKit names",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: bytes, right: str) -> None:
    """With its file, its number, and what would be right."""
    log = written(tmp_path / "log", opened())
    log.write_bytes(log.read_bytes() + line + b"\n")
    with pytest.raises(ConfigError) as caught:
        read_runs([log], "main")
    assert str(caught.value).startswith(f"{log}:2: ")
    assert right in str(caught.value)


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    """Nothing, emptiness, a folder, and a log without its beginning."""
    (tmp_path / "empty").touch()
    for name, right in (("none", "No such file"), ("empty", "it is empty"), (".", "directory")):
        with pytest.raises(ConfigError, match=right):
            read_runs([tmp_path / name], "main")
    log = written(tmp_path / "log", took(Interrupt("1"), 101.0))
    with pytest.raises(ConfigError, match=r"log:1: there is no `stage` line"):
        read_runs([log], "main")
