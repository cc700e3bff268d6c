from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generators.base import Job
from generators.lora_inputs import TrainingTexts, token_names
from generators.lora_training import AdaptationSettings, TrainedAdapter
from generators.prompt_embeddings import LearntTokens, PromptEmbedder, add_tokens
from generators.prompts import make_prompts
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_settings import ImageSettings
from rebalance.errors import InputError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPTS = make_prompts(NAMES)
TOKEN_PROMPTS = make_prompts(NAMES, tokens=token_names(NAMES))
SETTINGS = ImageSettings(batch_size=2)


@pytest.fixture(scope="module")
def with_tokens(
    tiny_sd: Path,
    tmp_path_factory: pytest.TempPathFactory,
    adapt: Callable[..., TrainedAdapter],
    save_adapted: Callable[..., Path],
    quick: AdaptationSettings,
) -> tuple[TrainedAdapter, Path]:
    trained = adapt(
        tiny_sd,
        replace(quick, updates=10, batch_size=8),
        prompts=TOKEN_PROMPTS,
        token_starts=[*NAMES[:9], "handwritten nine"],
    )
    return trained, save_adapted(trained, tmp_path_factory.mktemp("tokens"), tiny_sd)


def test_tokens_begin_at_the_mean_of_their_words_and_learn(
    tiny_sd: Path,
    with_tokens: tuple[TrainedAdapter, Path],
    adapt: Callable[..., TrainedAdapter],
    quick: AdaptationSettings,
) -> None:
    checkpoint = open_checkpoint(tiny_sd)
    embedder = PromptEmbedder(checkpoint, torch.float32)
    rows = embedder.load_encoders()[0].get_input_embeddings().weight
    ids = embedder.tokenizers[0]("handwritten nine", add_special_tokens=False).input_ids
    start = adapt(tiny_sd, replace(quick, updates=0), prompts=TOKEN_PROMPTS, token_starts=["handwritten nine"] * 10)
    assert start.tokens is not None
    torch.testing.assert_close(start.tokens.vectors["text_encoder"][4], rows[ids].mean(dim=0))
    learnt = with_tokens[0].tokens
    assert learnt is not None
    moved = (learnt.vectors["text_encoder"][9] - start.tokens.vectors["text_encoder"][9]).norm()
    assert moved > 1e-3


def test_tokens_come_back_with_the_adapter(
    tiny_sd: Path, with_tokens: tuple[TrainedAdapter, Path], adapter_jobs: Callable[..., list[Job]]
) -> None:
    folder = with_tokens[1]
    generator = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[folder])
    (name,) = generator.adapters
    told, plain = adapter_jobs(generator, name, TOKEN_PROMPTS), adapter_jobs(generator, name)
    assert told[0].settings["prompt"].count("<class-0>") == 1
    # Each token is one id, so a prompt is one token longer, not as many as the token has letters.
    texts = [jobs[0].settings["prompt"].replace("<class-0> ", "") for jobs in (told, plain)]
    assert generator.n_tokens(told[0].settings["prompt"], name) == generator.n_tokens(texts[0]) + 1
    images = generator.generate(told)
    assert not torch.equal(images, generator.generate(plain))
    again = StableDiffusion(open_checkpoint(tiny_sd), SETTINGS, adapters=[folder])
    assert torch.equal(images, again.generate(adapter_jobs(again, name, TOKEN_PROMPTS)))
    with pytest.raises(InputError, match="use the adapter that learnt it"):
        generator.generate(adapter_jobs(generator, "", TOKEN_PROMPTS))


def test_training_embeds_tokens_as_generation_does(tiny_sd: Path, tiny_sdxl: Path) -> None:
    for folder in (tiny_sd, tiny_sdxl):
        checkpoint = open_checkpoint(folder)
        texts = TrainingTexts(checkpoint, TOKEN_PROMPTS, NAMES, torch.device("cpu"))
        stream = torch.Generator().manual_seed(0)
        for vectors in texts.tokens.values():
            vectors.data += torch.randn(vectors.shape, generator=stream)
        embedder = PromptEmbedder(checkpoint, torch.float32, texts.learnt())
        wanted = [TOKEN_PROMPTS(3, 0), None, TOKEN_PROMPTS(8, 1)]
        embedder.embed(["", *(text for text in wanted if text)])
        made = texts(wanted)
        for i, text in enumerate(wanted):
            expected = embedder.negative("") if text is None else embedder.prompt(text)
            torch.testing.assert_close(made.states[i], expected.states, rtol=1e-4, atol=1e-5)
            if expected.pooled is not None:
                assert made.pooled is not None
                torch.testing.assert_close(made.pooled[i], expected.pooled, rtol=1e-4, atol=1e-5)


def test_added_tokens_do_not_move_the_end_that_sdxl_pools(tiny_sdxl: Path) -> None:
    # The second encoder's configuration has 2 as its end token: CLIP then takes the highest id, an added token's.
    checkpoint = open_checkpoint(tiny_sdxl)
    widths = {"text_encoder": 32, "text_encoder_2": 24}
    tokens = LearntTokens(("<class-0>",), {part: torch.zeros(1, width) for part, width in widths.items()})
    embedder = PromptEmbedder(checkpoint, torch.float32, tokens)
    embedder.embed(["a <class-0> zero"])
    encoder = embedder.load_encoders()[1]
    ids = embedder.ids("a <class-0> zero")[1]
    end = int((ids[0] == embedder.tokenizers[1].eos_token_id).nonzero()[0])
    with torch.no_grad():
        states = encoder.text_model(ids).last_hidden_state
        expected = encoder.text_projection(states[0, end])
    torch.testing.assert_close(embedder.prompt("a <class-0> zero").pooled, expected)


@pytest.mark.parametrize("name", ["zero", "<Class-0>"])
def test_token_names_that_are_not_new_words_are_refused(tiny_sd: Path, name: str) -> None:
    embedder = PromptEmbedder(open_checkpoint(tiny_sd), torch.float32)
    with pytest.raises(InputError, match="new tokens in lower case"):
        add_tokens(embedder.tokenizers, [name, name])


@pytest.mark.parametrize("tokens", [False, True])
def test_sdxl_is_adapted_too(
    tiny_sdxl: Path,
    tmp_path: Path,
    tokens: bool,
    adapt: Callable[..., TrainedAdapter],
    save_adapted: Callable[..., Path],
    adapter_jobs: Callable[..., list[Job]],
) -> None:
    prompts = TOKEN_PROMPTS if tokens else PROMPTS
    starts: Sequence[str] | None = NAMES if tokens else None
    trained = adapt(tiny_sdxl, prompts=prompts, token_starts=starts)
    folder = save_adapted(trained, tmp_path, tiny_sdxl)
    generator = StableDiffusion(open_checkpoint(tiny_sdxl), SETTINGS, adapters=[folder])
    (name,) = generator.adapters
    images = generator.generate(adapter_jobs(generator, name, prompts))
    assert images.isfinite().all()
    assert not torch.equal(images, generator.generate(adapter_jobs(generator)))
    if tokens:
        assert trained.tokens is not None
        assert {part: vector.shape[1] for part, vector in trained.tokens.vectors.items()} == {
            "text_encoder": 32,
            "text_encoder_2": 24,
        }
