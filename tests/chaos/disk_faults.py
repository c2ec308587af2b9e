"""The disk is full, the state directory cannot be written, files change under the daemon."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time

import httpx

from orchestrator.event_log import LostLine, decode_line
from tests.chaos.fault import Fault, Seen
from tests.chaos.scene import ASTRONAUT, EVENTS, Scene

HALF_A_PORTRAIT = 65_536


async def _full(scene: Scene) -> Seen:
    """State and event log are on disks without a byte left; a picture comes as well."""
    state, events = scene.stage.state, scene.stage.log
    await _new_mood(scene, 0.5)
    await scene.until(lambda: _has_saved(scene))
    state.fill()
    events.fill()
    try:
        await _new_mood(scene, -0.5)
        reason = await scene.reason("No space left")
        before = _saved(scene)
        await _refused(scene)
        assert _saved(scene) == before
        await scene.until(lambda: _logged(scene, "event_log_not_written"))
    finally:
        state.free()
        events.free()
    recovery_s = await scene.well("media bridge")
    await scene.until(lambda: _logged(scene, "event_log_written_again"))
    assert _saved(scene) != before
    lines = [decode_line(line) for line in (events.root / EVENTS).read_bytes().splitlines()]
    assert any(isinstance(line, LostLine) for line in lines)
    await _welcome(scene)
    _nothing_half_done(scene)
    return Seen(f"/health: {reason}; log: event_log_not_written", recovery_s)


async def _nearly_full(scene: Scene) -> Seen:
    """A picture comes for which there is room in part."""
    state = scene.stage.state
    await _new_mood(scene, 0.5)
    await scene.until(lambda: _has_saved(scene))
    state.fill(but=HALF_A_PORTRAIT)
    try:
        reason = await _refused(scene)
        _nothing_half_done(scene)
    finally:
        state.free()
    begun_s = time.monotonic()
    await _welcome(scene)
    return Seen(f"answer: {reason}", time.monotonic() - begun_s)


async def _read_only(scene: Scene) -> Seen:
    """The disk is there, and nothing on it can be changed."""
    state = scene.stage.state
    await _new_mood(scene, 0.5)
    await scene.until(lambda: _has_saved(scene))

    async def remounted() -> bool:
        return await asyncio.to_thread(state.make_readable_only)

    await scene.until(remounted)
    try:
        await _new_mood(scene, -0.5)
        reason = await scene.reason("Read-only")
        before = _saved(scene)
        await _refused(scene)
        assert _saved(scene) == before
    finally:
        await asyncio.to_thread(state.make_writable)
    recovery_s = await scene.well("media bridge")
    assert _saved(scene) != before
    await _welcome(scene)
    _nothing_half_done(scene)
    return Seen(f"/health: {reason}", recovery_s)


async def _uploaded(scene: Scene) -> httpx.Response:
    with (ASTRONAUT / "portrait.jpg").open("rb") as portrait:
        return await scene.client.post(
            "/v1/characters", data={"name": "three"}, files={"portrait": portrait}
        )


async def _refused(scene: Scene) -> str:
    """A character that cannot be kept is refused and not there; says with what words."""
    refused = await _uploaded(scene)
    assert refused.status_code == 503, refused.text
    assert (await scene.client.get("/v1/characters/three/thumbnail.jpg")).status_code == 404
    return str(refused.json()["error"]["message"])


async def _welcome(scene: Scene) -> None:
    """The same one can be added, and taken away again."""
    assert (await _uploaded(scene)).status_code == 201
    assert (await scene.client.delete("/v1/characters/three")).status_code < 300


def _nothing_half_done(scene: Scene) -> None:
    root = scene.stage.state.root
    left = [path.name for path in (*root.glob(".*"), *root.glob("characters/*"))]
    assert not left, left


async def _logged(scene: Scene, event: str) -> bool:
    return bool(scene.daemon.logged(event))


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
    text = (scene.stage.state.root / "state.json").read_text("utf-8")
    json.loads(text)
    return text


async def _has_saved(scene: Scene) -> bool:
    return (scene.stage.state.root / "state.json").exists()


async def _new_mood(scene: Scene, valence: float) -> None:
    answer = await scene.post(type="mood", valence=valence, arousal=0.0, decay_ms=600_000)
    assert answer.status_code < 300, answer.text


FAULTS = (
    Fault("disk full, to the last byte", _full, own_disks=True),
    Fault("disk full in the middle of an upload", _nearly_full, own_disks=True),
    Fault("state directory read-only", _read_only, own_disks=True),
    Fault("portrait truncated, then deleted", _portrait_gone),
    Fault("portrait replaced", _portrait_replaced),
    Fault("configuration broken at SIGHUP", _configuration),
)
