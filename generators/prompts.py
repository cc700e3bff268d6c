"""Class names → prompts: for each class a list of different texts, which its images take in turn."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from generators.class_names import check_known, class_names
from rebalance.errors import InputError

TEMPLATES = (
    "a photo of a {name}",
    "a close-up photo of a {name}",
    "a cropped photo of a {name}",
    "a photo of one {name}",
    "a photo of a small {name}",
    "a photo of a large {name}",
    "a bright photo of a {name}",
    "a dark photo of a {name}",
    "a photo of a {name} seen from the side",
    "a detailed photo of a {name}",
)
"""Distance, size, light and view vary: images of one text alone resemble one another more than real ones do."""

_ARTICLE = re.compile(r"\b([aA]) \{name\}")

CLIP_LENGTH = 77
"""Tokens that a CLIP text encoder reads, start and end included; it drops the rest without a word."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of every class.

    Args:
        texts: Of each class by id, in the order its images take them.
        negative: What the images are guided away from, the same for all.
    """

    texts: tuple[tuple[str, ...], ...]
    negative: str = ""

    def __call__(self, label: int, index: int) -> str:
        """The prompt of image `index` of class `label`."""
        own = self.texts[label]
        return own[index % len(own)]

    def distinct(self) -> list[str]:
        """Every text once, the negative one included."""
        return list(dict.fromkeys([self.negative, *(text for own in self.texts for text in own)]))


def make_prompts(
    classes: Sequence[str],
    *,
    templates: Sequence[str] = TEMPLATES,
    names: Mapping[str, str] | None = None,
    descriptions: Mapping[str, Sequence[str]] | None = None,
    tokens: Mapping[str, str] | None = None,
    negative: str = "",
    seed: int = 0,
) -> Prompts:
    """Prompts of every class: each template with each description, in an order of the class's own.

    Args:
        classes: Class names of the data, by id.
        templates: Texts with `{name}` in them; "a {name}" becomes "an {name}" before a vowel.
        names: Class → what to call it; see `generators.class_names`.
        descriptions: Class → what to say of it after the name. One that has `{name}` in it is a template of its class.
        tokens: Class → a token that stands before its name, learnt by textual inversion.
        negative: What the images are guided away from.
        seed: Of the order.

    Raises:
        InputError: A template without `{name}` or with another field, or a class that does not exist.
    """
    described = dict(descriptions or {})
    check_known(list(described), classes, "descriptions")
    check_known(list(tokens or {}), classes, "tokens")
    for template in [*templates, *(text for own in described.values() for text in own if "{" in text)]:
        _check_template(template)
    if not templates:
        raise InputError("at least one prompt template", "none", "use for example 'a photo of a {name}'")
    texts = []
    for class_name, name in zip(classes, class_names(classes, names), strict=True):
        called = f"{tokens[class_name]} {name}" if tokens and class_name in tokens else name
        own = described.get(class_name, ())
        whole = [text for text in own if "{name}" in text]
        added = [text for text in own if "{name}" not in text]
        pairs = product(templates, [f", {text}" for text in added]) if added else product(templates, [""])
        made = [] if whole and not added else [_fill(template, called) + text for template, text in pairs]
        order = {text: _order(seed, class_name, text) for text in [*(_fill(text, called) for text in whole), *made]}
        texts.append(tuple(sorted(order, key=order.__getitem__)))
    return Prompts(tuple(texts), negative)


def fit_prompts(
    prompts: Prompts, n_tokens: Callable[[str], int], *, cut: bool = False, limit: int = CLIP_LENGTH
) -> tuple[Prompts, list[str]]:
    """Prompts that the text encoder reads to the end, and a note for each that was cut.

    Args:
        prompts: Of every class.
        n_tokens: Length of a text, start and end tokens included.
        cut: Drop words from the end of those that are too long; otherwise they are refused.
        limit: Most tokens.

    Raises:
        InputError: A text that is too long, unless `cut`.
    """
    notes: list[str] = []

    def fit(text: str) -> str:
        length = n_tokens(text)
        if length <= limit:
            return text
        if not cut:
            raise InputError(
                f"prompts of at most {limit} tokens, start and end included",
                f"{length} tokens: {text!r}",
                "shorten the description, or let long prompts be cut",
            )
        words = text.split()
        while len(words) > 1 and n_tokens(" ".join(words)) > limit:
            words.pop()
        kept = " ".join(words).rstrip(",")
        notes.append(f"prompt cut from {length} to {n_tokens(kept)} tokens: {kept!r} …")
        return kept

    texts = tuple(tuple(dict.fromkeys(fit(text) for text in own)) for own in prompts.texts)
    return replace(prompts, texts=texts, negative=fit(prompts.negative)), notes


def _check_template(template: str) -> None:
    try:
        filled = template.format(name="\0")
    except (KeyError, IndexError, ValueError) as error:
        raise InputError("a template with {name} as its only field", repr(template), "write {name}") from error
    if "\0" not in filled:
        raise InputError("a template with {name} in it", repr(template), "write for example 'a photo of a {name}'")


def _fill(template: str, name: str) -> str:
    if name[:1].lower() in tuple("aeiou") and not name.lower().startswith(("uni", "eu", "one", "use")):
        template = _ARTICLE.sub(r"\1n {name}", template)
    return template.format(name=name)


def _order(seed: int, class_name: str, text: str) -> bytes:
    """Sort key of a text: shuffles each class its own way, the same in every process."""
    return hashlib.sha256(json.dumps([seed, class_name, text], ensure_ascii=False).encode()).digest()
