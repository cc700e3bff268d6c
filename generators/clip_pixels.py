"""How the image encoders of CLIP models want their pixels normalised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rebalance.files import read_json

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def clip_normalization(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of pixels in [0, 1], by channel, as a folder's preprocessor_config.json says.

    What it does not say is as in OpenAI's models: Radford et al., Learning Transferable Visual Models From Natural
    Language Supervision, 2021.

    Raises:
        InputError: A file that is not JSON.
    """
    file = folder / "preprocessor_config.json"
    told = read_json(file) if file.is_file() else {}
    return told.get("image_mean", _MEAN), told.get("image_std", _STD)
