"""One owned thread and its async front: one job in flight, the newest of each owner next."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from pipeline.errors import DropReason, JobDroppedError

log = structlog.get_logger()

S = TypeVar("S")
T = TypeVar("T")

MAX_WAITING: Final = 64
MAX_ABANDONED: Final = 2
JOB_LIMIT_S: Final = 60.0


class RenderWorker:
    """Carries out jobs in a thread of its own, one after the other.

    Every owner has one waiting place; a newer job takes the place of the one that waits there.
    Owners take turns. A running job cannot be cancelled: who no longer wants its outcome just
    stops waiting. A thread that is stuck in a job can be abandoned; another takes over.

    Except where noted, methods belong to the event loop's thread.

    Args:
        name: of the thread, and in logs.
        finisher: carries out what is to be done with a job's outcome before it is delivered, while
            the thread goes on with the next job.
        on_thread_end: called in each thread of this worker as its last act, whether it ends by
            `close` or comes back after having been abandoned; frees what the thread owns.
        max_abandoned: how many stuck threads may exist at a time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        finisher: Executor | None = None,
        on_thread_end: Callable[[], None] = lambda: None,
        max_abandoned: int = MAX_ABANDONED,
        max_waiting: int = MAX_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._finisher = finisher
        self._on_thread_end = on_thread_end
        self._max_abandoned = max_abandoned
        self._max_waiting = max_waiting
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Hashable, _Job] = OrderedDict()
        self._thread: _Thread | None = None
        self._abandoned: set[_Thread] = set()
        self._tell_closer: Callable[[], None] = lambda: None
        self._numbers = itertools.count(1)
        self._closing = False

    def submit_in_two(
        self, job: Callable[[], S], finish: Callable[[S], T], owner: Hashable = None
    ) -> asyncio.Future[T]:
        """`submit`, with a second part that the finisher does: the future has its outcome."""
        return self._submit(job, owner, finish)

    def submit(self, job: Callable[[], T], owner: Hashable = None) -> asyncio.Future[T]:
        """Have `job` carried out; cancel the future to withdraw it while it waits.

        The future may fail with what the job raised, or with `JobDroppedError`. Nobody has to
        wait for it.
        """
        return self._submit(job, owner, None)

    def _submit(
        self, job: Callable[[], Any], owner: Hashable, finish: Callable[[Any], Any] | None
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_take_note)
        replaced = None
        with self._changed:
            if self._closing:
                future.set_exception(JobDroppedError(DropReason.CLOSED))
                return future
            replaced = self._waiting.get(owner)
            if replaced is None and len(self._waiting) >= self._max_waiting:
                future.set_exception(JobDroppedError(DropReason.FULL))
                return future
            # An owner's newer job keeps its turn in the queue.
            self._waiting[owner] = _Job(job, future, finish, self._finisher)
            if self._thread is None:
                self._start_thread()
            self._changed.notify_all()
        if replaced is not None:
            _drop(replaced, DropReason.REPLACED)
        return future

    async def run(self, job: Callable[[], T], owner: Hashable = None) -> T:
        """`submit`, and wait for the outcome.

        Raises:
            JobDroppedError: a newer job of this owner took its place, its thread was abandoned,
                too many owners wait, or the worker is closed.
        """
        return await self.submit(job, owner)

    def allow(self, limit_s: float) -> None:
        """Called by a job: from now on it may take this long before it counts as stuck."""
        thread = threading.current_thread()
        if isinstance(thread, _Thread):
            thread.limit_s = limit_s
            thread.limited_since_s = self._clock()

    @property
    def running(self) -> asyncio.Future[Any] | None:
        """The future of the job in flight."""
        with self._changed:
            job = self._thread.job if self._thread is not None else None
            return job.future if job is not None else None

    @property
    def busy_since(self) -> float | None:
        """When the job in flight was begun, in seconds of the clock; None between jobs."""
        with self._changed:
            thread = self._thread
            return thread.busy_since_s if thread is not None and thread.job is not None else None

    @property
    def overdue(self) -> bool:
        """The job in flight has exceeded its limit (see `allow`): the thread may be stuck."""
        with self._changed:
            thread = self._thread
            if thread is None or thread.job is None:
                return False
            return self._clock() - thread.limited_since_s > thread.limit_s

    def abandon(self) -> bool:
        """Leave the busy thread to itself and let a new one take the jobs that wait.

        The job's outcome is `JobDroppedError`; what it still returns is dropped, and its thread
        ends as soon as it does.

        Returns:
            False if too many threads are stuck already; then nothing has changed.
        """
        with self._changed:
            thread = self._thread
            if thread is None or thread.job is None:
                return True
            if len(self._abandoned) >= self._max_abandoned:
                return False
            job, thread.job = thread.job, None
            thread.abandoned = True
            self._abandoned.add(thread)
            self._thread = None
            if self._waiting:
                self._start_thread()
        _drop(job, DropReason.ABANDONED)
        return True

    async def close(self, deadline_s: float) -> bool:
        """Drop what waits, let the job in flight finish, and end the thread; idempotent.

        Args:
            deadline_s: seconds to wait at most. A thread that is stuck ends with the process.

        Returns:
            Whether no thread is left.
        """
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        with self._changed:
            self._closing = True
            self._tell_closer = lambda: _call_in(loop, ended.set)
            dropped = list(self._waiting.values())
            self._waiting.clear()
            threads = {*self._abandoned, *filter(None, (self._thread,))}
            self._changed.notify_all()
        for job in dropped:
            _drop(job, DropReason.CLOSED)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while self._thread is not None or self._abandoned:
                    await ended.wait()
                    ended.clear()
        with self._changed:
            stuck = self._thread
            in_flight = stuck.job if stuck is not None else None
        if in_flight is not None:
            _drop(in_flight, DropReason.CLOSED)
        for thread in threads - self._abandoned - {stuck}:
            # It has said that it ends: this takes microseconds.
            thread.join()
        return stuck is None and not self._abandoned

    # --- in the thread --------------------------------------------------------------------

    def _start_thread(self) -> None:
        self._thread = _Thread(self._serve, f"{self.name}-{next(self._numbers)}")
        self._thread.start()

    def _serve(self, thread: _Thread) -> None:
        while (job := self._next(thread)) is not None:
            deliver = job.carry_out()
            with self._changed:
                # Before its caller goes on, so that nobody finds a finished job still running.
                thread.job = None
            deliver()
            # What the job holds must not live on while this thread waits for the next.
            del job, deliver
        try:
            self._on_thread_end()
        except Exception:
            log.exception("worker_thread_end_failed", thread=thread.name)
        with self._changed:
            self._abandoned.discard(thread)
            if self._thread is thread:
                self._thread = None
            self._tell_closer()

    def _next(self, thread: _Thread) -> _Job | None:
        """Wait for a job; None when the thread is to end."""
        with self._changed:
            while not thread.abandoned:
                while self._waiting:
                    _, job = self._waiting.popitem(last=False)
                    if not job.future.cancelled():
                        thread.begin(job, self._clock())
                        return job
                if self._closing:
                    return None
                self._changed.wait()
            return None


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    work: Callable[[], Any]
    future: asyncio.Future[Any]
    finish: Callable[[Any], Any] | None = None
    finisher: Executor | None = None

    def carry_out(self) -> Callable[[], None]:
        """Do the work; what is returned hands over its outcome."""
        if self.finish is None:
            return self._done(self.work)
        try:
            outcome = self.work()
        except BaseException as error:
            return partial(self._deliver, None, error)
        second = partial(self.finish, outcome)
        return self._done(second) if self.finisher is None else partial(self._pass_on, second)

    def _pass_on(self, second: Callable[[], Any]) -> None:
        assert self.finisher is not None
        try:
            self.finisher.submit(self._finish_now, second)
        except RuntimeError:
            # It is shut down.
            self._deliver(None, JobDroppedError(DropReason.CLOSED))

    def _finish_now(self, second: Callable[[], Any]) -> None:
        self._done(second)()

    def _done(self, work: Callable[[], Any]) -> Callable[[], None]:
        try:
            return partial(self._deliver, work(), None)
        except StopIteration as error:
            # A future cannot hold this one.
            return partial(self._deliver, None, RuntimeError(f"the job raised {error!r}"))
        except BaseException as error:
            # Also SystemExit and the like: a job must not end the thread.
            return partial(self._deliver, None, error)

    def _deliver(self, outcome: Any, error: BaseException | None) -> None:
        _call_in(self.future.get_loop(), partial(_settle, self.future, outcome, error))


class _Thread(threading.Thread):
    """A worker's thread and what it is doing; fields change under the worker's lock."""

    def __init__(self, serve: Callable[[_Thread], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._serve = serve
        self.job: _Job | None = None
        self.abandoned = False
        self.busy_since_s = 0.0
        self.limited_since_s = 0.0
        self.limit_s = JOB_LIMIT_S

    def begin(self, job: _Job, now_s: float) -> None:
        self.job = job
        self.busy_since_s = self.limited_since_s = now_s
        self.limit_s = JOB_LIMIT_S

    def run(self) -> None:
        self._serve(self)


def _drop(job: _Job, reason: DropReason) -> None:
    _settle(job.future, None, JobDroppedError(reason))


def _settle(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)


def _take_note(future: asyncio.Future[Any]) -> None:
    """Look at the outcome, so that asyncio does not complain where nobody waits for it."""
    if not future.cancelled():
        future.exception()


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    # A loop that is closed has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
