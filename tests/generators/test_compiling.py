"""Compiled generators: the same weights and images, and no compilation after the first batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from generators.base import Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings, build_unet
from generators.class_conditional_training import TrainingSettings, train_class_conditional
from generators.latent_sampling import Sampling
from generators.stable_diffusion import StableDiffusion
from generators.stable_diffusion_checkpoint import open_checkpoint
from generators.stable_diffusion_settings import ImageSettings

NETWORK = NetworkSettings(("cat", "dog"), 8, (8, 16), layers=1, dropout=0.0)
SETTINGS = TrainingSettings(updates=4, batch_size=4, shift=1)
IMAGES = torch.randint(256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
LABELS = torch.tensor([0] * 8 + [1] * 2)


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Traces as with every backend, without a compiler; counts graphs, and refuses what would be compiled too often."""
    compile_in_place = nn.Module.compile

    def traced(module: nn.Module) -> None:
        compile_in_place(module, backend="eager", fullgraph=True)

    monkeypatch.setattr(nn.Module, "compile", traced)
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.mark.parametrize("changes", [{}, {"objective": "cbdm", "augment": 0.5, "amp": "bf16"}])
def test_training_gives_the_same_weights_from_one_graph(changes: dict[str, Any], graphs: Any) -> None:
    network, settings = replace(NETWORK, told="augment" in changes), replace(SETTINGS, **changes)
    plain = train_class_conditional(IMAGES, LABELS, network, settings)
    assert graphs() == 0
    compiled = train_class_conditional(IMAGES, LABELS, network, replace(settings, compile=True))
    assert graphs() == 1
    names = compiled.state_dict()
    assert names.keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(names[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_sampling_gives_the_same_images_from_one_graph(guidance: float, graphs: Any) -> None:
    torch.manual_seed(0)
    unet = build_unet(NETWORK)
    work = [Job("f", "cat", i % 2, i, i, {"steps": 2, "guidance": guidance}) for i in range(5)]
    longer = [replace(job, settings={**job.settings, "steps": 3}) for job in work]
    plain = ClassConditionalGenerator(unet, NETWORK, batch_size=2)
    expected = [plain.generate(jobs) for jobs in (work, longer)]
    assert graphs() == 0
    compiled = ClassConditionalGenerator(unet, NETWORK, batch_size=2, compile=True)
    for jobs, images in zip((work, longer), expected, strict=True):
        torch.testing.assert_close(compiled.generate(jobs), images, rtol=1e-4, atol=1e-5)
    assert graphs() == 1
    assert compiled.fingerprint == plain.fingerprint


def test_stable_diffusion_gives_the_same_images_from_a_graph_each_for_unet_and_decoder(
    tiny_sd: Path, text_plan: Callable[..., list[Job]], graphs: Any
) -> None:
    plain, compiled = (
        StableDiffusion(open_checkpoint(tiny_sd), ImageSettings(batch_size=2, compile=on)) for on in (False, True)
    )
    jobs = text_plan(plain, 1, Sampling(2, 3.0))[:3]
    expected = plain.generate(jobs)
    assert graphs() == 0
    torch.testing.assert_close(compiled.generate(jobs), expected, rtol=1e-4, atol=1e-5)
    assert graphs() == 2
    assert compiled.fingerprint != plain.fingerprint
