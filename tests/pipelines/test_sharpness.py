"""`--sam`: when it acts, and beside accumulation, clipping, precisions, averaging, compiling, resuming and ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.batches import TrainingBatches
from pipelines.config_groups import OptimizationConfig
from pipelines.loop import TrainingData, training_steps
from pipelines.optimization import build_optimizer, check_optimization
from rebalance.averaging import MovingAverage
from rebalance.backbones import SmallCNN
from rebalance.classifier import Classifier
from rebalance.data.augmentation import parse_views
from rebalance.data.store import ResidentStore
from rebalance.errors import InputError
from rebalance.losses import CrossEntropyLoss
from rebalance.methods.composed import ComposedMethod, LossTerm
from rebalance.methods.weighting import ClassWeighting
from rebalance.samplers import EpochSampler

COUNTS = [30, 10, 4]
RATE = 0.05


def network(*, norm: bool = False, share: float = 1.0) -> ComposedMethod:
    """Cross entropy on a small network, whose batch norms normalise by the image unless `norm`."""
    torch.manual_seed(0)
    backbone = SmallCNN(width=4)
    for stage in backbone.stages:
        for name, module in stage.named_children():
            if isinstance(module, nn.BatchNorm2d) and not norm:
                setattr(stage, name, nn.GroupNorm(1, module.num_features))
    return ComposedMethod(
        Classifier(backbone, 3), [LossTerm("ce", CrossEntropyLoss(), share)], ClassWeighting(COUNTS, "inverse")
    )


def train(
    method: ComposedMethod, updates: int = 1, *, start: int = 0, stop: int | None = None, **settings: Any
) -> list[Tensor]:
    """All weights before update `start` and after each until `stop`, of SGD without momentum and decay."""
    arguments = {name: settings.pop(name) for name in ("average", "scaler") if name in settings}
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    pixels = np.random.default_rng(0).integers(0, 256, (len(targets), 3, 8, 8), dtype=np.uint8)
    data = TrainingData(
        ResidentStore(torch.from_numpy(pixels)),
        targets,
        torch.zeros(len(targets), dtype=torch.bool),
        torch.ones(len(targets)),
        parse_views("crop", image_size=8),
        torch.full((3,), 0.5),
        torch.full((3,), 0.3),
    )
    config = OptimizationConfig(
        **{"lr": RATE, "momentum": 0.0, "weight_decay": 0.0, "sched": "constant", "warmup_epochs": 0, **settings}
    )
    batches = TrainingBatches(EpochSampler(targets.numpy()), batch_size=16, epochs=1, updates=updates)
    optimizer = build_optimizer(method, config)
    steps = training_steps(method, method, optimizer, data, batches, config, seed=0, start=start, **arguments)
    return [weights(method), *(weights(method) for _ in islice(steps, stop))]


def weights(method: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in method.parameters()])


def step(method: ComposedMethod, **settings: Any) -> Tensor:
    """What the first update adds to the weights, divided by the learning rate."""
    before, after = train(method, **settings)
    return (after - before) / RATE


def count_passes(method: nn.Module) -> list[int]:
    """A list that every forward pass makes longer."""
    passes: list[int] = []
    method.register_forward_hook(lambda *_: passes.append(1))
    return passes


@pytest.mark.parametrize(("start", "first"), [(0.0, 0), (0.14, 7), (0.5, 25), (0.98, 49)])
def test_it_acts_from_its_share_of_training_on(start: float, first: int) -> None:
    plain, late = network(), network()
    passes = count_passes(late)
    without, with_it = train(plain, 50), train(late, 50, sam=0.1, sam_from=start)
    same = [torch.equal(a, b) for a, b in zip(without[1:], with_it[1:], strict=True)]
    assert same == [True] * first + [False] * (50 - first)
    assert len(passes) == 50 + (50 - first)


def test_without_it_there_is_one_pass_an_update() -> None:
    method = network()
    passes = count_passes(method)
    train(method, 3)
    assert len(passes) == 3


def test_both_passes_see_the_same_images_and_draw_the_same_numbers() -> None:
    method, seen = network(), []
    method.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].views.clone(), torch.rand(3))))
    train(method, 2, sam=0.5, grad_accum_steps=2)
    assert len(seen) == 8
    for update in (seen[:4], seen[4:]):
        for first, second in zip(update[:2], update[2:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(seen[0][1], seen[4][1])


def test_parts_of_a_batch_are_perturbed_together() -> None:
    whole, parts = (step(network(), sam=0.5, grad_accum_steps=n) for n in (1, 4))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert float((whole - step(network())).norm()) > 1e-2 * float(whole.norm())


def test_the_second_gradient_is_clipped() -> None:
    free, clipped = step(network(), sam=0.5), step(network(), sam=0.5, clip_grad=0.1)
    assert float(free.norm()) > 0.2
    torch.testing.assert_close(clipped, free * (0.1 / free.norm()), rtol=1e-4, atol=1e-5)


def test_batch_norm_moves_once_an_update_and_as_without() -> None:
    plain, sharp = network(norm=True), network(norm=True)
    train(plain, 1)
    train(sharp, 1, sam=0.5)
    buffers = dict(plain.named_buffers())
    assert any(name.endswith("num_batches_tracked") for name in buffers)
    for name, buffer in sharp.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_a_scaled_loss_gives_the_same_update() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    assert torch.equal(step(network(), sam=0.5, scaler=scaler), step(network(), sam=0.5))


def test_a_loss_scaled_beyond_the_finite_is_passed_by_and_the_scale_lowered() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    states = train(network(share=1e3), 20, lr=1e-5, sam=0.5, scaler=scaler)
    skipped = sum(torch.equal(a, b) for a, b in pairwise(states))
    assert 8 < skipped < 20
    assert scaler.get_scale() == pytest.approx(3e38 / 2**skipped)
    assert torch.isfinite(torch.stack(states)).all()


def test_bf16_sees_the_perturbed_weights() -> None:
    plain, sharp = step(network()), step(network(), sam=2.0)
    low = step(network(), sam=2.0, amp="bf16")
    assert float((low - sharp).norm()) < 0.1 * float((plain - sharp).norm())


def test_the_average_follows_the_weights_that_were_put_back() -> None:
    method = network()
    average = MovingAverage(method.classifier, 0.9)
    first, second = train(method, average=average, sam=0.5)
    torch.testing.assert_close(weights(average), 0.1 * first + 0.9 * second)


def test_a_compiled_method_takes_the_same_steps() -> None:
    method = network(norm=True)
    method.compile(backend="eager")
    torch.testing.assert_close(train(method, 2, sam=0.5), train(network(norm=True), 2, sam=0.5))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_training_goes_on_at_any_update(k: int) -> None:
    settings: dict[str, Any] = {"sam": 0.5, "sam_from": 0.25}
    whole, broken, again = network(norm=True), network(norm=True), network(norm=True)
    expected = train(whole, 4, **settings)[-1]
    train(broken, 4, stop=k, **settings)
    again.load_state_dict(broken.state_dict())
    assert torch.equal(train(again, 4, start=k, **settings)[-1], expected)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name


def test_two_ranks_stay_alike_and_do_what_one_does(tmp_path: Path) -> None:
    script = str(Path(__file__).parent / "sharpness_on_ranks.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for start, prefix in ((ranks, "two"), ([], "one")):
        process = subprocess.run(
            [sys.executable, *start, script, str(tmp_path / prefix)], env=environment, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
    one, first, second = (np.load(tmp_path / f"{name}.npy") for name in ("one0", "two0", "two1"))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sam": 0.0}, "expected --sam > 0"),
        ({"sam": -0.1}, "expected --sam > 0"),
        ({"sam": float("nan")}, "expected --sam > 0"),
        ({"sam": 0.1, "sam_from": 1.0}, r"expected --sam-from in \[0, 1\)"),
        ({"sam": 0.1, "sam_from": -0.5}, r"expected --sam-from in \[0, 1\)"),
        ({"sam_from": 0.5}, "expected --sam RHO with --sam-from"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_optimization(OptimizationConfig(**settings))  # type: ignore[arg-type]
    check_optimization(OptimizationConfig(sam=0.1, sam_from=0.75))
