"""When the figures of a synthesis's quality are a warning; how they are measured is in test_judging.py."""

from __future__ import annotations

from pipelines.synthesis_quality import _warnings


def test_images_that_are_unlike_the_real_ones_as_a_whole_are_warned_of() -> None:
    quality = {"groups": {"all": {"kid": 1.2}}}
    (text,) = _warnings(quality)
    assert "KID 1.20" in text
    assert _warnings({"groups": {"all": {"kid": 0.1}}}) == _warnings({"groups": {"all": {"kid": None}}}) == []
