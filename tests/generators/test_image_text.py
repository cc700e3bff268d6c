"""CLIP's agreement with class names, by a tiny random CLIP on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from generators.image_text import ImageText, agreement_limits, check_clip_folder
from generators.neighbours import POOL_WEIGHT
from rebalance.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 24, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_images_and_texts_are_those_of_the_model(tiny_clip: Path, images: torch.Tensor) -> None:
    clip = ImageText(tiny_clip, CPU)
    model, tokenizer = CLIPModel.from_pretrained(tiny_clip), CLIPTokenizer.from_pretrained(tiny_clip)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    sized = torch.nn.functional.interpolate(images.float() / 255, size=16, mode="bicubic", antialias=True).clamp(0, 1)
    texts = ["a photo of a cat", "a dog"]
    tokens = tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        whole = model(**tokens, pixel_values=(sized - mean) / std)
    torch.testing.assert_close(clip.images(images), whole.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.texts(texts), whole.text_embeds, atol=1e-5, rtol=0)


def test_a_text_does_not_depend_on_those_beside_it_and_long_ones_are_cut(tiny_clip: Path) -> None:
    clip = ImageText(tiny_clip, CPU)
    alone = clip.texts(["cat"])
    torch.testing.assert_close(clip.texts(["cat", "a photo of a dog " * 40])[:1], alone, atol=1e-6, rtol=0)


def test_classes_are_asked_for_as_photos(tiny_clip: Path) -> None:
    clip = ImageText(tiny_clip, CPU)
    expected = clip.texts(["a photo of a black cat", "a photo of a dog"])
    torch.testing.assert_close(clip.classes(["black cat", "dog"]), expected)


def test_a_tokenizer_to_which_all_classes_are_alike_is_refused(tiny_clip: Path, copy_of) -> None:  # type: ignore[no-untyped-def]
    folder = copy_of(tiny_clip)
    CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[]).save_pretrained(folder)
    with pytest.raises(InputError, match="tells classes apart"):
        ImageText(folder, CPU).classes(["cat", "dog"])


def test_folders_without_a_whole_clip_model_are_refused(tiny_clip: Path, copy_of, edit_weights) -> None:  # type: ignore[no-untyped-def]
    folder = copy_of(tiny_clip)
    edit_weights(folder / "model.safetensors", lambda name, value: None if "text_projection" in name else value)
    with pytest.raises(InputError, match="weights for every layer"):
        ImageText(folder, CPU)
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="a CLIP model"):
        ImageText(folder, CPU)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="'bert'"):
        check_clip_folder(folder)
    with pytest.raises(InputError, match=r"without config\.json"):
        check_clip_folder(folder / "nowhere")


def test_limits_are_drawn_towards_what_all_classes_show_around_their_mean() -> None:
    stream = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], [200, 40, 1])
    scores = np.array([0.3, 0.2, 0.25])[targets] + stream.normal(0, 0.02, len(targets))
    limits = agreement_limits(torch.from_numpy(scores), targets, 3, 0.05)
    means = np.array([scores[targets == c].mean() for c in range(3)])
    around = np.quantile(scores - means[targets], 0.05)
    for label, n in enumerate((200, 40, 1)):
        own = np.quantile(scores[targets == label], 0.05)
        assert limits[label] == pytest.approx((n * own + POOL_WEIGHT * (means[label] + around)) / (n + POOL_WEIGHT))
    assert limits[2] < scores[-1] - 0.02  # one image says nothing of how far they spread
