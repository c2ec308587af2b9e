"""Every HTTP route of the running daemon, asked what its description allows, and what not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fakes.daemon import DaemonProcess
from tests.fuzz.sockets import SETTINGS, state

EXAMPLES = 5  # of each route, right ones and wrong ones
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ENDLESS = "/v1/stream.mjpg"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One that fetches nothing: addresses are made up, too."""
    folder = tmp_path_factory.mktemp("state")
    with DaemonProcess(folder, AVATAR_CHARACTERS__FETCH="off", **SETTINGS) as process:
        yield process


def test_every_answer_is_as_described(daemon: DaemonProcess) -> None:
    """Whatever is asked: a described status, content type and body, never a failure of ours."""
    described = schemathesis.openapi.from_url(f"{daemon.http}/openapi.json")
    tried = set()
    for found in described.exclude(path=ENDLESS).get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                case.call_and_validate(checks=CHECKS, timeout=20)

            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with some
                ask()
            tried.add(operation.label)
    assert len(tried) > 20


def test_it_has_been_taken_well(daemon: DaemonProcess) -> None:
    """After all of that the daemon publishes, and has nothing to complain about."""
    errors = [line for line in daemon.log if line.get("level") in {"error", "critical"}]
    assert not errors
    assert httpx.get(f"{daemon.http}/ready").status_code == 200
    assert state(daemon)["health"] == ("ok", [])
