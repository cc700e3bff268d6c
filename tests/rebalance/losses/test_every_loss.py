"""What every classification, angular and contrastive loss has in common, checked on every one of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rebalance import losses

COUNTS = [500, 120, 30, 8, 1]
C = len(COUNTS)
WEIGHT = [0.2, 0.5, 1.0, 1.5, 1.8]

# Name → module for given counts, made with its defaults. Angular losses take cosines in place of logits.
ON_LOGITS: dict[str, Callable[..., nn.Module]] = {
    "ArcFaceLoss": lambda counts, **k: losses.ArcFaceLoss(**k),
    "ArcFaceLoss straight-through": lambda counts, **k: losses.ArcFaceLoss(straight_through=True, **k),
    "BalancedSoftmaxLoss": losses.BalancedSoftmaxLoss,
    "ClassBalancedFocalLoss": losses.ClassBalancedFocalLoss,
    "ClassBalancedSigmoidLoss": losses.ClassBalancedSigmoidLoss,
    "ClassBalancedSoftmaxLoss": losses.ClassBalancedSoftmaxLoss,
    "CosFaceLoss": lambda counts, **k: losses.CosFaceLoss(**k),
    "CrossEntropyLoss": lambda counts, **k: losses.CrossEntropyLoss(**k),
    "FocalSigmoidLoss": lambda counts, **k: losses.FocalSigmoidLoss(**k),
    "FocalSoftmaxLoss": lambda counts, **k: losses.FocalSoftmaxLoss(**k),
    "FocalSoftmaxLoss detached": lambda counts, **k: losses.FocalSoftmaxLoss(detach_modulator=True, **k),
    "FocalSoftmaxLoss weight inside": lambda counts, **k: losses.FocalSoftmaxLoss(weight_in_modulator=True, **k),
    "LDAMLoss": losses.LDAMLoss,
    "LDAMLoss prescaled": lambda counts, **k: losses.LDAMLoss(counts, prescaled=True, **k),
    "LabelAwareSmoothingLoss": losses.LabelAwareSmoothingLoss,
    "LogitAdjustmentLoss": losses.LogitAdjustmentLoss,
    "PriorCELoss": losses.PriorCELoss,
    "SigmoidCrossEntropyLoss": lambda counts, **k: losses.SigmoidCrossEntropyLoss(**k),
    "SphereFaceLoss": lambda counts, **k: WithNorms(losses.SphereFaceLoss(**k).eval()),
}
ON_VIEWS: dict[str, Callable[..., nn.Module]] = {
    "SimCLRLoss": losses.SimCLRLoss,
    "SupConLoss": losses.SupConLoss,
    "SupConLoss one": lambda **k: losses.SupConLoss(mode="one", **k),
    "SupConPMLLoss": losses.SupConPMLLoss,
}
TAKES_WEIGHT = [name for name in ON_LOGITS if not name.startswith("ClassBalanced")]


class WithNorms(nn.Module):
    """SphereFace, every feature of length 2."""

    def __init__(self, loss: losses.SphereFaceLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, cosines: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        norms = torch.full(targets.shape, 2.0, dtype=cosines.dtype, device=cosines.device)
        return self.loss(cosines, targets, norms, reduction=reduction)


def batch(batch_size: int = 7, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Scores that are cosines and logits alike, with every class among the targets."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch_size, C, generator=generator, dtype=torch.float64) * 1.8 - 0.9
    return scores.to(dtype), torch.arange(batch_size) % C


def unit_views(batch_size: int = 6, n_views: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    views = torch.randn(batch_size, n_views, 8, generator=generator, dtype=torch.float64)
    return nn.functional.normalize(views, dim=2).to(dtype), torch.tensor([0, 1, 0, 2, 1, 0])[:batch_size]


def gradient(module: nn.Module, scores: Tensor, targets: Tensor, reduction: str = "mean") -> tuple[Tensor, Tensor]:
    scores = scores.detach().clone().requires_grad_()
    loss = module(scores, targets, reduction=reduction)
    (grad,) = torch.autograd.grad(loss, scores)
    return loss.detach(), grad


def test_lists_above_name_every_loss() -> None:
    tested = {name.split()[0] for name in [*ON_LOGITS, *ON_VIEWS]} | {"AMSoftmaxLoss"}
    declared = {name for name in losses.__all__ if name.endswith("Loss")}
    elsewhere = {"BalancedContrastiveLoss", "PaCoLoss", "ResidualLoss"}  # their inputs are their own
    assert declared - elsewhere == tested


def test_all_is_sorted_and_complete() -> None:
    public = {
        name
        for name, value in vars(losses).items()
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
    }
    assert public == set(losses.__all__)
    assert losses.__all__ == [
        *sorted(n for n in losses.__all__ if n[0].isupper()),
        *sorted(n for n in losses.__all__ if n[0].islower()),
    ]


def test_default_call_of_every_function() -> None:
    scores, targets = batch()
    views, labels = unit_views()
    counts = torch.tensor(COUNTS)
    third = {
        "balanced_softmax_loss": losses.log_class_prior(counts),
        "label_aware_smoothing_loss": losses.label_smoothing_by_class(counts),
        "ldam_logits": losses.ldam_margins(counts),
        "ldam_loss": losses.ldam_margins(counts),
        "logit_adjustment_loss": losses.logit_adjustments(counts),
        "sphereface_logits": torch.ones(len(targets)),
        "sphereface_loss": torch.ones(len(targets)),
    }
    for name in losses.__all__:
        function = getattr(losses, name)
        if name in ("simclr_loss", "supcon_loss", "supcon_pml_loss"):
            value = function(views, labels)
        elif name.split("_")[0] in ("paco", "residual", "branch") or name == "balanced_contrastive_loss":
            continue  # their inputs are their own
        elif name.endswith(("_loss", "_logits")) and name != "adjust_logits":
            value = function(scores, targets, *([third[name]] if name in third else []))
            assert value.shape == (scores.shape if name.endswith("_logits") else ())
        elif name == "adjust_logits":
            value = function(scores, counts)
        elif name == "sigmoid_bias":
            value = torch.tensor(function(C))
        elif name == "sphereface_annealing":
            value = function(1)
        elif name.endswith("Loss"):
            continue  # every test below calls them
        else:  # counts → (C,)
            value = function(counts)
            assert value.shape == (C,)
            assert value.dtype == torch.float64
        assert value.isfinite().all()


def test_default_call_of_losses_with_inputs_of_their_own() -> None:
    scores, targets = batch()
    views, _ = unit_views(7)
    counts, branches = torch.tensor(COUNTS), torch.stack([scores, 2 * scores, -scores], dim=1)
    groups = losses.branch_groups(counts)
    prototypes = nn.functional.normalize(torch.eye(C, 8, dtype=torch.float64), dim=1)
    calls = {
        "paco": (
            losses.paco_loss(scores, views, targets, log_prior=losses.paco_log_prior(counts)),
            losses.PaCoLoss(counts)(scores, views, targets),
        ),
        "bcl": (
            losses.balanced_contrastive_loss(views, targets, prototypes),
            losses.BalancedContrastiveLoss()(views, targets, prototypes),
        ),
        "reslt": (
            losses.residual_loss(branches, targets, groups),
            losses.ResidualLoss(groups)(branches, targets),
            0.995 * losses.residual_branch_loss(branches, targets, groups).mean()
            + 0.005 * losses.residual_fused_loss(branches, targets).mean(),
        ),
    }
    for name, values in calls.items():
        assert all(value.shape == () and value.isfinite() and value > 0 for value in values), name
        for value in values[1:]:
            torch.testing.assert_close(value, values[0], msg=name)


@pytest.mark.parametrize("name", ON_LOGITS)
def test_reductions_agree(name: str) -> None:
    scores, targets = batch()
    module = ON_LOGITS[name](COUNTS, weight=WEIGHT) if name in TAKES_WEIGHT else ON_LOGITS[name](COUNTS)
    inner = module.loss if isinstance(module, WithNorms) else module
    per_sample = module(scores, targets, reduction="none")
    assert per_sample.shape == targets.shape
    torch.testing.assert_close(module(scores, targets, reduction="sum"), per_sample.sum())
    torch.testing.assert_close(module(scores, targets), per_sample.sum() / len(targets))
    divisor = inner.weight[targets].sum()
    torch.testing.assert_close(module(scores, targets, reduction="weighted_mean"), per_sample.sum() / divisor)


@pytest.mark.parametrize("name", [name for name in TAKES_WEIGHT if "weight inside" not in name])
def test_class_weight_multiplies_the_sample(name: str) -> None:
    scores, targets = batch()
    plain = ON_LOGITS[name](COUNTS)(scores, targets, reduction="none")
    weighted = ON_LOGITS[name](COUNTS, weight=WEIGHT)(scores, targets, reduction="none")
    torch.testing.assert_close(weighted, plain * torch.tensor(WEIGHT, dtype=torch.float64)[targets])


@pytest.mark.parametrize("name", TAKES_WEIGHT)
def test_unweighted_means_are_one(name: str) -> None:
    scores, targets = batch()
    module = ON_LOGITS[name](COUNTS)
    torch.testing.assert_close(module(scores, targets, reduction="weighted_mean"), module(scores, targets))


@pytest.mark.parametrize(
    "name", [name for name in ON_LOGITS if name.split()[-1] not in ("straight-through", "detached")]
)
def test_gradient_is_the_derivative(name: str) -> None:
    scores, targets = batch()
    module = ON_LOGITS[name](COUNTS)
    assert torch.autograd.gradcheck(lambda z: module(z, targets, reduction="none"), scores.requires_grad_())


@pytest.mark.parametrize("name", ON_VIEWS)
def test_gradient_of_views_is_the_derivative(name: str) -> None:
    views, targets = unit_views()
    module = ON_VIEWS[name]()
    assert torch.autograd.gradcheck(lambda v: module(v, targets, reduction="none"), views.requires_grad_())


@pytest.mark.parametrize("name", ON_LOGITS)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    scores, targets = batch()
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    module = ON_LOGITS[name](COUNTS)
    loss, grad = gradient(module, scores, targets)
    shuffled_loss, shuffled_grad = gradient(module, scores[order], targets[order])
    torch.testing.assert_close(shuffled_loss, loss)
    torch.testing.assert_close(shuffled_grad, grad[order])


@pytest.mark.parametrize("name", ON_LOGITS)
def test_names_of_the_classes_do_not_matter(name: str) -> None:
    scores, targets = batch()
    order = torch.tensor([4, 2, 0, 1, 3])  # new class i is old class order[i]
    loss, grad = gradient(ON_LOGITS[name](COUNTS), scores, targets)
    renamed = ON_LOGITS[name]([COUNTS[i] for i in order])
    renamed_loss, renamed_grad = gradient(renamed, scores[:, order], order.argsort()[targets])
    torch.testing.assert_close(renamed_loss, loss)
    torch.testing.assert_close(renamed_grad, grad[:, order])


@pytest.mark.parametrize("name", ON_VIEWS)
def test_order_of_samples_and_views_does_not_matter(name: str) -> None:
    views, targets = unit_views(n_views=3)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    module = ON_VIEWS[name]()
    per_sample = module(views, targets, reduction="none")
    torch.testing.assert_close(module(views[order], targets[order], reduction="none"), per_sample[order])
    swapped = views[:, [0, 2, 1]] if name == "SupConLoss one" else views[:, [2, 0, 1]]
    torch.testing.assert_close(module(swapped, targets, reduction="none"), per_sample)


@pytest.mark.parametrize("name", ON_LOGITS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    scores, targets = batch(dtype=dtype)
    module = ON_LOGITS[name](COUNTS)
    loss, grad = gradient(module, scores, targets)
    exact, exact_grad = gradient(module, scores.double(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(grad, exact_grad.to(dtype), rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("name", ON_VIEWS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_views_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    views, targets = unit_views(dtype=dtype)
    module = ON_VIEWS[name]()
    loss, grad = gradient(module, views, targets)
    exact, exact_grad = gradient(module, views.double(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(grad, exact_grad.to(dtype), rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("name", [*ON_LOGITS, *ON_VIEWS])
def test_autocast_changes_nothing(name: str) -> None:
    views_of = ON_VIEWS.get(name)
    scores, targets = unit_views(dtype=torch.float32) if views_of else batch(dtype=torch.float32)
    module = views_of() if views_of else ON_LOGITS[name](COUNTS)
    loss, grad = gradient(module, scores, targets)
    inputs = scores.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast_loss = module(inputs, targets)
    (cast_grad,) = torch.autograd.grad(cast_loss, inputs)  # as torch advises: backward is outside
    assert cast_loss.dtype == torch.float32
    assert torch.equal(cast_loss, loss)
    assert torch.equal(cast_grad, grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ON_LOGITS)
def test_saturated_logits_give_finite_loss_and_gradient(name: str, dtype: torch.dtype) -> None:
    rows = [[1e4, -1e4, 0.0, 1e4, -1e4], [-1e4, 1e4, 1e4, 0.0, 1.0], [-1e4] * C, [1e4] * C]
    rows = [row for row in rows for _ in range(C)]
    targets = torch.arange(C).repeat(4)
    scores = torch.tensor(rows, dtype=dtype)
    if "Face" in name:  # takes cosines
        scores = scores.clamp(-1.0, 1.0)
    loss, grad = gradient(ON_LOGITS[name](COUNTS), scores, targets)
    assert loss.isfinite()
    assert grad.isfinite().all()
    for gamma in (0.0, 0.5, 1.0) if "Focal" in name else ():
        loss, grad = gradient(ON_LOGITS[name](COUNTS, gamma=gamma), scores, targets)
        assert loss.isfinite()
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", ON_LOGITS)
def test_small_batches_and_few_classes(name: str) -> None:
    scores, targets = batch()
    module = ON_LOGITS[name](COUNTS)
    one, one_grad = gradient(module, scores[3:4], targets[3:4])
    torch.testing.assert_close(one, module(scores, targets, reduction="none")[3])
    assert one_grad.isfinite().all()
    same_class, grad = gradient(module, scores, torch.full_like(targets, 4))
    assert same_class.isfinite()
    assert grad.isfinite().all()
    single, grad = gradient(ON_LOGITS[name]([9]), scores[:, :1], torch.zeros_like(targets))
    assert single.isfinite()
    assert grad.isfinite().all()


@pytest.mark.parametrize("name", ON_VIEWS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 1)])
def test_small_batches_of_views(name: str, shape: tuple[int, int]) -> None:
    for targets in (torch.arange(shape[0]), torch.zeros(shape[0], dtype=torch.int64)):
        loss, grad = gradient(ON_VIEWS[name](), torch.ones(*shape, 4) / 2, targets)
        assert loss.isfinite()
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", ON_VIEWS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_views_give_finite_loss_and_gradient(name: str, dtype: torch.dtype) -> None:
    views, targets = unit_views(dtype=dtype)
    for extreme in (torch.zeros_like(views), views[:1, :1].expand_as(views), views * 100):
        loss, grad = gradient(ON_VIEWS[name](), extreme, targets)
        assert loss.isfinite()
        assert grad.isfinite().all()


@pytest.mark.parametrize("name", ON_LOGITS)
def test_a_huge_class_survives_half_precision(name: str) -> None:
    counts = [1_281_167, 70_000, 65_505, 2, 1]
    scores, targets = batch(dtype=torch.float16)
    loss, grad = gradient(ON_LOGITS[name](counts), scores, targets)
    exact, _ = gradient(ON_LOGITS[name](counts), scores.double(), targets)
    torch.testing.assert_close(loss.double(), exact, rtol=2e-5, atol=1e-5)
    assert grad.isfinite().all()


@pytest.mark.parametrize("name", ON_LOGITS)
def test_what_derives_from_counts_is_a_float64_buffer_that_is_not_saved(name: str) -> None:
    module = ON_LOGITS[name](COUNTS)
    assert not list(module.parameters())
    assert set(module.state_dict()) <= {"loss.iteration"}
    for key, buffer in module.named_buffers():
        assert buffer.dtype == (torch.int64 if key == "loss.iteration" else torch.float64)


@pytest.mark.parametrize("kind", ["list", "array", "int tensor", "float tensor"])
@pytest.mark.parametrize("name", ON_LOGITS)
def test_counts_and_weights_may_be_any_sequence(name: str, kind: str) -> None:
    convert: Callable[[list[float]], object] = {
        "list": list,
        "array": lambda v: torch.tensor(v).numpy(),
        "int tensor": torch.tensor,
        "float tensor": lambda v: torch.tensor(v, dtype=torch.float64),
    }[kind]
    scores, targets = batch()
    counts = convert(COUNTS)
    weight = {"weight": convert([1, 2, 3, 4, 5])} if name in TAKES_WEIGHT else {}
    loss = ON_LOGITS[name](counts, **weight)(scores, targets)
    reference = ON_LOGITS[name](COUNTS, **{key: [1, 2, 3, 4, 5] for key in weight})(scores, targets)
    torch.testing.assert_close(loss, reference, rtol=0, atol=0)


def test_buffers_share_no_memory_with_what_they_were_made_of() -> None:
    weight = torch.ones(C, dtype=torch.float64)
    module = losses.CrossEntropyLoss(weight)
    weight[0] = 5.0
    assert module.weight is not None
    assert module.weight[0] == 1.0


@pytest.mark.parametrize("name", ON_LOGITS)
def test_inputs_are_left_alone(name: str) -> None:
    scores, targets = batch()
    before = scores.clone(), targets.clone()
    ON_LOGITS[name](COUNTS)(scores, targets)
    assert torch.equal(scores, before[0])
    assert torch.equal(targets, before[1])


@pytest.mark.parametrize("name", ON_LOGITS)
def test_compiles_to_one_graph(name: str) -> None:
    scores, targets = batch(dtype=torch.float32)
    module = ON_LOGITS[name](COUNTS)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(gradient(compiled, scores, targets), gradient(module, scores, targets))


@pytest.mark.parametrize("name", ON_LOGITS)
def test_wrong_input_is_refused_with_what_was_expected(name: str) -> None:
    scores, targets = batch()
    module = ON_LOGITS[name](COUNTS)
    with pytest.raises(ValueError, match=r"expected logits of shape \(B, C\); got \(7, 5, 1\)"):
        module(scores[..., None], targets)
    with pytest.raises(ValueError, match=r"expected targets of shape \(7,\), .*; got \(6,\)"):
        module(scores, targets[:6])
    with pytest.raises(ValueError, match=r"expected int64 targets; got torch.int32; call targets.long\(\)"):
        module(scores, targets.int())
    with pytest.raises(ValueError, match="expected a reduction out of mean, weighted_mean, sum, none; got 'avg'"):
        module(scores, targets, reduction="avg")
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        module(scores, targets + 1)
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        module(scores, torch.full_like(targets, -100))


@pytest.mark.parametrize("name", TAKES_WEIGHT)
def test_weight_of_another_number_of_classes_is_refused(name: str) -> None:
    scores, targets = batch()
    with pytest.raises(ValueError, match=r"expected weight of shape \(5,\), .*; got \(6,\)"):
        ON_LOGITS[name](COUNTS, weight=[1.0] * 6)(scores, targets)


@pytest.mark.parametrize("name", ["BalancedSoftmaxLoss", "LDAMLoss", "LabelAwareSmoothingLoss", "LogitAdjustmentLoss"])
def test_counts_of_another_number_of_classes_are_refused(name: str) -> None:
    scores, targets = batch()
    with pytest.raises(ValueError, match=r"of shape \(5,\), .*; got \(6,\)"):
        ON_LOGITS[name]([*COUNTS, 1])(scores, targets)


@pytest.mark.parametrize("counts", [[], [5, -1], [5, float("nan")], [5, float("inf")]])
@pytest.mark.parametrize("name", ["BalancedSoftmaxLoss", "LDAMLoss", "ClassBalancedFocalLoss", "LogitAdjustmentLoss"])
def test_impossible_counts_are_refused(name: str, counts: list[float]) -> None:
    with pytest.raises(ValueError, match=r"expected .*counts"):
        ON_LOGITS[name](counts)


@pytest.mark.parametrize("name", ["LDAMLoss", "ClassBalancedFocalLoss", "ClassBalancedSoftmaxLoss"])
def test_a_class_without_images_is_refused_where_its_weight_or_margin_is_undefined(name: str) -> None:
    with pytest.raises(ValueError, match="expected at least one image in every class; got 0 images of class 2"):
        ON_LOGITS[name]([5, 3, 0])
