"""A daemon with names of hosts, or with disks, of its own: a mount namespace around it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SINK: Final = "sink.test"
HOSTS: Final = "hosts"
STATE: Final = "state"
LOG: Final = "log"
_DISK_BYTES: Final = 8 * 2**20
_CHUNK: Final = bytes(65_536)
_FILLER: Final = "filler"


class NotPossibleHereError(Exception):
    """This system does not allow the experiment."""


def unshared(folder: Path, *, hosts: bool = False, disks: bool = False) -> tuple[str, ...]:
    """A command that gives the one after it what nobody else has.

    Args:
        folder: of the stage.
        hosts: its names of hosts are the file `hosts` in there, beginning with the sink.
        disks: `state` and `log` in there are small disks.

    Raises:
        NotPossibleHereError: this system does not let us.
    """
    mounts = []
    if hosts:
        (folder / HOSTS).write_text(f"127.0.0.1 localhost {SINK}\n", "ascii")
        mounts.append(f'mount --bind "{folder / HOSTS}" /etc/hosts')
    for disk in (STATE, LOG) if disks else ():
        (folder / disk).mkdir()
        mounts.append(f'mount -t tmpfs -o size={_DISK_BYTES},mode=700 chaos "{folder / disk}"')
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    script = " && ".join((*mounts, 'exec "$@"'))
    command = ("unshare", "--mount", *user, "sh", "-c", script, "sh")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False, capture_output=True).returncode
    ):
        raise NotPossibleHereError("needs `unshare --mount`")
    return command


class Disk:
    """A disk that only one process sees, from outside.

    Args:
        pid: of that process.
        folder: where the disk is mounted.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid = pid
        self._folder = folder
        self.root = Path(f"/proc/{pid}/root") / folder.relative_to("/")

    def fill(self, but: int = 0) -> None:
        """Take all its room.

        Args:
            but: bytes that stay free.
        """
        with (self.root / _FILLER).open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(_CHUNK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            file.truncate(max(0, file.tell() - but))

    def free(self) -> None:
        """Give the room back."""
        (self.root / _FILLER).unlink(missing_ok=True)

    def make_readable_only(self) -> bool:
        """Remount it; False if somebody is writing to it just now."""
        return self._remount("ro")

    def make_writable(self) -> None:
        """Remount it as it was."""
        assert self._remount("rw")

    def _remount(self, how: str) -> bool:
        user: Sequence[str] = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        entering = ("nsenter", "--target", str(self._pid), "--mount", *user)
        remounting = ("mount", "-o", f"remount,{how}", str(self._folder))
        done = subprocess.run([*entering, *remounting], check=False, capture_output=True)
        return done.returncode == 0
