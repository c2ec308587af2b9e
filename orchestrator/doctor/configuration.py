"""The configuration: which file, what is other than usual, who may connect. Secrets stay unseen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from orchestrator.doctor.patient import Patient
from orchestrator.doctor.redaction import is_secret
from orchestrator.doctor.report import Diagnosis
from orchestrator.settings import ENV_PREFIX, Settings

MOST_KEYS: Final = 60


def look(patient: Patient) -> Iterator[Diagnosis]:
    """The file, overridden keys, keys that are not as usual, access."""
    yield Diagnosis("ok", "file", f"{patient.config.absolute()} ({patient.chosen_by})")
    if patient.problem is not None:
        yield Diagnosis("FAIL", "settings", str(patient.problem), "the daemon ends with status 78")
    variables = sorted(name for name in patient.environ if name.startswith(ENV_PREFIX))
    names = ", ".join(variables) or "none"
    yield Diagnosis("ok", "environment", f"variables that override it: {names}")
    if patient.settings is None:
        return
    changed = list(unusual(patient.settings))
    shown = ", ".join(f"{key} = {value}" for key, value in changed[:MOST_KEYS])
    more = f", and {len(changed) - MOST_KEYS} more" if len(changed) > MOST_KEYS else ""
    yield Diagnosis("ok", "not default", (shown or "nothing") + more)
    yield from _access(patient.settings)


def unusual(settings: Settings) -> Iterator[tuple[str, str]]:
    """Keys that are not as they come, with their values; of secrets only that they are set."""
    usual = _flat(msgspec.to_builtins(Settings()))
    for key, value in _flat(msgspec.to_builtins(settings)).items():
        if key not in usual or usual[key] != value:
            yield key, "(set)" if is_secret(key) else repr(_shown(value))


def _shown(value: object) -> object:
    """A value, of an address what nobody needs to keep secret."""
    from adapters.dialling import without_secrets

    if isinstance(value, list | tuple):
        return tuple(_shown(each) for each in value)
    return without_secrets(value) if isinstance(value, str) and "://" in value else value


def _flat(tables: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tables.items():
        key = f"{above}{name}"
        if isinstance(value, dict):
            found |= _flat(value, f"{key}.")
        else:
            found[key] = value
    return found


def _access(settings: Settings) -> Iterator[Diagnosis]:
    from adapters.access import is_loopback

    host, auth = settings.server.host, settings.auth
    token = "a token is set" if auth.token else "no token is set"
    if is_loopback(host):
        yield Diagnosis("ok", "access", f"{host}: this machine only; {token}")
    elif auth.mode == "none":
        advice = "right only behind a proxy that authenticates; else set auth.token and mode"
        yield Diagnosis("note", "access", f"{host}: anybody who can reach it", advice)
    else:
        yield Diagnosis("ok", "access", f"{host}: other machines, too; {token}")
    if "*" in auth.allowed_origins:
        advice = "any web page that a user opens can speak to the daemon; name the origins"
        yield Diagnosis("note", "origins", "auth.allowed_origins lets every page in", advice)
