"""What the render threads do: make renderers, prepare portraits, draw, and close again.

Each thread has the renderers that it made, with the portraits that it prepared for them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import structlog

from pipeline.errors import AvatarError, BadFrameError, OutOfMemoryError, RenderError
from pipeline.ports import Metric, Metrics, PreparedPortrait, Renderer
from pipeline.types import FaceControls, Image, Portrait

log = structlog.get_logger()

T = TypeVar("T")
Size = tuple[int, int]
"""(width, height) in pixels."""

SPARE_PORTRAITS: Final = 4
_SLOW_HANGS: Final = 20.0

_Key = tuple[str, Size | None]


@dataclass(frozen=True, slots=True)
class RendererSource:
    """How to get a renderer.

    Attributes:
        name: equal to the `name` of what `make` returns.
        make: called in the render thread, again after that thread had to be replaced.
        prepares_aside: portraits may be prepared by another instance in another thread, so
            that preparing does not hold up the frames on stage. For renderers whose prepared
            portraits are plain data; not for those tied to a device's context.
        background: takes long to load or to draw, so nobody waits for it: the renderers below
            serve until it is ready.
        release_after_s: seconds without anybody who watches after which it is let go, until it
            is needed again; None keeps it.
        by_size: most of preparing is done with the first frame of a size. So a portrait is
            prepared for each size that is on stage, and a frame drawn there to make it ready.
    """

    name: str
    make: Callable[[], Renderer]
    prepares_aside: bool = False
    background: bool = False
    release_after_s: float | None = None
    by_size: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """One frame fresh from a renderer.

    Attributes:
        image: (height, width, 3) uint8 RGB, nobody else's.
        render_s: what drawing took, without loading and preparing.
    """

    image: Image
    render_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a job may take before its thread counts as stuck, in seconds.

    Attributes:
        hang_s: a frame. A renderer that is always slow has `_SLOW_HANGS` times what it usually
            takes.
        prepare_s: preparing a portrait.
        load_s: making a renderer.
    """

    hang_s: float
    prepare_s: float
    load_s: float


class ThreadRenderers:
    """The renderers of all render threads; every method acts on those of the calling thread.

    Except for `keep`, `is_ready`, `device` and `not_ready`, which belong to the event loop's.

    Args:
        sources: by name.
        allow: told by a job how many seconds it may take from now on.
    """

    def __init__(
        self,
        sources: Mapping[str, RendererSource],
        limits: Limits,
        *,
        metrics: Metrics,
        allow: Callable[[float], None],
    ) -> None:
        self._sources = sources
        self._limits = limits
        self._metrics = metrics
        self._allow = allow
        self._mine = _Mine()
        self._devices: dict[str, str] = {}
        self._ready: set[str] = set()
        self._on_stage: dict[Hashable, _Key] = {}

    # --- for the event loop ---------------------------------------------------------------

    def is_ready(self, name: str) -> bool:
        """It is loaded and has not been let go since."""
        return name in self._ready

    def not_ready(self, name: str) -> None:
        """It is being let go, or its thread is stuck."""
        self._ready.discard(name)

    def device(self, name: str) -> str | None:
        """The device of that renderer; None until it has been loaded."""
        return self._devices.get(name)

    def keep(self, owner: Hashable, portrait: Portrait | None, size_px: Size | None) -> None:
        """Keep `owner`'s portrait prepared until it names another, or None."""
        if portrait is None:
            self._on_stage.pop(owner, None)
        else:
            self._on_stage[owner] = portrait.key, size_px

    # --- in the threads -------------------------------------------------------------------

    def draw(self, name: str, portrait: Portrait, controls: FaceControls, size_px: Size) -> Drawing:
        """Draw one frame.

        Raises:
            RenderError: whatever went wrong.
        """
        loaded = self._loaded(name)
        prepared = self._prepared(loaded, portrait, size_px)
        self._allow(self._hang_limit_s(name, loaded))
        begun_s = time.perf_counter()
        image = _guarded(lambda: loaded.renderer.render(prepared, controls, size_px))
        render_s = loaded.render_s = time.perf_counter() - begun_s
        self._metrics.observe(Metric.RENDER_SECONDS, render_s, renderer=name)
        return Drawing(_checked(image, size_px), render_s)

    def prepare(self, name: str, portrait: Portrait, size_px: Size | None) -> PreparedPortrait:
        """Prepare a portrait, unless it is.

        Raises:
            RenderError: whatever went wrong.
        """
        return self._prepared(self._loaded(name), portrait, size_px)

    def prepare_aside(
        self, name: str, portrait: Portrait, size_px: Size | None
    ) -> PreparedPortrait:
        """Prepare a portrait for another thread's instance, and keep nothing.

        Raises:
            RenderError: whatever went wrong.
        """
        renderer = self._loaded(name).renderer
        self._allow(self._limits.prepare_s)
        return self._made_ready(renderer, portrait, size_px)

    def take_in(
        self, name: str, portrait: Portrait, size_px: Size | None, prepared: PreparedPortrait
    ) -> None:
        """Use what has been prepared aside."""
        self._keep(self._loaded(name), self._key(name, portrait, size_px), prepared)

    def has(self, name: str, portrait: Portrait, size_px: Size | None) -> bool:
        """The portrait is prepared."""
        return self._key(name, portrait, size_px) in self._loaded(name).prepared

    def close_all(self) -> None:
        """The thread ends."""
        for name in tuple(self._mine.renderers):
            self.close(name)

    def close(self, name: str) -> None:
        """Close a renderer and free what it holds; what needs it next makes it anew."""
        loaded = self._mine.renderers.pop(name, None)
        if loaded is None:
            return
        self.not_ready(name)
        loaded.prepared.clear()
        try:
            loaded.renderer.close()
        except Exception:
            log.exception("renderer_not_closed", renderer=name)

    def _hang_limit_s(self, name: str, loaded: _Loaded) -> float:
        hang_s = self._limits.hang_s
        if not self._sources[name].background:
            return hang_s
        if loaded.render_s is None:
            # The first frame compiles, tunes and allocates.
            return max(hang_s, self._limits.prepare_s)
        return max(hang_s, _SLOW_HANGS * loaded.render_s)

    def _loaded(self, name: str) -> _Loaded:
        loaded = self._mine.renderers.get(name)
        if loaded is None:
            self._allow(self._limits.load_s)
            begun_s = time.perf_counter()
            renderer = _guarded(self._sources[name].make)
            loaded = self._mine.renderers[name] = _Loaded(renderer)
            took_s = time.perf_counter() - begun_s
            log.info("renderer_loaded", renderer=name, device=renderer.device, s=round(took_s, 3))
            self._devices[name] = renderer.device
            self._ready.add(name)
        return loaded

    def _prepared(
        self, loaded: _Loaded, portrait: Portrait, size_px: Size | None
    ) -> PreparedPortrait:
        key = self._key(loaded.renderer.name, portrait, size_px)
        prepared = loaded.prepared.get(key)
        if prepared is None:
            self._allow(self._limits.prepare_s)
            prepared = self._made_ready(loaded.renderer, portrait, size_px)
            self._keep(loaded, key, prepared)
        loaded.prepared.move_to_end(key)
        return prepared

    def _made_ready(
        self, renderer: Renderer, portrait: Portrait, size_px: Size | None
    ) -> PreparedPortrait:
        prepared = _guarded(lambda: renderer.prepare(portrait))
        if size_px is not None and self._sources[renderer.name].by_size:
            _guarded(lambda: renderer.render(prepared, FaceControls(), size_px))
        return prepared

    def _key(self, name: str, portrait: Portrait, size_px: Size | None) -> _Key:
        return portrait.key, size_px if self._sources[name].by_size else None

    def _keep(self, loaded: _Loaded, key: _Key, prepared: PreparedPortrait) -> None:
        """Those on stage stay prepared; of the others, the few used last."""
        loaded.prepared[key] = prepared
        on_stage = set(self._on_stage.copy().values())
        on_stage |= {(portrait, None) for portrait, _ in on_stage}
        spare = [each for each in loaded.prepared if each not in on_stage]
        for each in spare[: max(0, len(spare) - SPARE_PORTRAITS)]:
            del loaded.prepared[each]


@dataclass(slots=True, eq=False)
class _Loaded:
    """A renderer of one thread.

    Attributes:
        prepared: by portrait key, used last at the end.
        render_s: what its last frame took; None before the first, which is the slowest.
    """

    renderer: Renderer
    render_s: float | None = None
    prepared: OrderedDict[_Key, PreparedPortrait] = field(default_factory=OrderedDict)


class _Mine(threading.local):
    def __init__(self) -> None:
        self.renderers: dict[str, _Loaded] = {}


def _guarded(call: Callable[[], T]) -> T:
    """Whatever goes wrong inside a renderer is a `RenderError`."""
    try:
        return call()
    except RenderError:
        raise
    except AvatarError as error:
        raise RenderError(str(error)) from error
    except MemoryError as error:
        raise OutOfMemoryError(str(error)) from error
    except Exception as error:
        raise RenderError(f"{type(error).__name__}: {error}") from error


def _checked(image: object, size_px: Size) -> Image:
    width, height = size_px
    if not isinstance(image, np.ndarray):
        raise BadFrameError(f"drew {type(image).__name__} instead of an array")
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise BadFrameError(
            f"drew {image.shape} {image.dtype} instead of {(height, width, 3)} uint8"
        )
    return image
