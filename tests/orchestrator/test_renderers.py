"""Which renderers run, and why."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from orchestrator import renderers
from orchestrator.renderers import choose_renderers, liveportrait_options
from orchestrator.settings import LivePortraitSettings, RendererSettings, Settings
from pipeline.errors import ConfigError
from pipeline.health import RendererHealth


def settings(backend: str = "auto", **liveportrait: object) -> Settings:
    return msgspec.convert(
        {"renderer": {"backend": backend}, "liveportrait": liveportrait}, Settings
    )


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if LivePortrait's packages were installed."""
    monkeypatch.setattr(renderers.importlib.util, "find_spec", lambda name: object())


def chosen(wanted: Settings) -> list[str]:
    return [source.name for source in choose_renderers(wanted)[0]]


def test_without_weights_the_mesh_renderer_draws() -> None:
    """`auto` says what would be needed for more."""
    sources, why = choose_renderers(settings())
    assert [source.name for source in sources] == ["mesh"]
    assert "liveportrait.weights_dir" in why
    assert not sources[0].background


def test_auto_takes_liveportrait_where_there_is_a_gpu(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With weights and a GPU it is wanted first, in the background, with the mesh below."""
    wanted = settings(weights_dir="/weights")
    monkeypatch.setattr(renderers, "has_gpu", lambda: True)
    sources, _ = choose_renderers(wanted)
    assert [(source.name, source.background) for source in sources] == [
        ("liveportrait", True),
        ("mesh", False),
    ]
    monkeypatch.setattr(renderers, "has_gpu", lambda: False)
    assert chosen(wanted) == ["mesh"]


def test_a_cpu_only_when_asked_for(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Insisting on the renderer, or on the device, is asking."""
    monkeypatch.setattr(renderers, "has_gpu", lambda: False)
    assert chosen(settings("liveportrait", weights_dir="/weights")) == ["liveportrait", "mesh"]
    assert chosen(settings(weights_dir="/weights", device="cpu")) == ["liveportrait", "mesh"]
    assert chosen(settings("mesh", weights_dir="/weights", device="cpu")) == ["mesh"]


def test_insisting_without_weights_or_packages_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It can never run like that, and the key to blame is named."""
    with pytest.raises(ConfigError, match=r"liveportrait\.weights_dir"):
        choose_renderers(settings("liveportrait"))
    monkeypatch.setattr(renderers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="torch"):
        choose_renderers(settings("liveportrait", weights_dir="/weights"))


def test_idle_minutes_become_seconds(installed: None) -> None:
    """0 keeps the model for ever."""
    for minutes, seconds in ((0.0, None), (2.5, 150.0)):
        wanted = settings("liveportrait", weights_dir="/w", release_after_min=minutes)
        assert choose_renderers(wanted)[0][0].release_after_s == seconds


def test_settings_reach_the_renderer() -> None:
    """Every key of the table has its effect."""
    pytest.importorskip("torch", reason="torch is not installed")
    wanted = LivePortraitSettings(
        weights_dir="/w", device="cuda:1", dtype="bfloat16", output="crop", memory_share=0.25,
        prepared_bytes=7, compile=True, threads=3,
    )  # fmt: skip
    options = liveportrait_options(wanted, insisted=False)
    assert (options.weights_dir, options.device, options.dtype) == (
        Path("/w"),
        "cuda:1",
        "bfloat16",
    )
    assert (options.whole, options.memory_share, options.prepared_bytes) == (False, 0.25, 7)
    assert (options.compile, options.threads, options.on_cpu) == (True, 3, False)


def test_torch_is_not_imported_to_choose() -> None:
    """Choosing takes no time: what needs torch is made later, in its own thread."""
    code = (
        "import sys; from orchestrator.settings import Settings, RendererSettings, "
        "LivePortraitSettings; from orchestrator.renderers import choose_renderers; "
        "choose_renderers(Settings(renderer=RendererSettings(backend='liveportrait'), "
        "liveportrait=LivePortraitSettings(weights_dir='/w'))); "
        "sys.exit('torch' in sys.modules)"
    )
    pytest.importorskip("torch", reason="torch is not installed")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_renderer_that_flaps_is_left_alone_for_longer_each_time() -> None:
    """Where another can serve, changing back and forth looks worse than waiting."""
    health, waits, now_s = RendererHealth(patient=True), [], 0.0
    health.succeeded(now_s)
    for _ in range(7):
        health.too_late(now_s, "late")
        due_s = now_s
        while not health.retry_due(due_s):
            due_s += 0.05
        waits.append(due_s - now_s)
        now_s = due_s
        health.succeeded(now_s)
    assert waits == sorted(waits)
    assert waits[0] < 0.3
    assert 4.5 < waits[-1] < 5.5
    health.succeeded(now_s + 100.0)
    health.too_late(now_s + 200.0, "late")
    assert health.retry_due(now_s + 200.3)


def test_the_renderer_setting_names_its_choices() -> None:
    """The settings know no other renderer."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"backend": "unreal"}, RendererSettings)
