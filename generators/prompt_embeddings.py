"""Prompts → what the U-Net is told: each text embedded once, kept on the CPU, the text encoders freed in between."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from generators.prompts import CLIP_LENGTH
from generators.stable_diffusion_checkpoint import REPAIR, Checkpoint
from generators.stable_diffusion_loading import load_model, load_tokenizer
from rebalance.errors import InputError

_TOKEN = re.compile(r"<[\w\-]+>")


class PromptEmbedding(NamedTuple):
    """What the text encoders make of prompts: states (..., 77, D) and, of SDXL, the pooled vector (..., P)."""

    states: Tensor
    pooled: Tensor | None


@dataclass(frozen=True)
class LearntTokens:
    """Tokens that textual inversion added to the vocabulary.

    Args:
        names: Such as "<class-3>"; N of them.
        vectors: Text encoder → embedding vectors (N, width).
    """

    names: tuple[str, ...]
    vectors: dict[str, Tensor]


@final
class PromptEmbedder:
    """The embeddings of texts; a text encoder is in memory only while there is something new to embed.

    Args:
        checkpoint: Has tokenizers and text encoders.
        dtype: In which the embeddings are kept; the text encoders run in float32.
        tokens: Added to the vocabulary.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, tokens: LearntTokens | None = None) -> None:
        self.checkpoint = checkpoint
        self.dtype = dtype
        self.tokens = tokens
        self.tokenizers = [load_tokenizer(checkpoint, name) for name in checkpoint.tokenizers]
        if tokens is not None:
            add_tokens(self.tokenizers, tokens.names)
        self._embeddings: dict[str, PromptEmbedding] = {}
        self._text_of: dict[tuple[int, ...], str] = {}

    def n_tokens(self, text: str) -> int:
        """Length of a text, start and end tokens included; of the longer one where there are two tokenizers."""
        return max(len(tokenizer(text).input_ids) for tokenizer in self.tokenizers)

    def ids(self, text: str) -> list[Tensor]:
        """Token ids (1, 77) for each text encoder."""
        return [_padded_ids(tokenizer, text) for tokenizer in self.tokenizers]

    def embed(self, texts: Iterable[str], device: torch.device | str = "cpu") -> None:
        """Embed the texts that are not known yet.

        Raises:
            InputError: A text of more than 77 tokens, texts that the tokenizer or the encoder cannot tell apart.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._embeddings]
        if not new:
            return
        for text in new:
            self._check_known_tokens(text)
        ids = {text: self.ids(text) for text in new}
        for text in new:
            self._check_told_apart(text, ids[text][0])
        encoders = self.load_encoders(device)
        with torch.no_grad():
            for text in new:  # one at a time: the shape of a batch changes the last bits
                made = encode(encoders, [part.to(device) for part in ids[text]])
                states = made.states[0].to("cpu", self.dtype)
                pooled = None if made.pooled is None else made.pooled[0].to("cpu", self.dtype)
                if not torch.isfinite(states).all():
                    raise InputError("finite prompt embeddings", f"others for {text!r}", REPAIR)
                self._embeddings[text] = PromptEmbedding(states, pooled)

    def prompt(self, text: str) -> PromptEmbedding:
        """The embedding of a text that `embed` was given."""
        return self._embeddings[text]

    def negative(self, text: str) -> PromptEmbedding:
        """The embedding of a text to be guided away from; SDXL was trained with zeros for an empty one."""
        known = self._embeddings[text]
        if text or not self.checkpoint.xl or not self.checkpoint.index.get("force_zeros_for_empty_prompt", True):
            return known
        return PromptEmbedding(*(None if part is None else torch.zeros_like(part) for part in known))  # type: ignore[arg-type]

    def load_encoders(self, device: torch.device | str = "cpu") -> list[Any]:
        """The text encoders in float32, with the rows of the added tokens; freed when the caller drops them.

        Raises:
            InputError: A text encoder with fewer embeddings than the tokenizer has tokens, or damaged weights.
        """
        parts = [part for part in self.checkpoint.parts if part.startswith("text_encoder")]
        encoders = []
        for part, tokenizer in zip(parts, self.tokenizers, strict=True):
            encoder = load_model(self.checkpoint, part, torch.float32)
            size = encoder.get_input_embeddings().num_embeddings
            n_added = 0 if self.tokens is None else len(self.tokens.names)
            if len(tokenizer) - n_added > size:
                raise InputError(
                    f"a {part} with an embedding for each of {len(tokenizer) - n_added} tokens", f"{size}", REPAIR
                )
            for module in encoder.modules():
                # Old configurations say 2, which makes CLIP take the highest id for the end: an added token's.
                if hasattr(module, "eos_token_id"):
                    module.eos_token_id = tokenizer.eos_token_id
            if self.tokens is not None:
                encoder.resize_token_embeddings(max(size, len(tokenizer)), mean_resizing=False)
                with torch.no_grad():
                    rows = encoder.get_input_embeddings().weight
                    rows[len(tokenizer) - n_added : len(tokenizer)] = self.tokens.vectors[part]
            encoders.append(encoder.requires_grad_(False).to(device))
        return encoders

    def _check_known_tokens(self, text: str) -> None:
        known = () if self.tokens is None else self.tokens.names
        for piece in _TOKEN.findall(text):
            if piece not in known:  # the tokenizer would split it into letters without a word
                raise InputError(
                    "prompts with learnt tokens only",
                    f"{piece} in {text!r}",
                    f"valid: {', '.join(known[:5])}" if known else "use the adapter that learnt it",
                )

    def _check_told_apart(self, text: str, ids: Tensor) -> None:
        other = self._text_of.setdefault(tuple(ids[0].tolist()), text)
        if " ".join(other.lower().split()) != " ".join(text.lower().split()):
            raise InputError(
                "a tokenizer that tells prompts apart",
                f"the same ids for {other!r} and {text!r} from {self.checkpoint.folder}",
                "its vocabulary was not read, or does not have these words; fetch the checkpoint again",
            )


def encode(encoders: Sequence[Any], ids: Sequence[Tensor]) -> PromptEmbedding:
    """Embeddings of a batch of token ids (B, 77), one for each encoder.

    Stable Diffusion 1 and 2 read the last layer of their encoder; SDXL the last but one of both, side by side, and the
    projected end token of the second.
    """
    if len(encoders) == 1:
        return PromptEmbedding(encoders[0](ids[0]).last_hidden_state, None)
    made = [encoder(part, output_hidden_states=True) for encoder, part in zip(encoders, ids, strict=True)]
    return PromptEmbedding(torch.cat([one.hidden_states[-2] for one in made], dim=-1), made[1].text_embeds)


def add_tokens(tokenizers: Sequence[Any], names: Sequence[str]) -> None:
    """Add tokens to the vocabularies, each asserted to be one id from then on.

    Raises:
        InputError: A name that is a token already, or that the tokenizer does not keep whole.
    """
    for tokenizer in tokenizers:
        for name in names:
            added = tokenizer.add_tokens([name])
            ids = tokenizer(f"a {name} of", add_special_tokens=False).input_ids
            rest = tokenizer("a of", add_special_tokens=False).input_ids
            if added != 1 or [i for i in ids if i != len(tokenizer) - 1] != rest or len(ids) != len(rest) + 1:
                raise InputError("new tokens in lower case that read as one", repr(name), "name it such as <class-3>")


def _padded_ids(tokenizer: Any, text: str) -> Tensor:
    read = tokenizer(text, padding="max_length", max_length=CLIP_LENGTH, return_tensors="pt").input_ids
    if read.shape[1] > CLIP_LENGTH:
        raise InputError(
            f"prompts of at most {CLIP_LENGTH} tokens", f"{read.shape[1]}: {text!r}", "shorten it, or let it be cut"
        )
    ids: Tensor = read
    return ids
