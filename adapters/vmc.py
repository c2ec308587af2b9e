"""Face trackers that speak VMC over UDP (`vmc.port`): blendshapes and head onto one stage.

All that comes to the port drives the same face, whoever sends it: one application may track the
face and another the head. UDP knows no token, so it is for loopback, unless nobody is asked for
one anyway. A datagram that is wrong is counted and changes nothing.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from typing import Any, Final, cast

import structlog

from adapters import osc
from adapters.access import is_loopback
from adapters.marionette import FORGET_S, Marionette, VmcError
from adapters.osc import OscError
from pipeline.errors import ConfigError, ErrorCode, InvalidEventError, PortTakenError
from pipeline.ports import DaemonPort, Metric, Metrics
from pipeline.types import Failure, StageReply

log = structlog.get_logger()

KIND: Final = "vmc"
# Three performers with a hundred messages a frame at 60 frames per second; at 8 µs each for those
# that are read, a sixth of a core.
MESSAGES_PER_S: Final = 20_000.0
AT_ONCE: Final = 2000.0  # messages: a tenth of a second's, so that a flood cannot hold up a frame
COMPLAIN_EVERY_S: Final = 10.0

_A_MISTAKE: Final = 20.0  # what a datagram that is wrong costs, in messages
_COUNT_EVERY_S: Final = 0.1


def check_host(host: str, *, anybody: bool) -> None:
    """Refuse an address that others can reach, unless anybody may come in.

    Raises:
        ConfigError: names `vmc.host`.
    """
    if not (anybody or is_loopback(host)):
        raise ConfigError(
            "vmc.host",
            f"listening on {host} lets everybody there move the face, because UDP has no token; "
            'take 127.0.0.1, or write auth.mode = "none" to let anybody in',
        )


class Budget:
    """How many messages may be read: a rate with a burst, and with debts.

    What a datagram costs is known when it has been read, so whoever has anything left may spend
    more than that, and then has to wait.

    Args:
        per_s: messages a second.
        at_once: messages that may come at once.
        now_s: monotonic seconds.
    """

    def __init__(self, per_s: float, at_once: float, now_s: float) -> None:
        self._per_s = per_s
        self._most = self._left = at_once
        self._seen_s = now_s

    def lasts(self, now_s: float) -> bool:
        """There is something left."""
        self._left = min(self._most, self._left + (now_s - self._seen_s) * self._per_s)
        self._seen_s = now_s
        return self._left > 0.0

    def spend(self, messages: float) -> None:
        """Take from what is left, or go into debt."""
        self._left -= messages


class VmcInput(asyncio.DatagramProtocol):
    """Listens on one UDP port. It is itself the `Reply` that its controls are submitted with.

    Args:
        daemon: where the stages are.
        metrics: datagrams that are wrong, and whether somebody performs, are counted there.
        stage: name of the stage that is driven; None is the default one.
        weight: strength over what the emotions give, in [0, 1].
        clock: monotonic seconds.
    """

    def __init__(
        self,
        daemon: DaemonPort,
        metrics: Metrics,
        *,
        stage: str | None = None,
        weight: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._daemon = daemon
        self._metrics = metrics
        self._stage = stage
        self._clock = clock
        self._marionette = Marionette(weight)
        self._budget = Budget(MESSAGES_PER_S, AT_ONCE, clock())
        self._over = 0
        self._counting: asyncio.TimerHandle | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = False
        self._performed_s = 0.0
        self._silence: asyncio.TimerHandle | None = None
        self._complained_s: float | None = None
        self._unsaid = 0
        self._log = log.bind(stage=stage)
        metrics.set(Metric.CONNECTIONS, 0, kind=KIND)

    # --- what the daemon calls --------------------------------------------------------------

    async def listen(self, host: str, port: int) -> None:
        """Take datagrams from now on.

        Args:
            host: name or address; see `check_host`.
            port: UDP port; 0 takes a free one.

        Raises:
            ConfigError: cannot listen there; names `vmc.host` or `vmc.port`.
            PortTakenError: another process does.
        """
        bound = await _bound(host, port)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, sock=bound)
        self._log.info("vmc_listening", host=host, port=self.port)

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        if self._transport is None:
            return 0
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._closed = True
        if self._silence is not None:
            self._silence.cancel()
            self._fell_silent()
        if self._counting is not None:
            self._counting.cancel()
            self._count_over()
        if self._transport is not None:
            self._transport.close()

    # --- what the event loop calls ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if exc is not None:
            self._log.error("vmc_lost", error=str(exc))

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        now_s = self._clock()
        if not self._budget.lasts(now_s):
            self._drop()
            return
        try:
            self._take(data, addr, now_s)
        except InvalidEventError as error:
            self._complain(error.code, error.message, f"{addr[0]}:{addr[1]}")
        except (OscError, VmcError) as error:
            self._budget.spend(_A_MISTAKE)
            self._complain(ErrorCode.INVALID_MESSAGE, str(error), f"{addr[0]}:{addr[1]}")
        except Exception:
            # Ours, not the sender's; and it may happen for every datagram.
            if self._may_speak():
                self._log.exception("vmc_failed")

    # --- what stages call -------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Nobody listens any more."""
        return self._closed

    def __call__(self, reply: StageReply) -> None:
        """Take a stage's answer. VMC has no way back, so an error goes to the log."""
        if isinstance(reply, Failure) and self._may_speak():
            self._log.warning("vmc_refused", reason=reply.error.message)

    # --- datagrams --------------------------------------------------------------------------

    def _take(self, data: bytes, addr: tuple[str | Any, int], now_s: float) -> None:
        self._budget.spend(1.0)
        if len(data) > osc.MAX_BYTES:
            problem = f"a datagram of {len(data)} bytes; at most {osc.MAX_BYTES} are taken"
            self._budget.spend(_A_MISTAKE)
            raise InvalidEventError(ErrorCode.TOO_LARGE, problem)
        messages = osc.split(data)
        self._budget.spend(len(messages))
        controls = self._marionette.hear(messages, now_s)
        if controls is None:
            return
        self._daemon.stage(self._stage).submit(controls, self)
        self._metrics.count(Metric.MESSAGES, type="controls")
        self._note_performance(now_s, addr)

    def _note_performance(self, now_s: float, addr: tuple[str | Any, int]) -> None:
        self._performed_s = now_s
        if self._silence is None:
            self._log.info("vmc_performing", remote=f"{addr[0]}:{addr[1]}")
            self._metrics.set(Metric.CONNECTIONS, 1, kind=KIND)
            self._listen_for_silence(FORGET_S)

    def _listen_for_silence(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._silence = loop.call_later(delay_s, self._look_for_silence)

    def _look_for_silence(self) -> None:
        left_s = self._performed_s + FORGET_S - self._clock()
        if left_s > 0.0:
            self._listen_for_silence(left_s)
        else:
            self._fell_silent()

    def _fell_silent(self) -> None:
        self._silence = None
        self._metrics.set(Metric.CONNECTIONS, 0, kind=KIND)
        self._log.info("vmc_silent")

    def _drop(self) -> None:
        """Pass over a datagram beyond the limit, and count it later: this must cost nothing."""
        self._over += 1
        if self._counting is None:
            loop = asyncio.get_running_loop()
            self._counting = loop.call_later(_COUNT_EVERY_S, self._count_over)

    def _count_over(self) -> None:
        self._counting = None
        over, self._over = self._over, 0
        problem = f"at most {MESSAGES_PER_S:.0f} messages a second are taken"
        self._complain(ErrorCode.RATE_LIMITED, problem, None, over)

    def _complain(self, code: ErrorCode, problem: str, remote: str | None, times: int = 1) -> None:
        self._metrics.count(Metric.BAD_MESSAGES, times, code=code.value)
        if self._may_speak(times):
            unsaid, self._unsaid = self._unsaid, 0
            self._log.warning("vmc_bad_datagram", reason=problem, remote=remote, unsaid=unsaid)

    def _may_speak(self, times: int = 1) -> bool:
        """One line at a time: senders repeat their mistakes with every frame."""
        now_s = self._clock()
        if self._complained_s is not None and now_s - self._complained_s < COMPLAIN_EVERY_S:
            self._unsaid += times
            return False
        self._complained_s = now_s
        return True


async def _bound(host: str, port: int) -> socket.socket:
    """A socket on the first address of `host` that can be had.

    Raises:
        ConfigError: there is none.
        PortTakenError: another process listens there.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError("vmc.host", f"{host!r} is no name or address: {error}") from error
    failed: OSError | None = None
    for family, kind, protocol, _, address in found:
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setblocking(False)
            bound.bind(address)
        except OSError as error:
            failed = failed or error
            bound.close()
        else:
            return bound
    if failed is not None and failed.errno == errno.EADDRINUSE:
        raise PortTakenError("vmc.port", "UDP", port) from failed
    why = "it has no address" if failed is None else failed.strerror
    raise ConfigError("vmc.port", f"UDP {host}:{port} cannot be listened on: {why}") from failed
