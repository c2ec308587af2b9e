"""`python -m tests.benchmarks [PART ...]`: measure and print tables."""

from __future__ import annotations

import argparse
import importlib
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence

from tests.benchmarks.machine import described
from tests.benchmarks.parts import PARTS, Options
from tests.benchmarks.table import Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run parts one after the other.

    Returns:
        1 if one of them could not be measured.
    """
    options = _parser().parse_args(arguments)
    chosen = [name for name in PARTS if name in (options.parts or PARTS)]
    minutes = options.minutes if options.minutes is not None else 0.25 if options.quick else 10.0
    _many_connections()
    # So that what was started is stopped, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    _show(described(), options.markdown)
    failed = False
    for name in chosen:
        failed |= not _measured(name, Options(options.quick, minutes), options.markdown)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench BENCH=...",
        description="Measure the daemon and print tables.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {name:<10}{text}" for name, text in PARTS.items()),
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", type=_part, help="what to measure (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds each, to try it out")
    parser.add_argument("--markdown", action="store_true", help="tables ready for the README")
    parser.add_argument(
        "--minutes", type=float, help="length of the memory part (default: 10; 0.25 with --quick)"
    )
    return parser


def _part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"no part {name!r}; there are {', '.join(PARTS)}")
    return name


def _measured(name: str, options: Options, markdown: bool) -> bool:
    # A part is imported when its turn comes: libraries that this process has mapped could not
    # be dropped from the page cache for the first part, the cold start.
    begun_s = time.monotonic()
    sys.stderr.write(f"[{name}: {PARTS[name]}]\n")
    try:
        for table in importlib.import_module(f"tests.benchmarks.{name}").run(options):
            _show(table, markdown)
    except Exception:
        traceback.print_exc()
        sys.stderr.write(f"[{name} could not be measured]\n")
        return False
    sys.stderr.write(f"[{name}: {time.monotonic() - begun_s:.0f} s]\n")
    return True


def _show(table: Table, markdown: bool) -> None:
    sys.stdout.write(f"{table.markdown() if markdown else table.text()}\n")
    sys.stdout.flush()


def _many_connections() -> None:
    """As many as the system lets us; the processes that we start inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
