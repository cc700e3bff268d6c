from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import DataConfig, OptimizationConfig, PlaceConfig, TrainConfig, console, show_progress, train


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


@pytest.mark.parametrize("shown", [True, False])
def test_functions_show_in_python_what_the_commands_show_once_asked(
    shown: bool, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    show_progress()
    if not shown:
        show_progress(False)
    train(
        TrainConfig(
            data=DataConfig(data="digits"),
            optimization=OptimizationConfig(updates=2, batch_size=32),
            place=PlaceConfig(device="cpu", report_to="none"),
        )
    )
    said = capfd.readouterr()
    assert ("balanced_mixup on digits" in said.out) is shown
    assert ("2 updates of 32 images" in said.err) is shown
    assert (said.out + said.err == "") is not shown
