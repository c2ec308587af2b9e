"""One owned thread and its async front."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from pipeline.errors import DropReason, JobDroppedError
from pipeline.render_worker import RenderWorker
from tests.fakes.clock import VirtualClock
from tests.fakes.renderer import Gate
from tests.fakes.waiting import until


@pytest.fixture
async def worker() -> AsyncIterator[RenderWorker]:
    worker = RenderWorker("test-worker")
    yield worker
    await worker.close(5.0)


async def reason_of(future: asyncio.Future[Any]) -> DropReason:
    with pytest.raises(JobDroppedError) as caught:
        await future
    return caught.value.reason


# --- carrying out -------------------------------------------------------------------------


async def test_all_jobs_run_in_one_thread_of_its_own(worker: RenderWorker) -> None:
    """One daemon thread, named, carries out every job; it is not the loop's."""
    threads = {await worker.run(threading.current_thread) for _ in range(5)}
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name == "test-worker-1"


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(), SystemExit(3), KeyError()])
async def test_what_a_job_raises_reaches_its_caller(
    worker: RenderWorker, error: BaseException
) -> None:
    """The error arrives where the outcome is awaited, and the thread goes on."""

    def job() -> None:
        raise error

    future = worker.submit(job)
    await asyncio.wait([future])
    raised = future.exception()
    assert raised is error or "StopIteration" in str(raised)
    assert await worker.run(lambda: 7) == 7


async def test_nobody_has_to_look_at_a_failure(worker: RenderWorker) -> None:
    """A future that is let go with its error in it causes no complaint by asyncio."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    future = worker.submit(lambda: 1 // 0)
    await asyncio.wait([future])
    del future
    await asyncio.sleep(0)
    assert not complaints


async def test_it_says_since_when_it_is_busy() -> None:
    """Between jobs it is not busy; during one it names the time and the job."""
    clock = VirtualClock(50.0)
    worker = RenderWorker("test-worker", clock=clock.now)
    assert worker.busy_since is None
    gate = Gate()
    future = worker.submit(gate)
    await until(gate.entered.is_set)
    clock.now_s = 60.0
    assert worker.busy_since == 50.0
    assert worker.running is future
    gate.open()
    await future
    await until(lambda: worker.busy_since is None)
    assert worker.running is None
    assert await worker.close(5.0)


# --- waiting ------------------------------------------------------------------------------


async def test_the_newest_job_takes_the_waiting_place(worker: RenderWorker) -> None:
    """One in flight, one waiting: what waited is told that it was replaced, and never runs."""
    gate, ran = Gate(), list[int]()
    first = worker.submit(gate)
    await until(gate.entered.is_set)
    second = worker.submit(lambda: ran.append(2))
    third = worker.submit(lambda: ran.append(3))
    assert await reason_of(second) is DropReason.REPLACED
    gate.open()
    await asyncio.gather(first, third)
    assert ran == [3]


async def test_owners_take_turns(worker: RenderWorker) -> None:
    """Each owner has a place of its own, and a newer job keeps its owner's turn."""
    gate, ran = Gate(), list[str]()
    worker.submit(gate, "stage a")
    await until(gate.entered.is_set)
    worker.submit(lambda: ran.append("old a"), "stage a")
    b = worker.submit(lambda: ran.append("b"), "stage b")
    a = worker.submit(lambda: ran.append("new a"), "stage a")
    gate.open()
    await asyncio.gather(a, b)
    assert ran == ["new a", "b"]


async def test_a_waiting_job_can_be_withdrawn(worker: RenderWorker) -> None:
    """Cancelling the future of a job that waits keeps it from running."""
    gate, ran = Gate(), list[int]()
    worker.submit(gate, "a")
    await until(gate.entered.is_set)
    withdrawn = worker.submit(lambda: ran.append(1), "b")
    withdrawn.cancel()
    last = worker.submit(lambda: ran.append(2), "c")
    gate.open()
    await last
    assert ran == [2]


async def test_who_stops_waiting_loses_only_the_outcome(worker: RenderWorker) -> None:
    """A running job cannot be cancelled: it ends, and the next one runs."""
    gate = Gate()
    waiting = asyncio.create_task(worker.run(gate))
    await until(gate.entered.is_set)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert worker.running is not None
    gate.open()
    assert await worker.run(lambda: 1) == 1


async def test_waiting_places_are_bounded() -> None:
    """Beyond so many owners, a new one is turned away; those that wait are not disturbed."""
    worker = RenderWorker("test-worker", max_waiting=2)
    gate = Gate()
    worker.submit(gate, 0)
    await until(gate.entered.is_set)
    waiting = [worker.submit(lambda: "served", owner) for owner in (1, 2)]
    assert await reason_of(worker.submit(lambda: "served", 3)) is DropReason.FULL
    waiting[0] = worker.submit(lambda: "served newer", 1)
    gate.open()
    assert await asyncio.gather(*waiting) == ["served newer", "served"]
    assert await worker.close(5.0)


# --- stuck threads ------------------------------------------------------------------------


async def test_a_stuck_thread_can_be_abandoned() -> None:
    """Another thread takes over what waits; the late outcome is dropped and its thread ends."""
    ended: list[str] = []
    worker = RenderWorker(
        "test-worker", on_thread_end=lambda: ended.append(threading.current_thread().name)
    )
    gate = Gate()
    stuck = worker.submit(gate, "a")
    await until(gate.entered.is_set)
    waiting = worker.submit(lambda: threading.current_thread().name, "b")
    assert worker.abandon()
    assert await reason_of(stuck) is DropReason.ABANDONED
    assert await waiting == "test-worker-2"
    assert not ended
    gate.open()
    await until(lambda: ended == ["test-worker-1"])
    assert await worker.run(lambda: threading.current_thread().name) == "test-worker-2"
    assert await worker.close(5.0)
    assert ended == ["test-worker-1", "test-worker-2"]


async def test_only_so_many_threads_can_be_stuck() -> None:
    """Past the limit the worker refuses, until one of them comes back."""
    worker = RenderWorker("test-worker", max_abandoned=2)
    gates = [Gate() for _ in range(3)]
    for number, gate in enumerate(gates):
        worker.submit(gate)
        await until(gate.entered.is_set)
        assert worker.abandon() == (number < 2)
    gates[0].open()
    await until(worker.abandon)
    assert await worker.run(lambda: 1) == 1
    for gate in gates:
        gate.open()
    assert await worker.close(5.0)


async def test_an_idle_thread_is_not_abandoned(worker: RenderWorker) -> None:
    """There is nothing to leave behind; the same thread serves on."""
    before = await worker.run(threading.get_ident)
    await until(lambda: worker.running is None)
    assert worker.abandon()
    assert await worker.run(threading.get_ident) == before


async def test_a_job_is_overdue_past_its_limit() -> None:
    """A job can say how long it may take; the limit counts from when it says so."""
    clock = VirtualClock(0.0)
    worker = RenderWorker("test-worker", clock=clock.now)
    preparing, drawing = Gate(), Gate()

    def job() -> None:
        worker.allow(60.0)
        preparing()
        worker.allow(5.0)
        drawing()

    assert not worker.overdue
    future = worker.submit(job)
    await until(preparing.entered.is_set)
    clock.now_s = 59.0
    assert not worker.overdue
    preparing.open()
    await until(drawing.entered.is_set)
    assert not worker.overdue
    clock.now_s = 65.0
    assert worker.overdue
    drawing.open()
    await future
    assert not worker.overdue
    assert await worker.close(5.0)


# --- closing ------------------------------------------------------------------------------


async def test_closing_lets_the_running_job_finish(worker: RenderWorker) -> None:
    """What runs ends with its outcome, what waits is dropped, the thread is gone."""
    gate = Gate()
    running = worker.submit(gate, "a")
    await until(gate.entered.is_set)
    waiting = worker.submit(lambda: 1, "b")
    closing = asyncio.create_task(worker.close(5.0))
    assert await reason_of(waiting) is DropReason.CLOSED
    assert not closing.done()
    gate.open()
    assert await closing
    await running
    assert not [t for t in threading.enumerate() if t.name.startswith("test-worker-")]


async def test_closing_has_a_deadline() -> None:
    """A stuck thread does not hold up the end; its job is dropped."""
    worker = RenderWorker("test-worker")
    gate = Gate()
    running = worker.submit(gate)
    await until(gate.entered.is_set)
    assert not await worker.close(0.01)
    assert await reason_of(running) is DropReason.CLOSED
    gate.open()


async def test_closing_twice_and_using_it_afterwards() -> None:
    """Closing is idempotent; a job after that is refused, and no thread comes back."""
    worker = RenderWorker("test-worker")
    assert await worker.run(lambda: 1) == 1
    assert await worker.close(5.0)
    assert await worker.close(5.0)
    assert await reason_of(worker.submit(lambda: 1)) is DropReason.CLOSED


async def test_closing_what_was_never_used() -> None:
    """Without a job there is no thread to end."""
    assert await RenderWorker("test-worker").close(0.0)


async def test_failing_to_clean_up_still_ends_the_thread() -> None:
    """An error in the thread's last act does not keep `close` waiting."""

    def trouble() -> None:
        raise RuntimeError("no")

    worker = RenderWorker("test-worker", on_thread_end=trouble)
    await worker.run(lambda: 1)
    assert await worker.close(5.0)


def test_a_job_may_outlive_the_event_loop() -> None:
    """A thread that comes back after the loop is closed ends quietly."""
    worker = RenderWorker("test-worker")
    gate = Gate()

    async def main() -> None:
        worker.submit(gate)
        await until(gate.entered.is_set)
        assert not await worker.close(0.0)

    asyncio.run(main())
    gate.open()


async def test_every_job_has_exactly_one_end(worker: RenderWorker) -> None:
    """A flood from many owners: each future ends, and the last job of each owner runs."""
    ran: set[tuple[int, int]] = set()
    futures = []
    for number in range(50):
        futures += [worker.submit(partial(ran.add, (owner, number)), owner) for owner in range(8)]
        await asyncio.sleep(0)
    await asyncio.wait(futures, timeout=10.0)
    assert all(future.done() for future in futures)
    assert {(owner, 49) for owner in range(8)} <= ran
    dropped = sum(future.exception() is not None for future in futures)
    assert dropped + len(ran) == len(futures)


# --- jobs in two parts --------------------------------------------------------------------


async def test_the_second_part_is_done_beside_the_next_job() -> None:
    """The thread goes on while the finisher works; the outcome is the second part's."""
    with ThreadPoolExecutor(1) as finisher:
        worker = RenderWorker("test", finisher=finisher)
        gate = Gate()

        def finish(number: int) -> int:
            gate()
            return 10 * number

        first = worker.submit_in_two(lambda: 4, finish, "a")
        await until(gate.entered.is_set)
        assert worker.running is None
        assert await worker.run(lambda: 5, "b") == 5
        assert not first.done()
        gate.open()
        assert await first == 40
        assert await worker.close(5.0)


@pytest.mark.parametrize("part", [0, 1])
async def test_an_error_in_either_part_is_the_outcome(part: int) -> None:
    """Whoever waits hears of it."""

    def trouble(*_: object) -> int:
        raise ValueError("no")

    with ThreadPoolExecutor(1) as finisher:
        worker = RenderWorker("test", finisher=finisher)
        first = trouble if part == 0 else lambda: 1
        with pytest.raises(ValueError, match="no"):
            await worker.submit_in_two(first, trouble, "a")
        assert await worker.close(5.0)


async def test_a_finisher_that_is_shut_down_drops_the_job() -> None:
    """At the stop nobody is kept waiting for a second part that never comes."""
    finisher = ThreadPoolExecutor(1)
    finisher.shutdown()
    worker = RenderWorker("test", finisher=finisher)
    with pytest.raises(JobDroppedError):
        await worker.submit_in_two(lambda: 1, lambda number: number, "a")
    assert await worker.close(5.0)
