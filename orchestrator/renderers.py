"""Which renderers run: the second half of the composition root.

torch is not imported here: what needs it is made in the renderer's own thread, while the mesh
renderer serves.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.hardware import has_gpu
from orchestrator.settings import LivePortraitSettings, Settings
from pipeline.errors import ConfigError
from pipeline.faces import FaceDetector
from pipeline.mesh.renderer import MeshRenderer
from pipeline.ports import Renderer
from pipeline.render_host import RendererSource

if TYPE_CHECKING:
    from pipeline.liveportrait.renderer import Options

# torch draws, the other two find the face in the photo.
PACKAGES: Final = ("torch", "onnxruntime", "insightface")
INSTALL: Final = "pip install '.[liveportrait]' in the checkout"


def choose_renderers(settings: Settings) -> tuple[tuple[RendererSource, ...], str]:
    """The renderers that the settings ask for, wanted first, and why it is those.

    Raises:
        ConfigError: one is insisted on that can never run like this.
    """
    mesh = RendererSource("mesh", partial(MeshRenderer, None), prepares_aside=True, by_size=True)
    if settings.renderer.backend == "mesh":
        return (mesh,), "renderer.backend asks for it"
    obstacle = _obstacle(settings.liveportrait)
    if settings.renderer.backend == "liveportrait":
        if obstacle is not None:
            raise ConfigError(*obstacle)
        return (_liveportrait(settings), mesh), "renderer.backend asks for it"
    if obstacle is not None:
        return (mesh,), f"no LivePortrait: {obstacle[0]}: {obstacle[1]}"
    if settings.liveportrait.device == "cpu":
        return (_liveportrait(settings), mesh), "liveportrait.device asks for the CPU"
    if not has_gpu():
        reason = "no GPU; on a CPU LivePortrait runs only where renderer.backend asks for it"
        return (mesh,), f"no LivePortrait: {reason}"
    return (_liveportrait(settings), mesh), "there are weights and a GPU"


def face_detectors(settings: Settings) -> tuple[FaceDetector, ...]:
    """InsightFace where the weights folder has it, then fitting without a trained network."""
    from pipeline.liveportrait.insight_faces import face_detectors as trained

    weights_dir = settings.liveportrait.weights_dir
    return trained(Path(weights_dir).expanduser() if weights_dir else None)


def liveportrait_options(settings: LivePortraitSettings, *, insisted: bool) -> Options:
    """The settings as the renderer wants them.

    Args:
        insisted: it is to run on whatever there is, a CPU too.
    """
    from pipeline.liveportrait.renderer import Options

    return Options(
        on_cpu=insisted,
        weights_dir=Path(settings.weights_dir).expanduser(),
        device=settings.device,
        dtype=settings.dtype,
        whole=settings.output == "portrait",
        memory_share=settings.memory_share,
        prepared_bytes=settings.prepared_bytes,
        compile=settings.compile,
        threads=settings.threads,
    )


def _obstacle(settings: LivePortraitSettings) -> tuple[str, str] | None:
    """Why LivePortrait can never run like this: the key to blame, and the problem."""
    if not settings.weights_dir:
        return "liveportrait.weights_dir", (
            "no weights folder is named; `avatar-orchestrator models download` fetches one"
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return "renderer.backend", f"{', '.join(missing)} not installed: {INSTALL}"
    return None


def _liveportrait(settings: Settings) -> RendererSource:
    release_s = settings.liveportrait.release_after_min * 60.0
    return RendererSource(
        "liveportrait",
        partial(_load_liveportrait, settings),
        background=True,
        release_after_s=release_s or None,
    )


def _load_liveportrait(settings: Settings) -> Renderer:
    from pipeline.liveportrait.renderer import LivePortraitRenderer

    insisted = settings.renderer.backend == "liveportrait"
    return LivePortraitRenderer.load(liveportrait_options(settings.liveportrait, insisted=insisted))
