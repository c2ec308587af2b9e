"""Pictures that are looked at and refused."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from orchestrator.uploads import Uploads
from pipeline.errors import PortraitError


async def test_a_refused_picture_is_let_go_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pixels do not live as long as somebody keeps the error, or until a collection."""
    decoded: list[weakref.ref[Any]] = []

    def refused(*_: object, **__: object) -> None:
        pixels = np.zeros((1000, 1000, 3), np.uint8)
        decoded.append(weakref.ref(pixels))
        try:
            raise ValueError(f"no face in {pixels.shape}")
        except ValueError as error:
            raise PortraitError("x", "no face") from error

    monkeypatch.setattr("orchestrator.uploads.portrait_from_bytes", refused)
    uploads = Uploads(1000, 1_000_000)
    gc.disable()
    try:
        with pytest.raises(PortraitError) as kept:
            await uploads.portrait(b"a picture", "x")
        assert kept.value.__cause__ is not None
        assert [each() for each in decoded] == [None]
    finally:
        gc.enable()
        await uploads.close(1.0)
