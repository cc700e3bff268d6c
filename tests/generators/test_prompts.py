from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from generators.class_names import class_names, read_descriptions, read_names, readable
from generators.prompts import TEMPLATES, fit_prompts, make_prompts
from rebalance.errors import InputError

# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("golden_retriever", "golden retriever"),
        ("GoldenRetriever", "Golden Retriever"),
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("12-cup cake", "cup cake"),
        ("tit, blue", "tit, blue"),
        ("747-400", "747-400"),
        ("BMWSeries", "BMW Series"),
        ("iPhone", "iPhone"),
        ("McDonald", "McDonald"),
        ("__", "__"),
        ("7", "7"),
    ],
)
def test_folder_names_become_words(name: str, expected: str) -> None:
    assert readable(name) == expected


def test_wordnet_ids_are_looked_up() -> None:
    names = {"n01440764": "tench", "n01443537": "goldfish", "n02084071": "dog"}
    assert class_names(["n01440764", "n01443537"], names) == ("tench", "goldfish")


def test_a_wordnet_id_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"none for n01440764; did you mean 'n01440765'"):
        class_names(["n01440764"], {"n01440765": "tench"})
    with pytest.raises(InputError, match="none for n01440764"):
        class_names(["n01440764"])


def test_two_classes_of_one_name_are_refused() -> None:
    # ImageNet has two cranes; their images would be made from the same prompts.
    with pytest.raises(InputError, match=r"'Crane' for both n02012849 and n03126707"):
        class_names(["n02012849", "n03126707"], {"n02012849": "crane", "n03126707": "Crane"})


def test_a_name_for_no_class_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"got 'tenhc'; did you mean 'tench'"):
        class_names(["tench", "goldfish"], {"tenhc": "fish"})


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "n01440764 tench, Tinca tinca\n\nn01443537 goldfish, Carassius auratus\n"),
        ("names.txt", "n01440764\ttench\nn01443537: goldfish\n"),
        ("names.csv", "class,name\nn01440764,tench\nn01443537,goldfish\n"),
        ("names.csv", 'n01440764,"tench, Tinca tinca"\nn01443537,goldfish,Carassius auratus\n'),
        ("names.yaml", "n01440764: tench\nn01443537: 'goldfish, Carassius auratus'\n"),
        ("names.json", '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}'),
    ],
)
def test_names_files(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    assert read_names(tmp_path / file) == {"n01440764": "tench", "n01443537": "goldfish"}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("names.txt", "n01440764\n", "'n01440764' alone"),
        ("names.yaml", "- tench\n", "a mapping"),
        ("names.yaml", "a: [b\n", "YAML"),
        ("names.yaml", "a: {b: c}\n", r"\{'b': 'c'\} for a"),
        ("names.json", "{", "names.json"),
    ],
)
def test_broken_names_files(tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_names(tmp_path / file)


def test_missing_names_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a file names\.txt"):
        read_names(tmp_path / "names.txt")


# Prompts


def test_each_class_takes_all_its_prompts_in_turn_and_in_an_order_of_its_own() -> None:
    prompts = make_prompts(["tench", "eel"])
    n = len(TEMPLATES)
    assert {prompts(0, i) for i in range(n)} == {template.format(name="tench") for template in TEMPLATES}
    assert [prompts(0, i) for i in range(n)] == [prompts(0, i + n) for i in range(n)]
    order = [text.replace("tench", "{name}") for text in prompts.texts[0]]
    assert order != [text.replace("an eel", "a {name}").replace("eel", "{name}") for text in prompts.texts[1]]
    assert prompts.texts != make_prompts(["tench", "eel"], seed=1).texts


def test_prompts_are_the_same_in_every_process() -> None:
    code = "from generators.prompts import make_prompts; print(make_prompts(['tench', 'eel']).texts)"
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1] == f"{make_prompts(['tench', 'eel']).texts}\n"


def test_articles() -> None:
    prompts = make_prompts(["eel", "unicorn", "tench"], templates=["a pizza {name}, a {name}", "A {name}"])
    assert set(prompts.texts[0]) == {"a pizza eel, an eel", "An eel"}
    assert set(prompts.texts[1]) == {"a pizza unicorn, a unicorn", "A unicorn"}
    assert set(prompts.texts[2]) == {"a pizza tench, a tench", "A tench"}


def test_descriptions_follow_the_name_and_whole_ones_stand_alone() -> None:
    told = {"tench": ["a green fish", "in a pond"], "eel": ["an underwater photo of {name}"]}
    prompts = make_prompts(["tench", "eel", "pike"], templates=["a {name}"], descriptions=told, negative="blurry")
    assert set(prompts.texts[0]) == {"a tench, a green fish", "a tench, in a pond"}
    assert prompts.texts[1] == ("an underwater photo of eel",)
    assert prompts.texts[2] == ("a pike",)
    assert prompts.negative == "blurry"
    assert prompts.distinct()[0] == "blurry"
    assert len(prompts.distinct()) == 5


def test_a_description_for_no_class_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"got 'Tench'; did you mean 'tench'"):
        make_prompts(["tench", "eel"], descriptions={"Tench": ["a fish"]})


def test_tokens_stand_before_the_name() -> None:
    prompts = make_prompts(["tench", "eel"], templates=["a {name}"], tokens={"tench": "<class-0>"})
    assert prompts.texts == (("a <class-0> tench",), ("an eel",))


@pytest.mark.parametrize("template", ["a photo", "a {nam}", "a {}", "a {name", "a {name} {place}"])
def test_templates_without_the_name_alone_are_refused(template: str) -> None:
    with pytest.raises(InputError, match="template with"):
        make_prompts(["tench"], templates=[template])


def test_no_template_is_refused() -> None:
    with pytest.raises(InputError, match="at least one prompt template"):
        make_prompts(["tench"], templates=[])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("told.yaml", "tench: [green, in a pond]\neel: long\n"),
        ("told.csv", "class,description\ntench,green\ntench, in a pond\neel,long\n"),
        ("told.json", '{"tench": ["green", "in  a pond", "green"], "eel": "long"}'),
    ],
)
def test_description_files(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    assert read_descriptions(tmp_path / file) == {"tench": ("green", "in a pond"), "eel": ("long",)}


def test_an_empty_description_is_refused(tmp_path: Path) -> None:
    (tmp_path / "told.yaml").write_text("tench: ''\n")
    with pytest.raises(InputError, match="'' for tench"):
        read_descriptions(tmp_path / "told.yaml")


# Length


def n_words(text: str) -> int:
    return len(text.split()) + 2


def test_prompts_that_fit_are_left_alone() -> None:
    prompts = make_prompts(["tench"], negative="blurry")
    assert fit_prompts(prompts, n_words) == (prompts, [])


def test_long_prompts_are_refused() -> None:
    prompts = make_prompts(["tench"], templates=["a {name}"], descriptions={"tench": ["very " * 80 + "green"]})
    with pytest.raises(InputError, match=r"at most 77 tokens.*got 85 tokens: 'a tench, very"):
        fit_prompts(prompts, n_words)


def test_long_prompts_are_cut_with_a_note() -> None:
    prompts = make_prompts(["tench"], templates=["a {name}"], descriptions={"tench": ["very " * 80 + "green"]})
    fitted, notes = fit_prompts(prompts, n_words, cut=True)
    assert fitted.texts == (("a tench," + " very" * 73,),)
    assert len(notes) == 1
    assert notes[0].startswith("prompt cut from 85 to 77 tokens: 'a tench, very")


def test_a_long_negative_prompt_is_refused_too() -> None:
    with pytest.raises(InputError, match="got 102 tokens"):
        fit_prompts(make_prompts(["tench"], negative="blurry " * 100), n_words)
