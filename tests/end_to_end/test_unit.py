"""The unit under a real systemd: process 1 of namespaces of its own, on a copy of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
BOOT = CHECKOUT / "tests" / "systemd" / "boot.sh"
LIFE_S = 100


def _why_not() -> str | None:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, for namespaces and an overlay"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed"
    if any(shutil.which(tool) is None for tool in ("unshare", "dbus-daemon", "ip")):
        return "unshare, dbus-daemon and ip are needed"
    groups = Path("/sys/fs/cgroup/unified")
    groups = groups if groups.is_dir() else Path("/sys/fs/cgroup")
    if not os.access(groups, os.W_OK) or not (groups / "cgroup.procs").exists():
        return "no control groups of version 2 that may be written"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--net", "true"],
        capture_output=True, check=False,
    )  # fmt: skip
    return None if tried.returncode == 0 else "namespaces are not permitted here"


WHY_NOT = _why_not()


def seen_of_its_life(output: Path) -> dict[str, str]:
    """What was seen while the unit was put through its life, by name."""
    where = [str(CHECKOUT), str(output), sys.base_prefix, sysconfig.get_path("purelib")]
    booted = subprocess.run(
        ["bash", str(BOOT), *where],
        env=os.environ | {"LIFE_S": str(LIFE_S)},
        capture_output=True, text=True, timeout=LIFE_S + 30, check=False,
    )  # fmt: skip
    seen = output / "facts"
    if not seen.exists():
        console = output / "console"
        said = console.read_text(errors="replace") if console.exists() else booted.stderr
        pytest.skip(f"systemd did not boot here: {said[-300:]}")
    lines = (line.partition(" ") for line in seen.read_text("utf-8").splitlines())
    return {name: value for name, _, value in lines}


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
@pytest.mark.timeout(LIFE_S + 60)
def test_the_unit_lives_under_a_real_systemd(tmp_path: Path) -> None:
    """One life of it, which takes its time, and everything that was seen in it."""
    facts = seen_of_its_life(tmp_path)
    for look in (started, sandboxed, kept_its_state, revived, not_tried_for_ever):
        look(facts)


def started(facts: dict[str, str]) -> None:
    """Started means the first frame; a user of its own, no privileges, a reload, a clean stop."""
    assert (facts["start"], facts["active"]) == ("0", "active")
    assert facts["status"] == "publishing astronaut with mesh"
    assert int(facts["uid"]) >= 61_184  # DynamicUser's range begins there
    assert facts["reload"] == "0 active"
    assert facts["stop"] == "0 success"


def sandboxed(facts: dict[str, str]) -> None:
    """System calls filtered, no privilege to be had, nothing written but its own state."""
    assert facts["Seccomp:"] == "2"
    assert facts["NoNewPrivs:"] == "1"
    assert int(facts["CapEff:"], 16) == int(facts["CapBnd:"], 16) == 0
    for where in ("/etc", "/usr", "/run", "/run/lock", "/opt/avatar-orchestrator/app"):
        assert facts[f"unwritable:{where}"] == "0", where
    assert facts["home"] == "0"


def kept_its_state(facts: dict[str, str]) -> None:
    """Private to the service's user, writable, and there after the stop."""
    assert (facts["state:mode"], facts["state:own"], facts["state:writable"]) == ("700", "0", "0")
    assert int(facts["state:kept"]) >= 1


def revived(facts: dict[str, str]) -> None:
    """The watchdog sees that nothing moves; a killed one comes back, too."""
    assert (facts["hung:restarts"], facts["hung:active"]) == ("1", "active")
    assert facts["hung:another"] == "0"
    assert int(facts["hung:journal"]) >= 1
    assert facts["killed:active"] == "active"


def not_tried_for_ever(facts: dict[str, str]) -> None:
    """A wrong configuration not a second time, a crash until the start limit."""
    assert (facts["config:status"], facts["config:restarts"]) == ("78", "0")
    assert facts["config:state"] == "failed"
    assert facts["limit:state"] == "failed"
    assert 4 <= int(facts["limit:restarts"]) <= 5
