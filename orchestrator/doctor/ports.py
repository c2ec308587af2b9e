"""Who has the daemon's ports, as far as the kernel lets us see."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.doctor.patient import Patient
from orchestrator.doctor.report import Diagnosis

PROC: Final = Path("/proc")
_LISTENING: Final = "0A"
_UNCONNECTED: Final = "07"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a port.

    Attributes:
        pid: None where it may not be seen.
    """

    pid: int | None
    name: str = ""
    user: int | None = None

    def __str__(self) -> str:
        if self.pid is None:
            return "a process of another user"
        return f"process {self.pid} ({self.name}, user {self.user})"


def look(patient: Patient) -> Iterator[Diagnosis]:
    """The TCP port of everything, and the UDP port for face trackers."""
    server, vmc = patient.known.server, patient.known.vmc
    if server.port == 0:
        yield Diagnosis("ok", "tcp", "server.port = 0: a free one is taken, and logged")
    else:
        yield _port("tcp", server.host, server.port, "server.port", ours=bool(patient.samples))
    if vmc.port:
        yield _port("udp", vmc.host, vmc.port, "vmc.port", ours=bool(patient.samples))


def _port(protocol: str, host: str, port: int, key: str, *, ours: bool) -> Diagnosis:
    inodes = inodes_of(protocol, port)
    if inodes:
        who = ", ".join(str(holder) for holder in holders(inodes))
        text = f"{port} is in use by {who}"
        if ours:
            return Diagnosis("ok", protocol, text)
        return Diagnosis(
            "note", protocol, text, f"no daemon of ours: stop it, or choose another {key}"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if ours:  # without /proc nobody says whose it is, but it has answered
            return Diagnosis("ok", protocol, f"{port} is in use by the daemon")
        text = f"{host}:{port} cannot be listened on: {error.strerror or error}"
        return Diagnosis("FAIL", protocol, text, f"choose another {key} or host")
    return Diagnosis("ok", protocol, f"{host}:{port} is free")


def inodes_of(protocol: str, port: int, proc: Path = PROC) -> set[str]:
    """The sockets that listen on a port, on whichever address."""
    state = _LISTENING if protocol == "tcp" else _UNCONNECTED
    found = set()
    for table in (proc / "net" / protocol, proc / "net" / f"{protocol}6"):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            cells = line.split()
            if cells[3] == state and int(cells[1].rpartition(":")[2], 16) == port:
                found.add(cells[9])
    return found


def holders(inodes: set[str], proc: Path = PROC) -> list[Holder]:
    """The processes that have these sockets open."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = []
    for process in proc.glob("[0-9]*"):
        try:
            if any(str(entry.readlink()) in wanted for entry in (process / "fd").iterdir()):
                name = (process / "comm").read_text().strip()
                found.append(Holder(int(process.name), name, process.stat().st_uid))
        except OSError:
            continue  # it has ended, or is another user's
    return found or [Holder(None)]
