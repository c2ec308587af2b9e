"""Settings: what the file says, what the environment overrides, what stops the boot."""

import math
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from orchestrator.settings import Settings, default_config_dir, load_settings, state_dir
from pipeline.errors import ConfigError

AVATAR_TOML = default_config_dir() / "avatar.toml"


def test_the_file_holds_every_setting_with_its_default() -> None:
    """avatar.toml and the defaults in the code are the same keys and values."""
    written = tomllib.loads(AVATAR_TOML.read_text("utf-8"))
    defaults = msgspec.to_builtins(Settings())
    assert msgspec.convert(written, Settings) == Settings()
    assert {table: set(keys) for table, keys in written.items()} == {
        table: set(keys) for table, keys in defaults.items()
    }


def test_every_setting_is_explained() -> None:
    """Each key of avatar.toml carries a comment that gives its reason."""
    for line in AVATAR_TOML.read_text("utf-8").splitlines():
        if re.match(r"\w+ = ", line):
            assert re.search(r"# \S+ \S+ \S+", line), line


def test_environment_overrides_the_file(tmp_path: Path) -> None:
    """AVATAR_TABLE__KEY wins over the file, and is converted to the key's type."""
    file = tmp_path / "avatar.toml"
    file.write_text("[server]\nport = 9000\n[stage]\nfps = 25\n")
    environ = {
        "AVATAR_SERVER__PORT": "18081",
        "AVATAR_IDLE__ENABLED": "false",
        "AVATAR_AUTH__ALLOWED_ORIGINS": '["https://a.example"]',
        "AVATAR_STAGE__CHARACTER": "123",
    }
    settings, path = load_settings(file, environ)
    assert path == file
    assert settings.server.port == 18081
    assert settings.stage.fps == 25.0
    assert settings.stage.character == "123"
    assert settings.idle.enabled is False
    assert settings.auth.allowed_origins == ("https://a.example",)


@pytest.mark.parametrize(
    ("environ", "where", "right"),
    [
        ({"AVATAR_SERVER__PORT": "70000"}, "server.port", "at most 65535"),
        ({"AVATAR_SERVER__PORT": "http"}, "server.port", "a whole number"),
        ({"AVATAR_SERVER__PRT": "1"}, "server.prt", "host, port"),
        ({"AVATAR_SERVR__PORT": "1"}, "AVATAR_SERVR__PORT", "server"),
        ({"AVATAR_SERVER_PORT": "1"}, "AVATAR_SERVER_PORT", "AVATAR_SERVER__PORT"),
        ({"AVATAR_STAGE__FPS": "nan"}, "stage.fps", "at least 1.0"),
        ({"AVATAR_STAGE__FPS": "0"}, "stage.fps", "at least 1.0"),
        ({"AVATAR_STAGE__WIDTH": "511"}, "stage.width", "a multiple of 2"),
        ({"AVATAR_RENDERER__BACKEND": "cuda"}, "renderer.backend", "'mesh'"),
        ({"AVATAR_IDLE__ENABLED": "maybe"}, "idle.enabled", "true or false"),
        ({"AVATAR_MEDIA_BRIDGE__URL": "http://x"}, "media_bridge.url", "wss://"),
        ({"AVATAR_AUTH__ALLOWED_HOSTS": "a"}, "auth.allowed_hosts", "a list"),
        ({"AVATAR_AUTH__TOKEN": "two words"}, "auth.token", "no spaces"),
        ({"AVATAR_EVENTS__CONNECT": '["http://x"]'}, "events.connect[0]", "wss://"),
        ({"AVATAR_EVENTS__CONNECT": '["ws://x/#a"]'}, "events.connect[0]", "without #"),
        ({"AVATAR_MEDIA_BRIDGE__URL": "ws://x/#a"}, "media_bridge.url", "without #"),
        ({"AVATAR_EVENTS__CONNECT": "ws://x"}, "events.connect", "a list of"),
        ({"AVATAR_EVENTS__CONNECT": '["ws://x", "ws://x"]'}, "events.connect[1]", "twice"),
        ({"AVATAR_EVENTS__TOKENS": '["a"]'}, "events.tokens", "one for each"),
        (
            {"AVATAR_EVENTS__CONNECT": '["ws://x"]', "AVATAR_EVENTS__TOKENS": '["a b"]'},
            "events.tokens[0]",
            "no spaces",
        ),
        ({"AVATAR_VMC__PORT": "65536"}, "vmc.port", "at most 65535"),
        ({"AVATAR_VMC__WEIGHT": "2"}, "vmc.weight", "at most 1"),
    ],
)
def test_a_wrong_setting_names_its_key_and_what_would_be_right(
    environ: dict[str, str], where: str, right: str
) -> None:
    """Every refusal carries the full path of the key and what it takes."""
    with pytest.raises(ConfigError) as refused:
        load_settings(None, environ)
    assert refused.value.where == where
    assert right in refused.value.problem


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    """A file that is missing, is no TOML, or has an unknown key stops the boot."""
    missing = tmp_path / "no.toml"
    with pytest.raises(ConfigError, match=re.escape(str(missing))):
        load_settings(missing, {})
    broken = tmp_path / "broken.toml"
    broken.write_text("[server\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings(broken, {})
    broken.write_text("[server]\nprot = 1\n")
    with pytest.raises(ConfigError, match=r"server\.prot: there is no such key"):
        load_settings(broken, {})
    broken.write_text("server = 5\n")
    with pytest.raises(ConfigError, match="server: expected a table"):
        load_settings(broken, {})


def test_the_state_directory_follows_setting_then_systemd_then_xdg(tmp_path: Path) -> None:
    """state.dir wins, then $STATE_DIRECTORY, then the XDG state home."""
    explicit, _ = load_settings(None, {"AVATAR_STATE__DIR": str(tmp_path)})
    assert state_dir(explicit, {"STATE_DIRECTORY": "/other"}) == tmp_path
    assert state_dir(Settings(), {"STATE_DIRECTORY": "/a:/b"}) == Path("/a")
    xdg = state_dir(Settings(), {"XDG_STATE_HOME": "/x"})
    assert xdg == Path("/x/avatar-orchestrator")


def test_numbers_stay_finite() -> None:
    """Infinity is no number of seconds."""
    with pytest.raises(ConfigError, match=r"stage\.viewer_stall_s"):
        load_settings(None, {"AVATAR_STAGE__VIEWER_STALL_S": str(math.inf)})
