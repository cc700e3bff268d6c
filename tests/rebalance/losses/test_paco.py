from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from rebalance.losses.paco import PaCoLoss, paco_log_prior, paco_loss

COUNTS = [100, 40, 16, 6, 3]


def unit(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(noise, dim=-1).to(dtype)


def batch(n: int = 4, queue: int = 7, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "logits": torch.randn(n, 5, generator=generator, dtype=torch.float64).to(dtype),
        "views": unit(n, 2, 6, seed=seed + 1, dtype=dtype),
        "targets": torch.randint(5, (n,), generator=generator),
        "keys": unit(queue, 6, seed=seed + 2, dtype=dtype),
        "key_targets": torch.randint(5, (queue,), generator=generator),
    }


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def by_hand(
    data: dict[str, Tensor],
    *,
    alpha: float,
    beta: float,
    gamma: float,
    t_s: float,
    t: float,
    t_base: float,
    s: float,
    prior: bool,
) -> list[list[float]]:
    """The formula in plain loops: losses by image and anchor view."""
    logits = data["logits"] if data["logits"].ndim == 3 else data["logits"][:, None]
    views, targets = data["views"].tolist(), data["targets"].tolist()
    contrast = [(i, v, views[i][v], targets[i]) for i in range(len(views)) for v in range(len(views[0]))]
    pairs = zip(data["keys"].tolist(), data["key_targets"].tolist(), strict=True)
    contrast += [(-1, j, key, y) for j, (key, y) in enumerate(pairs)]
    losses = []
    for i, image in enumerate(logits.tolist()):
        losses.append([])
        for v, scores in enumerate(image):
            priors = [math.log(n / sum(COUNTS) + 1e-9) if prior else 0.0 for n in COUNTS]
            centre = [(z + p) / t_s for z, p in zip(scores, priors, strict=True)]
            others = [(key, y) for (a, b, key, y) in contrast if (a, b) != (i, v)]
            pair = [(dot(views[i][v], key) / t, y) for key, y in others]
            denominator = sum(math.exp(z) for z in centre) + gamma * sum(math.exp(z) for z, _ in pair)
            total, weights = 0.0, 0.0
            for c, z in enumerate(centre):
                w = beta * (1 - s if c == targets[i] else s / (len(centre) - 1))
                total, weights = total + w * (z - math.log(denominator)), weights + w
            for z, y in pair:
                if y == targets[i]:
                    total, weights = total + alpha * (z - math.log(denominator)), weights + alpha
            losses[-1].append(-t / t_base * total / weights)
    return losses


@pytest.mark.parametrize("generalized", [False, True])
@pytest.mark.parametrize(("gamma", "t_s", "t_base", "s", "prior"), [(1, 1, 0.2, 0, True), (0.3, 2, 0.4, 0.1, False)])
def test_equals_the_formula_written_as_loops(
    generalized: bool, gamma: float, t_s: float, t_base: float, s: float, prior: bool
) -> None:
    data = batch()
    if generalized:
        data["logits"] = torch.stack([data["logits"], data["logits"].flip(1)], 1)
    log_prior = paco_log_prior(COUNTS) if prior else None
    options = {"alpha": 0.05, "beta": 0.7, "gamma": gamma}
    losses = paco_loss(
        **data,
        **options,
        log_prior=log_prior,
        logit_temperature=t_s,
        temperature=0.2,
        base_temperature=t_base,
        label_smoothing=s,
        reduction="none",
    )
    expected = by_hand(data, **options, t_s=t_s, t=0.2, t_base=t_base, s=s, prior=prior)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64).mean(1), rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_the_value() -> None:
    data = batch(3, 4)
    tensors = [data[key].requires_grad_() for key in ("logits", "views", "keys")]

    def loss(logits: Tensor, views: Tensor, keys: Tensor) -> Tensor:
        return paco_loss(logits, views, data["targets"], keys, data["key_targets"], log_prior=paco_log_prior(COUNTS))

    assert torch.autograd.gradcheck(loss, tensors)


def test_without_pairs_it_is_balanced_softmax() -> None:
    data = batch()
    loss = PaCoLoss(COUNTS, alpha=0.0, gamma=0.0)(**data)
    expected = F.cross_entropy(data["logits"] + torch.tensor(COUNTS).double().log(), data["targets"])
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-7)


def test_gpaco_is_the_mean_of_paco_with_either_view_as_anchor() -> None:
    data = batch()
    other = data["logits"].flip(0)
    swapped = {**data, "logits": other, "views": data["views"].flip(1)}
    both = {**data, "logits": torch.stack([data["logits"], other], 1)}
    torch.testing.assert_close(paco_loss(**both), (paco_loss(**data) + paco_loss(**swapped)) / 2)


def test_does_not_depend_on_names_of_classes_or_order_of_rows() -> None:
    data = batch()
    names = torch.tensor([3, 0, 4, 1, 2])  # new name of each class
    counts = torch.empty(5).index_copy(0, names, torch.tensor(COUNTS).float())
    renamed = {
        **data,
        "logits": torch.empty_like(data["logits"]).index_copy(1, names, data["logits"]),
        "targets": names[data["targets"]],
        "key_targets": names[data["key_targets"]],
    }
    plain = PaCoLoss(COUNTS)(**data, reduction="none")
    torch.testing.assert_close(PaCoLoss(counts)(**renamed, reduction="none"), plain)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = {**data, **{key: data[key][order] for key in ("logits", "views", "targets")}}
    shuffled |= {"keys": data["keys"].flip(0), "key_targets": data["key_targets"].flip(0)}
    torch.testing.assert_close(PaCoLoss(COUNTS)(**shuffled, reduction="none"), plain[order])


def test_reductions_belong_together() -> None:
    data = batch()
    losses = paco_loss(**data, reduction="none")
    assert losses.shape == (4,)
    torch.testing.assert_close(paco_loss(**data), losses.mean())
    torch.testing.assert_close(paco_loss(**data, reduction="sum"), losses.sum())


def test_an_empty_queue_is_no_queue() -> None:
    data = batch(queue=0)
    torch.testing.assert_close(paco_loss(**data), paco_loss(data["logits"], data["views"], data["targets"]))


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("temperature", [0.2, 0.005])
def test_one_image_or_one_class_stays_finite_in_float32(n: int, temperature: float) -> None:
    data = batch(n, dtype=torch.float32)
    data["targets"].fill_(2)
    data["key_targets"].fill_(2)
    data["logits"].requires_grad_()
    data["views"].requires_grad_()
    loss = paco_loss(**data, temperature=temperature)
    loss.backward()
    assert loss.isfinite()
    assert data["logits"].grad.isfinite().all()
    assert data["views"].grad.isfinite().all()


def test_opposite_embeddings_at_a_low_temperature_give_no_nan() -> None:
    views = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]).requires_grad_()
    loss = paco_loss(torch.zeros(1, 3), views, torch.tensor([0]), temperature=0.001)
    loss.backward()
    assert loss.isfinite()
    assert views.grad.isfinite().all()


def test_computes_in_float32_under_autocast_and_for_bfloat16() -> None:
    data = batch(dtype=torch.float32)
    plain = PaCoLoss(COUNTS)(**data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(PaCoLoss(COUNTS)(**data), plain)
    halves = {key: value.bfloat16() if value.is_floating_point() else value for key, value in data.items()}
    loss = PaCoLoss(COUNTS)(**halves)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=0.02, atol=0.0)


def test_wrong_shapes_and_numbers_are_refused() -> None:
    data = batch()
    with pytest.raises(ValueError, match=r"expected views \(B, V, D\).*got views \(4, 6\)"):
        paco_loss(**{**data, "views": data["views"][:, 0]})
    with pytest.raises(ValueError, match=r"expected keys \(Q, 6\).*got \(7, 6\) and None"):
        paco_loss(data["logits"], data["views"], data["targets"], data["keys"])
    with pytest.raises(ValueError, match=r"expected targets of shape \(4,\)"):
        paco_loss(**{**data, "targets": data["targets"][:3]})
    with pytest.raises(ValueError, match=r"expected temperatures > 0; got 0"):
        paco_loss(**data, temperature=0)
    with pytest.raises(ValueError, match=r"expected alpha, beta, gamma >= 0.*got -1"):
        paco_loss(**data, alpha=-1)
    with pytest.raises(ValueError, match="expected a reduction"):
        paco_loss(**data, reduction="median")


def test_a_queue_that_grows_is_compiled_for_any_length() -> None:
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(paco_loss, backend=counter)
    for length in range(6, 66, 6):
        data = batch(queue=length)
        torch.testing.assert_close(compiled(**data), paco_loss(**data))
    assert counter.frame_count == 2
