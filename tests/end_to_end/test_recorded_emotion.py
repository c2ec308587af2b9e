"""A recorded expression in the running daemon."""

import asyncio
import json
import signal
from pathlib import Path

import httpx
from websockets.asyncio.client import connect

from orchestrator.settings import default_config_dir
from pipeline.types import FaceControls
from tests.fakes.daemon import DaemonProcess
from tests.fakes.motions import recorded

EMOTION = """
[broad_grin]
max = 1.0
attack_ms = 0
hold_ms = 60000
decay_ms = 0
motion = "grin.motion"
motion_frame = {frame}
"""


async def test_sighup_brings_a_recorded_emotion_in_and_a_wrong_frame_does_not(
    tmp_path: Path,
) -> None:
    """It is in `hello`, can be asked for, and shows; a frame that is not there keeps what runs."""
    emotions = tmp_path / "emotions.toml"
    bundled = (default_config_dir() / "emotions.toml").read_text("utf-8")
    emotions.write_text(bundled, "utf-8")
    grin = FaceControls.of(mouthSmileLeft=0.9, mouthSmileRight=0.9, jawOpen=0.5)
    recorded(FaceControls(), grin).save(tmp_path / "grin.motion")
    settings = {"AVATAR_EMOTIONS__FILE": str(emotions), "AVATAR_IDLE__ENABLED": "false"}
    with DaemonProcess(tmp_path / "state", **settings) as process:

        async def reload(frame: str, event: str) -> None:
            emotions.write_text(bundled + EMOTION.format(frame=frame), "utf-8")
            process.signal(signal.SIGHUP)
            async with asyncio.timeout(10):
                while not process.logged(event):  # noqa: ASYNC110 - another process's log
                    await asyncio.sleep(0.05)

        async def labels() -> list[str]:
            async with connect(f"{process.ws}/v1/events") as producer:
                return list(json.loads(await producer.recv())["emotions"])

        assert "broad_grin" not in await labels()
        await reload('"peak"', "reloaded")
        assert "broad_grin" in await labels()
        async with (
            httpx.AsyncClient() as client,
            connect(f"{process.ws}/v1/frames", max_size=None) as viewer,
        ):
            body = {"type": "emotion", "emotion": "Broad Grin"}
            answer = await client.post(f"{process.http}/v1/events", json=body)
            assert answer.status_code == 202
            async with asyncio.timeout(20):
                async for message in viewer:
                    assert isinstance(message, bytes)
                    length = int.from_bytes(message[4:8], "little")
                    if json.loads(message[8 : 8 + length])["emotion"].get("broad_grin", 0.0) > 0.95:
                        break
        await reload("2", "reload_refused")
        assert "broad_grin" in await labels()
        assert "broad_grin.motion_frame" in str(process.log)
        assert process.stop() == 0
