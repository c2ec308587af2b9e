"""The disk is full, the state directory cannot be written, files change under the daemon."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import signal
import time

from tests.chaos.fault import Fault, Seen
from tests.chaos.scene import ASTRONAUT, Scene


async def _full(scene: Scene) -> Seen:
    """Not a byte can be written: a limit on file sizes has the errors of a full disk."""
    pid = scene.daemon.process.pid
    await _new_mood(scene, 0.5)
    await scene.until(lambda: _has_saved(scene))
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        await _new_mood(scene, -0.5)
        reason = await scene.reason("state")
        before = _saved(scene)
        with (ASTRONAUT / "portrait.jpg").open("rb") as portrait:
            refused = await scene.client.post(
                "/v1/characters",
                data={"name": "three"},
                files={"portrait": portrait},
            )
        assert refused.status_code >= 400, refused.text
        assert refused.json()["error"]["message"]
        assert _saved(scene) == before
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    recovery_s = await scene.well("media bridge")
    assert _saved(scene) != before
    assert not list(scene.stage.state.glob(".state-*"))
    return Seen(f"/health: {reason}", recovery_s)


async def _away(scene: Scene) -> Seen:
    """The state directory is not one any more, and comes back."""
    state = scene.stage.state
    aside = state.with_name("aside")
    await _new_mood(scene, 0.5)
    await scene.until(lambda: _has_saved(scene))
    state.rename(aside)
    state.write_bytes(b"")
    try:
        await _new_mood(scene, -0.5)
        reason = await scene.reason("state")
    finally:
        state.unlink()
        aside.rename(state)
    recovery_s = await scene.well("media bridge")
    return Seen(f"/health: {reason}", recovery_s)


async def _portrait_gone(scene: Scene) -> Seen:
    """It is truncated, then deleted, with a reload each; the face stays. Then it is back."""
    portrait = scene.stage.portrait("one")
    whole = portrait.read_bytes()
    try:
        portrait.write_bytes(whole[: len(whole) // 2])
        scene.daemon.signal(signal.SIGHUP)
        truncated = await scene.reason("one.jpg")
        portrait.unlink()
        scene.daemon.signal(signal.SIGHUP)
        deleted = await scene.reason("there is no file")
        assert (await scene.state())["character"] == "one"
        assert (await scene.client.get("/v1/snapshot.jpg")).status_code == 200
    finally:
        portrait.write_bytes(whole)
    begun_s = time.monotonic()
    scene.daemon.signal(signal.SIGHUP)
    await scene.well("media bridge")
    return Seen(f"/health: {truncated}; {deleted}", time.monotonic() - begun_s)


async def _portrait_replaced(scene: Scene) -> Seen:
    """Another picture takes its place; the next reload shows it, and not before."""
    portrait = scene.stage.portrait("one")
    whole = portrait.read_bytes()
    before = len(scene.daemon.logged("character_on_stage"))
    shutil.copy(portrait, portrait.with_suffix(".new"))
    with portrait.with_suffix(".new").open("ab") as file:
        file.write(b"\0")  # another file with the same picture: the viewers' faces stay alike
    portrait.with_suffix(".new").replace(portrait)

    async def shown() -> bool:
        return len(scene.daemon.logged("character_on_stage")) > before

    await asyncio.sleep(0.3)
    assert not await shown()
    scene.daemon.signal(signal.SIGHUP)
    recovery_s = await scene.until(shown)
    portrait.write_bytes(whole)
    return Seen("log: character_on_stage after a reload", recovery_s)


async def _configuration(scene: Scene) -> Seen:
    """Emotions and characters are broken in turn at a SIGHUP; what runs stays."""
    reasons = []
    character = scene.stage.portrait("two").with_suffix(".toml")
    for path in (scene.stage.emotions, character):
        whole = path.read_bytes()
        for broken in (b"happy = 3", b"\xff\xfe", whole[: len(whole) // 2] + b'"'):
            path.write_bytes(broken)
            scene.daemon.signal(signal.SIGHUP)
            reasons.append(await scene.reason(path.name))
            assert (await scene.post(type="emotion", emotion="joy", hold_ms=0)).status_code == 202
        path.write_bytes(whole)
        begun_s = time.monotonic()
        scene.daemon.signal(signal.SIGHUP)
        await scene.well("media bridge")
    return Seen(f"/health: {reasons[0]}", time.monotonic() - begun_s)


def _saved(scene: Scene) -> str:
    text = (scene.stage.state / "state.json").read_text("utf-8")
    json.loads(text)
    return text


async def _has_saved(scene: Scene) -> bool:
    return (scene.stage.state / "state.json").exists()


async def _new_mood(scene: Scene, valence: float) -> None:
    answer = await scene.post(type="mood", valence=valence, arousal=0.0, decay_ms=600_000)
    assert answer.status_code < 300, answer.text


FAULTS = (
    Fault("disk full", _full),
    Fault("state directory away", _away),
    Fault("portrait truncated, then deleted", _portrait_gone),
    Fault("portrait replaced", _portrait_replaced),
    Fault("configuration broken at SIGHUP", _configuration),
)
