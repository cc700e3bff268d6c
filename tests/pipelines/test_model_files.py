from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.model_files import ModelDescription, TrainedClassifier, build_classifier, load_model, save_model
from rebalance.classifier import Classifier
from rebalance.errors import InputError

DESCRIPTION = ModelDescription(
    backbone="small_cnn",
    stem="auto",
    head="linear",
    scale=1.0,
    image_size=8,
    mean=(0.5, 0.25, 0.1),
    std=(0.2, 0.3, 0.4),
    classes=("two words", "猫", "c"),
    train_counts=(500, 50, 5),
)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def trained(description: ModelDescription = DESCRIPTION) -> Classifier:
    """A classifier whose batch norms have seen data."""
    torch.manual_seed(0)
    classifier = build_classifier(description)
    for _ in range(3):
        classifier(torch.randn(4, 3, description.image_size, description.image_size))
    return classifier


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_model(tmp_path / "run" / "model", trained(), DESCRIPTION)
    return tmp_path / "run"


def test_a_model_says_in_a_line_what_it_is(run: Path) -> None:
    assert repr(load_model(run)) == "TrainedClassifier(small_cnn, 3 classes, 8 px)"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"head": "cosine", "scale": 30.0},
        {"head": "cosine", "scale": None},
        {"backbone": "resnet20", "image_size": 16},
        {"backbone": "resnet18", "stem": "imagenet", "image_size": 32},
        {"backbone": "resnet18", "image_size": 32},
    ],
)
def test_a_model_comes_back_and_predicts_the_same(tmp_path: Path, change: dict[str, Any]) -> None:
    description = replace(DESCRIPTION, **change)
    classifier = trained(description)
    save_model(tmp_path, classifier, description)
    model = load_model(tmp_path)
    assert model.description == description
    assert not model.classifier.training
    images = torch.randn(5, 3, description.image_size, description.image_size)
    with torch.no_grad():
        assert torch.equal(model.classifier(images), classifier.eval()(images))


def test_a_model_is_found_by_its_run_or_by_itself(run: Path) -> None:
    by_run, by_text, alone = load_model(run), load_model(str(run)), load_model(run / "model")
    expected = by_run.predict_proba(list(PIXELS))
    np.testing.assert_array_equal(by_text.predict_proba(list(PIXELS)), expected)
    np.testing.assert_array_equal(alone.predict_proba(list(PIXELS)), expected)


def test_the_folder_holds_what_inference_needs_and_no_pickle(run: Path) -> None:
    assert sorted(os.listdir(run / "model")) == ["classes.json", "model.json", "weights.safetensors"]
    assert json.loads((run / "model" / "classes.json").read_text(encoding="utf-8")) == ["two words", "猫", "c"]


def test_the_weights_are_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, tensors: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.model_files.write_tensors", fail)
    with pytest.raises(KeyboardInterrupt):
        save_model(tmp_path, trained(), DESCRIPTION)
    with pytest.raises(InputError, match="a finished run with a model"):
        load_model(tmp_path)


# Images in, class names out


def test_images_are_normalised_as_in_training(run: Path) -> None:
    images = load_model(run).preprocess(list(PIXELS))
    mean, std = np.array(DESCRIPTION.mean), np.array(DESCRIPTION.std)
    np.testing.assert_allclose(images.numpy(), ((PIXELS / 255 - mean) / std).transpose(0, 3, 1, 2), atol=1e-5)


def test_files_of_any_size_and_pixels_are_classified_alike(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    Image.fromarray(PIXELS[0]).save(path)
    large = tmp_path / "large.png"
    Image.fromarray(PIXELS[0]).resize((40, 80)).convert("LA").save(large)
    model = load_model(run)
    probabilities = model.predict_proba([PIXELS[0], path, str(path), large])
    assert (probabilities.shape, probabilities.dtype) == ((4, 3), np.float64)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(probabilities[0], probabilities[1])
    np.testing.assert_array_equal(probabilities[0], probabilities[2])
    names = model.predict([path, large])
    assert names == [DESCRIPTION.classes[i] for i in probabilities[1::2].argmax(axis=1)]


def test_one_image_or_several_in_any_form_are_classified_alike(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS[0]).save(path)
    model = load_model(run)
    every = model.predict_proba(list(PIXELS))
    for one in (PIXELS[0], path, str(path), Image.fromarray(PIXELS[0])):
        np.testing.assert_allclose(model.predict_proba(one), every[:1], rtol=1e-6)
        assert model.predict(one) == [DESCRIPTION.classes[every[0].argmax()]]
    np.testing.assert_array_equal(model.predict_proba(PIXELS), every)
    np.testing.assert_allclose(model.predict_proba(PIXELS, batch_size=3), every, rtol=1e-6)
    assert model.predict_proba([]).shape == (0, 3)
    assert model.predict([]) == []


def test_a_photo_is_turned_upright_open_or_as_a_file(run: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(PIXELS[0]).save(tmp_path / "turned.png", exif=exif)
    model = load_model(run)
    file = model.predict_proba(tmp_path / "turned.png")
    with Image.open(tmp_path / "turned.png") as photo:
        np.testing.assert_array_equal(model.predict_proba(photo), file)
    assert (file != model.predict_proba(PIXELS[0])).any()


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (PIXELS[0] / 255.0, r"float64 \(8, 8, 3\)"),
        (PIXELS[0][..., 0], r"uint8 \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \(8, 8, 4\)"),
        (torch.zeros(3, 8, 8), "Tensor"),
    ],
)
def test_what_are_no_pixels_is_refused(run: Path, image: Any, got: str) -> None:
    with pytest.raises(InputError, match=rf"Pillow's images or uint8 pixels \(H, W, 3\); got {got}; scale pixels"):
        load_model(run).predict([image])


def test_an_unreadable_image_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"readable images; got cannot decode .*missing\.png: No such file"):
        load_model(run).predict([tmp_path / "missing.png"])


def test_groups_follow_from_the_training_counts(run: Path) -> None:
    model = load_model(run)
    assert model.groups == ["many", "medium", "few"]
    assert model.classes == DESCRIPTION.classes
    assert isinstance(model.to("cpu"), TrainedClassifier)


# Damage


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a finished run with a model; got .*, which has none"):
        load_model(tmp_path / "missing")
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="a finished run with a model"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("weights.safetensors", b""),
        ("weights.safetensors", b"text"),
        ("weights.safetensors", b"\x80\x04N."),  # a pickle
        ("model.json", b"[]"),
        ("model.json", b"{}"),
        ("model.json", b"3"),
    ],
)
def test_damage_is_one_clear_error(run: Path, file: str, content: bytes) -> None:
    (run / "model" / file).write_bytes(content)
    with pytest.raises(InputError, match=r"a whole model folder; got .*model.*; export the model again"):
        load_model(run)


def test_a_backbone_that_is_not_there_is_told_as_such(run: Path) -> None:
    path = run / "model" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "backbone": "nothing:Here"}))
    with pytest.raises(
        InputError, match=r"Backbone, for .*model; got 'nothing:Here': ModuleNotFoundError: .*PYTHONPATH"
    ):
        load_model(run)


def test_missing_or_broken_json_is_named(run: Path) -> None:
    (run / "model" / "model.json").write_text("{")
    with pytest.raises(InputError, match=r"expected JSON; got .*model.json"):
        load_model(run)
    (run / "model" / "model.json").unlink()
    with pytest.raises(InputError, match=r"a file model.json"):
        load_model(run)


@pytest.mark.parametrize("change", [{"classes": ["a"]}, {"backbone": "resnet20"}, {"head": "cosine"}, {"more": 1}])
def test_a_description_that_does_not_fit_the_weights_is_refused(run: Path, change: dict[str, Any]) -> None:
    path = run / "model" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match="a whole model folder"):
        load_model(run)
