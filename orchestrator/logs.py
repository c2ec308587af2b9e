"""structlog for the daemon: readable on a terminal, JSON elsewhere, written by its own thread."""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler, QueueListener
from typing import Final

import structlog

from orchestrator.settings import LogSettings

QUEUE_LINES: Final = 10_000

_SHARED: Final[tuple[structlog.typing.Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


class _BoundedQueueHandler(QueueHandler):
    """Drops lines rather than block the event loop when the reader of the log stalls."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


@contextmanager
def logging_to(settings: LogSettings) -> Iterator[None]:
    """Send structlog and the libraries' loggers to stderr until the block ends."""
    on_terminal = sys.stderr.isatty()
    as_json = settings.format == "json" or (settings.format == "auto" and not on_terminal)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=on_terminal)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.processors.format_exc_info],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    lines: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_LINES)
    root = logging.getLogger()
    queue_handler = _BoundedQueueHandler(lines)
    root.addHandler(queue_handler)
    root.setLevel(logging.WARNING)
    for ours in ("orchestrator", "pipeline", "adapters"):
        logging.getLogger(ours).setLevel(settings.level.upper())
    structlog.configure(
        # The traceback is taken here: in the listener's thread there is none any more.
        processors=[
            *_SHARED,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    listener = QueueListener(lines, handler)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        root.removeHandler(queue_handler)
        structlog.reset_defaults()
