"""The container's files, as far as they can be checked without an engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from orchestrator.__main__ import _parser
from orchestrator.http_side import access_policy
from orchestrator.settings import load_settings
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "container"
DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
UNIT = (ROOT / "systemd" / "avatar-orchestrator.service").read_text()
# The compose specification as docker-compose 1.29.2 has it (Apache-2.0); `name` came later.
SCHEMA = json.loads((ROOT / "tests" / "golden" / "compose" / "compose_spec.json").read_text())
TOKEN = "only-for-this-test"


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, line continuations joined."""

    stage: str
    word: str
    text: str

    @property
    def value(self) -> Any:
        """Its JSON form, or its words without options."""
        if self.text.startswith("["):
            return json.loads(self.text)
        return [word for word in shlex.split(self.text) if not word.startswith("--")]


def read_dockerfile() -> list[Instruction]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[Instruction] = []
    stage = ""
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.rpartition(" AS ")[2]
        found.append(Instruction(stage, word, rest.strip()))
    return found


INSTRUCTIONS = read_dockerfile()
PARENTS = {
    each.stage: each.text.partition(" AS ")[0] for each in INSTRUCTIONS if each.word == "FROM"
}


def of_image(target: str, word: str) -> list[Instruction]:
    """The instructions of a stage and of those that it is built on, the first one first."""
    stages = [target]
    while PARENTS[stages[0]] in PARENTS:
        stages.insert(0, PARENTS[stages[0]])
    return [
        each
        for stage in stages
        for each in INSTRUCTIONS
        if (each.stage, each.word) == (stage, word)
    ]


def environment(target: str) -> dict[str, str]:
    words = [word for each in of_image(target, "ENV") for word in each.value]
    return dict(word.split("=", 1) for word in words)


def settings_of(target: str) -> dict[str, str]:
    return {k: v for k, v in environment(target).items() if k.startswith("AVATAR_")}


def only(target: str, word: str) -> Instruction:
    (found,) = of_image(target, word)
    return found


# --- the image ----------------------------------------------------------------------------


def test_what_is_copied_is_there_and_sent_to_the_builder() -> None:
    """Every source of a COPY exists, and .dockerignore lets it through."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert "*" in ignored
    copied = set()
    for each in INSTRUCTIONS:
        if each.word == "COPY" and "--from" not in each.text:
            copied |= set(each.value[:-1])
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignored, source
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*packages["packages"], *packages["force-include"], PROJECT["project"]["readme"]}
    assert needed <= copied, "the wheel cannot be built of what is copied"


def test_copies_between_stages_name_stages() -> None:
    """An image takes its packages from a stage that there is."""
    sources = {
        match[1] for each in INSTRUCTIONS if (match := re.search(r"--from=(\S+)", each.text))
    }
    assert sources
    assert sources <= PARENTS.keys()


def test_the_packages_are_those_of_the_project() -> None:
    """Extras that are installed exist; versions are as the project and the Makefile have them."""
    runs = " ".join(each.text for each in INSTRUCTIONS if each.word == "RUN")
    extras = set(re.findall(r'"\.\[([\w,]+)\]"', runs))
    assert extras == {"liveportrait"}
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()
    (headless,) = set(re.findall(r'"(opencv-python-headless[^"]*)"', runs))
    assert headless in PROJECT["project"]["dependencies"]
    assert headless in (ROOT / "Makefile").read_text()
    for each in INSTRUCTIONS:
        if each.word == "ARG" and each.text.startswith("PYTHON_VERSION="):
            version = tuple(map(int, each.text.partition("=")[2].split(".")))
            assert (3, 11) <= version <= (3, 13)
            assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_image_is_small_and_not_root(target: str) -> None:
    """It stands on the slim base, of a tagged version; nothing is built or fetched in it."""
    assert "-slim-" in PARENTS["base"]
    assert all(":" in parent or parent in PARENTS for parent in PARENTS.values())
    installed = " ".join(each.text for each in of_image(target, "RUN"))
    for tool in ("pip ", "apt-get", "curl", "gcc"):
        assert tool not in installed
    user = only(target, "USER").text
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    for number in user.split(":"):
        assert f"id {number}" in installed
    assert [each.stage for each in INSTRUCTIONS][-1] == "cpu", "built without --target"


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_its_variables_are_settings_that_fit_its_ports_and_volumes(target: str) -> None:
    """Each is a real setting; port, state and models are where EXPOSE and VOLUME say."""
    tokenless, _ = load_settings(environ=settings_of(target))
    with pytest.raises(ConfigError, match=r"auth\.token"):
        access_policy(tokenless)
    settings, _ = load_settings(environ=settings_of(target) | {"AVATAR_AUTH__TOKEN": TOKEN})
    assert settings.server.host == "0.0.0.0"
    assert only(target, "EXPOSE").text == f"{settings.server.port}/tcp"
    volumes = only(target, "VOLUME").value
    assert settings.state.dir in volumes
    assert settings.liveportrait.weights_dir in {"", *volumes}
    assert (settings.liveportrait.weights_dir != "") == (target == "cuda")


def healthy(port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / "healthcheck.py")],
        env={"AVATAR_SERVER__PORT": str(port), "http_proxy": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_command_starts_and_its_check_knows(tmp_path: Path) -> None:
    """ENTRYPOINT and CMD run a daemon that the health check finds, until it is stopped."""
    entry, command = only("cpu", "ENTRYPOINT").value, only("cpu", "CMD").value
    program = [str(Path(sys.executable).parent / entry[0]), *entry[1:], *command]
    with socket.create_server(("0.0.0.0", 0)) as free:
        port = free.getsockname()[1]
    variables = environment("cpu") | {
        "AVATAR_SERVER__PORT": str(port),
        "AVATAR_STATE__DIR": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    assert subprocess.run(program, env=variables, capture_output=True, check=False).returncode == 78
    variables["AVATAR_AUTH__TOKEN"] = TOKEN
    daemon = subprocess.Popen(
        program, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end_s = time.monotonic() + 40.0
        while (found := healthy(port)).returncode and time.monotonic() < end_s:
            assert daemon.poll() is None
            time.sleep(0.2)
        assert (found.returncode, found.stderr) == (0, "")
        assert "mesh on" in found.stdout
        assert TOKEN not in found.stdout
    finally:
        daemon.send_signal(getattr(signal, only("cpu", "STOPSIGNAL").text))
        assert daemon.wait(20) == 0
    assert healthy(port).returncode == 1


def test_the_health_check_is_copied_to_where_it_is_called() -> None:
    """By its name, executable."""
    (copied,) = [each for each in of_image("cpu", "COPY") if "healthcheck.py" in each.text]
    source, target = copied.value
    assert "--chmod=0755" in copied.text
    assert (ROOT / source).read_text().startswith("#!/usr/bin/env python3")
    called = only("cpu", "HEALTHCHECK").text.partition("CMD ")[2]
    assert json.loads(called) == [Path(target).name]
    assert Path(target).parent == Path("/usr/local/bin")


def test_hadolint_has_nothing_to_say() -> None:
    """The Dockerfile's linter, where it is installed."""
    here = Path(sys.executable).parent
    hadolint = shutil.which("hadolint", path=f"{here}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        [hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


# --- compose ------------------------------------------------------------------------------


def test_the_compose_file_is_one() -> None:
    """It is valid by the specification's schema."""
    older = {key: value for key, value in COMPOSE.items() if key != "name"}
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(older)] == []


def test_docker_accepts_the_compose_file() -> None:
    """Compose itself, where it is installed."""
    docker = shutil.which("docker")
    plugin = [docker or "docker", "compose"]
    if docker is None or subprocess.call(
        [*plugin, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ):
        pytest.skip("docker compose is not installed")
    done = subprocess.run(
        [*plugin, "-f", str(FOLDER / "compose.yaml"), "config", "--quiet"],
        env=os.environ | {"AVATAR_AUTH__TOKEN": TOKEN},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_fits_its_image(name: str) -> None:
    """Target, volumes, ports and variables are those that the image has."""
    service = COMPOSE["services"][name]
    build = service["build"]
    context = (FOLDER / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]) == DOCKERFILE
    target = build["target"]
    assert target in ("cpu", "cuda")
    assert service["image"].endswith(f":{target}")
    arguments = {each.text.partition("=")[0] for each in INSTRUCTIONS if each.word == "ARG"}
    assert build.get("args", {}).keys() <= arguments
    volumes = only(target, "VOLUME").value
    for volume in service["volumes"]:
        source, path, *_ = volume.split(":")
        assert source in COMPOSE["volumes"]
        assert path in volumes
    environ = service.get("environment", {})
    given = dict.fromkeys(environ, "") | {"AVATAR_AUTH__TOKEN": TOKEN}
    settings, _ = load_settings(environ=settings_of(target) | given)
    for port in service.get("ports", ()):
        assert port.endswith(f":{settings.server.port}")
    if "healthcheck" in service and "test" in service["healthcheck"]:
        check = only(target, "HEALTHCHECK").text
        assert service["healthcheck"]["test"] == ["CMD", *json.loads(check.partition("CMD ")[2])]
        for key in ("interval", "timeout", "retries"):
            assert f"--{key}={service['healthcheck'][key]}" in check


def test_a_service_is_as_confined_as_the_unit() -> None:
    """Stop time and open files are the unit's; no privileges, and only volumes are written."""
    for name in ("avatar", "avatar-gpu"):
        service = COMPOSE["services"][name]
        assert f"TimeoutStopSec={service['stop_grace_period'].rstrip('s')}" in UNIT
        assert f"LimitNOFILE={service['ulimits']['nofile']}" in UNIT
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert ":?" in service["environment"]["AVATAR_AUTH__TOKEN"], "starts without a token"
        assert service["ports"] == ["${AVATAR_PUBLISH:-127.0.0.1:8081}:8081"]
    gpu = COMPOSE["services"]["avatar-gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert "profiles" not in COMPOSE["services"]["avatar"]


def test_the_models_command_is_one() -> None:
    """What the service `models` runs is a command of the program, into the volume."""
    options = _parser().parse_args(COMPOSE["services"]["models"]["command"])
    assert options.action == "download"
    assert str(options.to) in only("cuda", "VOLUME").value
