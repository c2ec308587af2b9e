"""Contact sheets."""

import numpy as np
import pytest

from pipeline.contact_sheet import contact_sheet


def test_pictures_lie_in_rows_with_labels() -> None:
    """Seven pictures of any shape, three to a row: three rows, pictures whole, labels below."""
    cells = [(f"face {i}", np.full((40 + i, 80, 3), 40 * i, np.uint8)) for i in range(1, 7)]
    cells.append(("last", np.full((100, 100, 3), 200, np.uint8)))
    sheet = contact_sheet(cells, columns=3, cell_px=64)
    assert sheet.shape[1] == 3 * 70 + 6
    assert sheet.shape[0] == 3 * (64 + 14 + 6) + 6
    assert (sheet[6 + 32, 6 + 32] == 40).all()
    labels = sheet[6 + 64 : 6 + 64 + 14, 6:70]
    assert labels.max() > 150


@pytest.mark.parametrize("bad", [{"columns": 0, "cell_px": 64}, {"columns": 3, "cell_px": 2}])
def test_nonsense_is_refused(bad: dict[str, int]) -> None:
    """No columns or cells too small to see are errors, and so is an empty sheet."""
    with pytest.raises(ValueError, match="contact sheet"):
        contact_sheet([("a", np.zeros((8, 8, 3), np.uint8))], **bad)
    with pytest.raises(ValueError, match="contact sheet"):
        contact_sheet([], 3, 64)
