"""`avatar-orchestrator doctor`: arguments to a report, and its exit status."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, TextIO

from orchestrator.doctor import (
    configuration,
    connections,
    files,
    graphics,
    keeping,
    machine,
    ports,
    running,
    service,
    software,
    speed,
)
from orchestrator.doctor.patient import Patient
from orchestrator.doctor.probing import Section, examine
from orchestrator.doctor.redaction import Redactor, secrets_of
from orchestrator.doctor.report import Examined, TextReport, as_json, worst
from orchestrator.settings import (
    CONFIG_FILE,
    ENV_PREFIX,
    Settings,
    default_config_dir,
    load_settings,
)
from pipeline.errors import ConfigError

FAILED: Final = 1
# The daemon comes before ports and connections: what is its own is no trouble there.
SECTIONS: Final = (
    Section("Software", software.look, 10.0),
    Section("Machine", machine.look, 10.0),
    Section("GPU", graphics.look, 45.0),
    Section("Configuration", configuration.look, 5.0),
    Section("Files and renderers", files.look, 120.0, needs_settings=True),
    Section("State", keeping.look, 10.0, needs_settings=True),
    Section("Service", service.look, 12.0),
    Section("Running daemon", running.look, 15.0, needs_settings=True),
    Section("Ports", ports.look, 10.0, needs_settings=True),
    Section("Connections", connections.look, 10.0, needs_settings=True),
    Section("Speed", speed.look, 30.0, needs_settings=True),
)


def doctor(
    config: Path | None,
    out: TextIO,
    *,
    machine_readable: bool = False,
    environ: Mapping[str, str] | None = None,
    sections: Sequence[Section] = SECTIONS,
) -> int:
    """Examine everything and write the report.

    Args:
        config: the settings' file; None takes the usual one.
        out: where to.
        machine_readable: JSON at the end instead of text as it comes.
        environ: environment variables; None takes the process's own.

    Returns:
        0, or 1 where something is to be acted on.
    """
    environ = os.environ if environ is None else environ
    patient = _admit(config, environ)
    redactor = Redactor(secrets_of(patient.settings, patient.config, environ))
    taken_at = datetime.now().astimezone().isoformat(timespec="seconds")
    text = TextReport(out, colours=_wants_colours(out, environ), columns=_columns())
    done: list[Examined] = []
    if not machine_readable:
        out.write(f"avatar-orchestrator doctor, {taken_at}; tokens are left out\n")
    for section in sections:
        done.append(examine(section, patient, redactor))
        if not machine_readable:
            text.section(done[-1])
    if machine_readable:
        out.write(as_json(done, taken_at) + "\n")
    else:
        text.end(done)
    out.flush()
    return FAILED if worst(done) == "FAIL" else 0


def _admit(config: Path | None, environ: Mapping[str, str]) -> Patient:
    named = environ.get(f"{ENV_PREFIX}CONFIG")
    if config is not None:
        file, chosen_by = config, "--config"
    elif named:
        file, chosen_by = Path(named), f"${ENV_PREFIX}CONFIG"
    else:
        file, chosen_by = default_config_dir() / CONFIG_FILE, "the bundled one"
    settings: Settings | None = None
    problem = None
    try:
        settings, _ = load_settings(file, environ)
    except ConfigError as error:
        problem = error
    return Patient(settings, file, chosen_by, environ, problem)


def _wants_colours(out: TextIO, environ: Mapping[str, str]) -> bool:
    return out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _columns() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)
