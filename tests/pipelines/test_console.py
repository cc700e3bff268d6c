from __future__ import annotations

import pytest

from pipelines import console


def test_what_looks_like_markup_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_shown", lambda: True)
    console.print_table("[i]all[/i]", ["class [a]", "[red]"], [["cat [old]", "[/]"]])
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("[i]all[/i]", "class [a]", "[red]", "cat [old]", "[/]"))
