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


def test_a_title_that_is_wider_than_its_table_stays_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_shown", lambda: True)
    title = f"runs/run/{'photographs-' * 12}: 300 images"
    console.print_table(title, ["class", "%"], [["cat", "50.0"]])
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == title
    assert len(second) < len(title)
