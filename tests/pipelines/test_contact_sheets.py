from __future__ import annotations

import numpy as np

from pipelines.contact_sheets import draw_sheet


def test_names_of_classes_are_written_in_letters_beyond_those_of_english() -> None:
    """A font that lacks letters draws the same box for each of them."""
    sheets = [np.asarray(draw_sheet(title, [])) for title in ("ö", "ß", "ж", "é")]
    for i, one in enumerate(sheets):
        assert one.min() < 100, "something is drawn"
        for other in sheets[:i]:
            assert not np.array_equal(one, other)


def test_a_sheet_has_a_row_of_images_for_each_part_and_a_line_for_each_note() -> None:
    image = np.full((8, 8, 3), [200, 0, 0], dtype=np.uint8)
    alone = draw_sheet("a", [("real", [image], [""])])
    noted = draw_sheet("a", [("real", [image, image], ["", "12 % apart"])])
    red = (np.asarray(noted) == [200, 0, 0]).all(axis=-1).sum()
    assert red == 2 * (np.asarray(alone) == [200, 0, 0]).all(axis=-1).sum() == 2 * 72 * 72
    assert noted.height > alone.height
