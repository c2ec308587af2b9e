"""Many labelled pictures on one sheet, whichever renderer drew them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import cv2
import numpy as np

from pipeline.types import Image

_PAPER: Final = (24, 24, 27)
_INK: Final = (235, 235, 235)
_GAP_PX: Final = 6


def contact_sheet(cells: Sequence[tuple[str, Image]], columns: int, cell_px: int) -> Image:
    """Lay pictures out in rows, each with its label below.

    Args:
        cells: label and (H, W, 3) uint8 RGB picture; any sizes, shrunk or grown to fit a cell.
        columns: pictures per row, at least 1.
        cell_px: side of the square that a picture fits into, at least 16.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: no cells, or `columns` or `cell_px` is out of range.
    """
    if not cells or columns < 1 or cell_px < 16:
        raise ValueError("contact sheet: expected cells, columns >= 1 and cell_px >= 16")
    label_px = max(14, cell_px // 11)
    rows = -(-len(cells) // columns)
    step_x, step_y = cell_px + _GAP_PX, cell_px + label_px + _GAP_PX
    across = min(columns, len(cells))
    sheet = np.full((rows * step_y + _GAP_PX, across * step_x + _GAP_PX, 3), _PAPER, np.uint8)
    for index, (label, image) in enumerate(cells):
        left = _GAP_PX + index % columns * step_x
        top = _GAP_PX + index // columns * step_y
        _place(sheet, _fitted(image, cell_px), left, top, cell_px)
        _write(sheet, label, left, top + cell_px, cell_px, label_px)
    return sheet


def _fitted(image: Image, cell_px: int) -> Image:
    height, width = image.shape[:2]
    scale = cell_px / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cast(Image, cv2.resize(image, size, interpolation=method))


def _place(sheet: Image, image: Image, left: int, top: int, cell_px: int) -> None:
    height, width = image.shape[:2]
    y, x = top + (cell_px - height) // 2, left + (cell_px - width) // 2
    sheet[y : y + height, x : x + width] = image


def _write(  # noqa: PLR0917 - a rectangle and a text
    sheet: Image, label: str, left: int, top: int, cell_px: int, label_px: int
) -> None:
    face, scale = cv2.FONT_HERSHEY_SIMPLEX, label_px / 34
    (width, height), _ = cv2.getTextSize(label, face, scale, 1)
    scale *= min(1.0, (cell_px - 4) / max(width, 1))
    at = (left + 2, top + (label_px + height) // 2)
    cv2.putText(sheet, label, at, face, scale, _INK, 1, cv2.LINE_AA)
