"""Settings: `config/avatar.toml`, overridden by `AVATAR_TABLE__KEY`, read once and frozen.

`avatar.toml` is the reference of every key; the defaults here are the same ones (a test
compares them), so the daemon also runs without the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from pipeline.errors import ConfigError

ENV_PREFIX: Final = "AVATAR_"
CONFIG_FILE: Final = "avatar.toml"
WS_URL_PATTERN: Final = r"^(wss?://[^\s#]+)?$"
WS_ADDRESS_PATTERN: Final = r"^wss?://[^\s#]+$"
STAGE_NAME_PATTERN: Final = r"[a-z0-9_-]{1,64}"
STAGES_TABLE: Final = "stages"
MAIN_STAGE: Final = "main"
DEVICE_PATTERN: Final = r"^(auto|cpu|mps|cuda(:[0-9]{1,2})?)(?![\s\S])"

PositiveSeconds = Annotated[float, Meta(gt=0.0, le=86400.0)]
Relative = Annotated[float, Meta(ge=0.0, le=4.0)]
Side = Annotated[int, Meta(ge=64, le=2048, multiple_of=2)]


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8081
    tcp_user_timeout_s: PositiveSeconds = 15.0
    tls_cert: str = ""
    tls_key: str = ""


class AuthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    token: str = ""
    mode: Literal["token", "none"] = "token"
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()


class LimitsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    message_bytes: Annotated[int, Meta(ge=256, le=16 * 2**20)] = 65536
    messages_per_s: Annotated[float, Meta(ge=1.0, le=100_000.0)] = 200.0
    producers: Annotated[int, Meta(ge=1, le=10_000)] = 64
    viewers: Annotated[int, Meta(ge=1, le=10_000)] = 2000
    stages: Annotated[int, Meta(ge=1, le=64)] = 8
    upload_bytes: Annotated[int, Meta(ge=1024, le=256 * 2**20)] = 16 * 2**20
    upload_pixels: Annotated[int, Meta(ge=4096, le=400_000_000)] = 40_000_000


class StageSettings(Struct, frozen=True, forbid_unknown_fields=True):
    character: Annotated[str, Meta(min_length=1)] = "astronaut"
    fps: Annotated[float, Meta(ge=1.0, le=120.0)] = 30.0
    width: Side = 512
    height: Side = 512
    jpeg_quality: Annotated[int, Meta(ge=1, le=100)] = 88
    idle_seed: Annotated[int, Meta(ge=-1, le=2**32 - 1)] = -1
    viewer_stall_s: PositiveSeconds = 10.0

    @property
    def size_px(self) -> tuple[int, int]:
        return self.width, self.height


class StageOverrides(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What another stage has otherwise than `[stage]`; None where it has the same."""

    character: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    fps: Annotated[float, Meta(ge=1.0, le=120.0)] | None = None
    width: Side | None = None
    height: Side | None = None
    jpeg_quality: Annotated[int, Meta(ge=1, le=100)] | None = None
    idle_seed: Annotated[int, Meta(ge=-1, le=2**32 - 1)] | None = None

    def over(self, stage: StageSettings) -> StageSettings:
        """The settings of that other stage."""
        every = msgspec.structs.asdict(self)
        given = {key: value for key, value in every.items() if value is not None}
        return msgspec.structs.replace(stage, **given)


class RendererSettings(Struct, frozen=True, forbid_unknown_fields=True):
    backend: Literal["auto", "liveportrait", "mesh"] = "auto"
    deadline_ms: Annotated[float, Meta(ge=1.0, le=60_000.0)] = 80.0
    hang_s: PositiveSeconds = 5.0


class LivePortraitSettings(Struct, frozen=True, forbid_unknown_fields=True):
    weights_dir: str = ""
    device: Annotated[str, Meta(pattern=DEVICE_PATTERN)] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    output: Literal["portrait", "crop"] = "portrait"
    memory_share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.5
    release_after_min: Annotated[float, Meta(ge=0.0, le=10_080.0)] = 0.0
    prepared_bytes: Annotated[int, Meta(ge=0, le=2**36)] = 536_870_912
    compile: bool = False
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0


class IdleSettings(Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = True
    blink: Relative = 1.0
    gaze: Relative = 1.0
    breath: Relative = 1.0
    sway: Relative = 1.0


class CacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    max_bytes: Annotated[int, Meta(ge=2**20, le=2**40)] = 256 * 2**20


class StateSettings(Struct, frozen=True, forbid_unknown_fields=True):
    dir: str = ""
    save_every_s: PositiveSeconds = 30.0


class CharactersSettings(Struct, frozen=True, forbid_unknown_fields=True):
    dir: str = ""
    max_uploaded: Annotated[int, Meta(ge=0, le=10_000)] = 64
    max_uploaded_bytes: Annotated[int, Meta(ge=2**20, le=2**40)] = 512 * 2**20
    fetch: Literal["off", "public", "any"] = "public"
    fetch_s: PositiveSeconds = 15.0


class EmotionsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    file: str = ""


class EventsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    connect: Annotated[
        tuple[Annotated[str, Meta(pattern=WS_ADDRESS_PATTERN)], ...], Meta(max_length=16)
    ] = ()
    tokens: tuple[str, ...] = ()
    stage: str = ""
    answers: bool = True


class VmcSettings(Struct, frozen=True, forbid_unknown_fields=True):
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    stage: str = ""
    weight: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0


class MediaBridgeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, Meta(pattern=WS_URL_PATTERN)] = ""
    token: str = ""


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    report_every_s: Annotated[float, Meta(ge=0.0, le=86400.0)] = 300.0
    events_file: str = ""
    events_max_bytes: Annotated[int, Meta(ge=2**16, le=2**36)] = 64 * 2**20


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set, one attribute per table of `avatar.toml`."""

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitsSettings = LimitsSettings()
    stage: StageSettings = StageSettings()
    stages: dict[str, StageOverrides] = {}
    renderer: RendererSettings = RendererSettings()
    liveportrait: LivePortraitSettings = LivePortraitSettings()
    idle: IdleSettings = IdleSettings()
    cache: CacheSettings = CacheSettings()
    state: StateSettings = StateSettings()
    characters: CharactersSettings = CharactersSettings()
    emotions: EmotionsSettings = EmotionsSettings()
    events: EventsSettings = EventsSettings()
    vmc: VmcSettings = VmcSettings()
    media_bridge: MediaBridgeSettings = MediaBridgeSettings()
    log: LogSettings = LogSettings()


def default_config_dir() -> Path:
    """The `config/` folder of a checkout, or its copy inside an installed package."""
    package = Path(__file__).parent
    checkout = package.parent / "config"
    return checkout if (checkout / CONFIG_FILE).is_file() else package / "default_config"


def load_settings(
    path: Path | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, Path]:
    """Read the file, apply the environment, check everything.

    Args:
        path: the TOML file; None takes `$AVATAR_CONFIG` or the bundled one.
        environ: environment variables; None takes the process's own.

    Returns:
        The settings, and the file that they come from.

    Raises:
        ConfigError: names the full path of the first wrong key.
    """
    environ = os.environ if environ is None else environ
    if path is None:
        path = Path(environ.get(f"{ENV_PREFIX}CONFIG") or default_config_dir() / CONFIG_FILE)
    tables = _read_toml(path)
    _apply_environment(tables, environ)
    settings = _convert(tables)
    _check_together(settings)
    return settings, path


def state_dir(settings: Settings, environ: Mapping[str, str] | None = None) -> Path:
    """Where state is kept: the setting, systemd's StateDirectory, or the XDG state home."""
    environ = os.environ if environ is None else environ
    if settings.state.dir:
        return Path(settings.state.dir).expanduser()
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":")[0])
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "avatar-orchestrator"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"is not valid TOML: {error}") from error


def _apply_environment(tables: dict[str, Any], environ: Mapping[str, str]) -> None:
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX):
            continue
        table, separator, key = variable.removeprefix(ENV_PREFIX).lower().partition("__")
        if not separator:
            _refuse_single_underscore(variable, table)
            continue
        struct = _table_type(table)
        if struct is None:
            problem = f"no table {table!r}; there are {', '.join(Settings.__struct_fields__)}"
            raise ConfigError(variable, problem)
        section = tables.setdefault(table, {})
        if table == STAGES_TABLE and isinstance(section, dict):
            name, _, key = key.rpartition("__")
            if not name:
                problem = "a stage's name belongs between: AVATAR_STAGES__NAME__KEY"
                raise ConfigError(variable, problem)
            section = section.setdefault(name, {})
        if isinstance(section, dict):
            section[key] = _environment_value(environ[variable])


def _refuse_single_underscore(variable: str, rest: str) -> None:
    """`AVATAR_SERVER_PORT` looks like a setting but would be ignored: say so."""
    for table in Settings.__struct_fields__:
        key = rest.removeprefix(f"{table}_")
        struct = _table_type(table)
        if key != rest and struct is not None and key in struct.__struct_fields__:
            right = f"{ENV_PREFIX}{table.upper()}__{key.upper()}"
            raise ConfigError(variable, f"two underscores belong after the table: {right}")


def _table_type(table: str) -> type[Struct] | None:
    if table.partition(".")[0] == STAGES_TABLE:
        return StageOverrides
    for field in msgspec.structs.fields(Settings):
        if field.name == table:
            assert isinstance(field.type, type)
            return field.type
    return None


def _environment_value(text: str) -> Any:
    """A list as in TOML; anything else stays text and is converted by the key's type."""
    if text.lstrip().startswith("["):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _convert(tables: dict[str, Any]) -> Settings:
    tables = dict(tables)
    stages = tables.pop(STAGES_TABLE, {})
    try:
        settings = msgspec.convert(tables, Settings, strict=False)
    except msgspec.ValidationError as error:
        where, problem = _explain(str(error))
        raise ConfigError(where, problem) from error
    return msgspec.structs.replace(settings, stages=_stages(stages))


def _stages(tables: object) -> dict[str, StageOverrides]:
    """`[stages.NAME]`, one after the other: msgspec does not name the key of a mapping."""
    if not isinstance(tables, dict):
        raise ConfigError(STAGES_TABLE, "expected tables, each [stages.NAME]")
    stages = {}
    for name, table in tables.items():
        if name == MAIN_STAGE:
            problem = "the stage main is the one of [stage]; set its keys there"
            raise ConfigError(f"{STAGES_TABLE}.{name}", problem)
        if not re.fullmatch(STAGE_NAME_PATTERN, name):
            problem = "a stage's name has 1 to 64 of a-z, 0-9, '-' and '_'"
            raise ConfigError(f"{STAGES_TABLE}.{name[:80]}", problem)
        try:
            stages[name] = msgspec.convert(table, StageOverrides, strict=False)
        except msgspec.ValidationError as error:
            where, problem = _explain(str(error), f"{STAGES_TABLE}.{name}")
            raise ConfigError(where, problem) from error
    return stages


def _explain(message: str, below: str = "") -> tuple[str, str]:
    """msgspec's sentence as (full path of the key, what would be right)."""
    matched = re.fullmatch(r"(?s)(.*?)(?: - at `\$\.?(.*)`)?", message)
    assert matched is not None
    problem, path = matched.group(1), matched.group(2) or ""
    path = ".".join(part for part in (below, path) if part)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", problem)
    if unknown is None:
        return path or "settings", _what_is_right(path) or problem.replace("`", "")
    struct = _table_type(path) if path else Settings
    known = ", ".join(struct.__struct_fields__) if struct is not None else ""
    key = f"{path}.{unknown.group(1)}" if path else unknown.group(1)
    return key, f"there is no such key; known here: {known}"


def _what_is_right(path: str) -> str | None:
    """What a key takes, from its own annotation: `expected a whole number, >= 1, <= 65535`."""
    table, _, key = path.partition(".")
    if table == STAGES_TABLE:
        _, _, key = key.partition(".")
    struct = _table_type(table)
    if struct is None:
        return None
    if not key:
        return f"expected a table with {', '.join(struct.__struct_fields__)}"
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        if field.name == key.split("[")[0]:
            return f"expected {_describe(field.type)}"
    return None


def _describe(kind: msgspec.inspect.Type) -> str:
    match kind:
        case msgspec.inspect.LiteralType(values=values):
            return "one of " + ", ".join(repr(value) for value in values)
        case msgspec.inspect.UnionType(types=types):
            return _describe(types[0])  # the other one is None: left out
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            whole = isinstance(kind, msgspec.inspect.IntType)
            bounds = (
                ("greater than", kind.gt),
                ("at least", kind.ge),
                ("less than", kind.lt),
                ("at most", kind.le),
                ("a multiple of", kind.multiple_of),
            )
            limits = [f"{words} {bound}" for words, bound in bounds if bound is not None]
            return ", ".join(["a whole number" if whole else "a number", *limits])
        case msgspec.inspect.StrType(pattern=pattern) if pattern == WS_URL_PATTERN:
            return "a ws:// or wss:// address without #, or nothing"
        case msgspec.inspect.StrType():
            return "text"
        case msgspec.inspect.VarTupleType(
            item_type=msgspec.inspect.StrType(pattern=pattern), max_length=most
        ) if pattern == WS_ADDRESS_PATTERN:
            return f"a list of at most {most} ws:// or wss:// addresses without #"
        case _:
            return "a list of texts"


def _check_together(settings: Settings) -> None:
    """What one key alone cannot say."""
    if len(settings.stages) + 1 > settings.limits.stages:
        problem = f"main and {len(settings.stages)} of [stages] are more than that"
        raise ConfigError("limits.stages", problem)
    auth, events = settings.auth, settings.events
    if settings.server.tls_key and not settings.server.tls_cert:
        raise ConfigError("server.tls_cert", "server.tls_key is set: its certificate is needed")
    if auth.token:
        _check_token("auth.token", auth.token)
    for place, address in enumerate(events.connect):
        if address in events.connect[:place]:
            raise ConfigError(f"events.connect[{place}]", "this address is there twice")
    if events.tokens and len(events.tokens) != len(events.connect):
        raise ConfigError(
            "events.tokens",
            'expected one for each address of events.connect, in the same order ("" where there '
            f"is none), not {len(events.tokens)} for {len(events.connect)}",
        )
    for place, token in enumerate(events.tokens):
        if token:
            _check_token(f"events.tokens[{place}]", token)


def _check_token(where: str, token: str) -> None:
    if len(token) > 512 or not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(where, "expected up to 512 printable ASCII characters, no spaces")
