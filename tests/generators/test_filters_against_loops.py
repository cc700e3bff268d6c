"""All gates together, against a plain loop."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from generators.filters import FLAT, LOOSER, Candidates, RealImages, judge
from generators.manifest import KEPT, REJECTED, SPARE

SIZE = 6
FAR, TRAIN_COPY, KEPT_COPY = "far from the real images", "copy of a training image", "copy of a kept image"


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def judged_by_loops(
    pixels: np.ndarray, features: np.ndarray, references: RealImages, wanted: int, floor: float
) -> tuple[list[str], list[str]]:
    real_pixels, real_features = references.pixels.double().numpy(), references.features.double().numpy()

    def rms(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a - b) ** 2).mean()))

    limit = references.limit * LOOSER
    while True:
        outcome, reason, kept = [], [], []
        for image, feature in zip(pixels, features, strict=True):
            far = np.mean(sorted(1 - feature @ r for r in real_features)[:5]) > limit
            why = ""
            if image.std(ddof=1) < FLAT:
                why = "flat"
            elif min(min(rms(image, r), rms(image[:, :, ::-1], r)) for r in real_pixels) <= references.copy_limit:
                why = TRAIN_COPY
            elif far:
                why = FAR
            elif kept and min(rms(image, k) for k in kept) <= references.copy_limit:
                why = KEPT_COPY
            full = len(kept) >= wanted
            outcome.append(REJECTED if why else SPARE if full else KEPT)
            reason.append(why)
            if outcome[-1] == KEPT:
                kept.append(image)
        if len(kept) >= np.ceil(floor * wanted) or limit * LOOSER > references.last_limit:
            return outcome, reason
        limit *= LOOSER


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 30), st.sampled_from([0.0, 0.5, 1.0]))
def test_verdicts_are_those_of_a_plain_loop(seed: int, n: int, wanted: int, floor: float) -> None:
    stream = torch.Generator().manual_seed(seed)
    references = RealImages(
        images(7, seed + 1), F.normalize(torch.randn(7, 4, generator=stream), dim=1), 0.3, 0.9, copy_limit=0.05
    )
    pixels = images(n, seed)
    for i in range(n):  # some copies, some flat ones
        kind = int(torch.randint(6, (), generator=stream))
        other = int(torch.randint(7, (), generator=stream))
        if kind == 0:
            pixels[i] = references.pixels[other] + 0.02
        elif kind == 1:
            pixels[i] = references.pixels[other].flip(2)
        elif kind == 2:
            pixels[i] = pixels[min(other, i)] - 0.03
        elif kind == 3:
            pixels[i] = 0.5 + 0.01 * (pixels[i] - 0.5)
    features = F.normalize(torch.randn(n, 4, generator=stream), dim=1)
    found = judge(Candidates(pixels, features, [""] * n), references, wanted, floor=floor)
    outcome, reason = judged_by_loops(pixels.double().numpy(), features.double().numpy(), references, wanted, floor)
    assert found.verdict == outcome
    assert found.reason == reason
