"""`make fuzz`: as many messages as wanted, and a table of what became of them."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.daemon import DaemonProcess
from tests.fuzz.codec import through_codec
from tests.fuzz.sockets import SETTINGS, through_daemon

CHUNK = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000, help="half of them each way")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    out = sys.stdout
    out.write(f"seed {seed}\n")
    half = options.messages // 2
    began_s = time.monotonic()
    outcome = through_codec(seed, half)
    spent_s = time.monotonic() - began_s
    out.write(
        f"codec: {half} messages in {spent_s:.0f} s, {outcome.read} read, refused "
        f"{dict(outcome.refused)}; slowest {outcome.slowest_s * 1000:.1f} ms\n"
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        DaemonProcess(Path(folder), **SETTINGS) as daemon,
    ):
        for number, start in enumerate(range(0, options.messages - half, CHUNK)):
            many = min(CHUNK, options.messages - half - start)
            began_s = time.monotonic()
            sent = asyncio.run(through_daemon(daemon, seed + 1 + number, many))
            spent_s = time.monotonic() - began_s
            out.write(
                f"daemon: {many} messages in {spent_s:.0f} s, bad {dict(sent.bad)} each with its "
                f"error, good {sent.good}, {sent.accepted} cues each with one ending; "
                f"memory {sent.rss_growth_bytes / 2**20:+.1f} MiB\n"
            )
            out.flush()
        lines = [line for line in daemon.log if line.get("level") in {"error", "critical"}]
        out.write(f"errors in the log: {len(lines)}\n")
        if lines:
            out.write(f"{lines[:3]}\n")
            sys.exit(1)


if __name__ == "__main__":
    main()
