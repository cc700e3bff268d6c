from __future__ import annotations

import math

import torch

from generators.base import check_finite, to_pixels


def test_pixels_are_clipped_and_what_is_not_finite_is_no_pixel() -> None:
    found = to_pixels(torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 3.0, math.inf, -math.inf, math.nan]))
    expected = torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0, 1.0, math.nan, math.nan, math.nan])
    torch.testing.assert_close(found, expected, equal_nan=True)
    images = torch.zeros(2, 3, 2, 2)
    images[1, 0, 0, 0] = math.inf
    assert check_finite(to_pixels(images)).failures == ["", "not finite"]
