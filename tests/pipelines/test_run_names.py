"""What run folders are called."""

from __future__ import annotations

import pytest

from pipelines.runs import slug


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("photos/my birds.csv", "my-birds.csv"),
        ("photos/", "photos"),
        ("/data/Vögel 猫", "Vögel-猫"),
        ("..", "data"),
        (".", "data"),
        ("/", "data"),
        ("a:b*c", "a-b-c"),
        (".hidden", "hidden"),
        ("v1.2", "v1.2"),
    ],
)
def test_names_of_data_become_one_part_of_a_path(text: str, name: str) -> None:
    assert slug(text) == name
