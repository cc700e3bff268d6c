"""Cosine and projection heads: values, layouts, features without a direction, precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rebalance.errors import InputError
from rebalance.heads import CosineHead, ProjectionHead, cosine_similarity

FEATURES = torch.tensor([[3.0, 4.0], [0.0, -2.0], [1e-3, 1e-3]], dtype=torch.float64)
WEIGHT = torch.tensor([[1.0, 0.0, -5.0], [0.0, 7.0, -5.0]], dtype=torch.float64)  # (D, C)


def test_cosines_are_those_of_the_angles() -> None:
    h = math.sqrt(0.5)
    expected = torch.tensor([[0.6, 0.8, -1.4 * h], [0.0, -1.0, h], [h, h, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(cosine_similarity(FEATURES, WEIGHT), expected)


def test_lengths_do_not_matter() -> None:
    torch.testing.assert_close(cosine_similarity(FEATURES * 1e-4, WEIGHT * 1e4), cosine_similarity(FEATURES, WEIGHT))


def test_gradient_is_the_derivative() -> None:
    inputs = FEATURES[:2].clone().requires_grad_(), WEIGHT.clone().requires_grad_()
    assert torch.autograd.gradcheck(cosine_similarity, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_dead_feature_has_no_cosine_and_no_gradient(dtype: torch.dtype) -> None:
    features = torch.zeros(2, 3, dtype=dtype)
    features[1] = 1.0
    features.requires_grad_()
    head = CosineHead(3, 4)
    cosines = head(features)
    cosines.sum().backward()
    assert features.grad is not None
    assert head.weight.grad is not None
    assert not cosines[0].any()
    assert not features.grad[0].any()
    assert features.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


def test_a_class_vector_that_has_vanished_has_no_gradient() -> None:
    weight = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    cosine_similarity(FEATURES, weight).sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_half_precision_and_autocast_are_computed_in_float32() -> None:
    features, head = torch.randn(8, 64), CosineHead(64, 10)
    plain = head(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(features), plain)
        assert head(features.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(head(features.bfloat16()), plain, rtol=0, atol=2e-2)


def test_cosine_head_starts_with_class_vectors_of_length_one() -> None:
    head = CosineHead(64, 10)
    assert head.weight.shape == (64, 10)
    torch.testing.assert_close(head.weight.norm(dim=0), torch.ones(10))
    assert head(torch.randn(1, 64)).abs().max() <= 1.0


def test_cosine_head_loads_a_normed_linear_and_a_transposed_linear() -> None:
    linear = torch.nn.Linear(2, 3, bias=False).double()
    head = CosineHead(2, 3).double()
    head.load_state_dict({"weight": linear.weight.t()})
    torch.testing.assert_close(head(FEATURES), F.normalize(FEATURES) @ F.normalize(linear.weight).t())


def test_wrong_layout_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"\(3, 2\) and \(3, 2\); transpose the weight of an nn.Linear"):
        cosine_similarity(FEATURES, WEIGHT.t())


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_projection_has_length_one_and_the_layers_asked_for(n_layers: int, batch_norm: bool) -> None:
    head = ProjectionHead(6, 4, n_hidden=9, n_layers=n_layers, batch_norm=batch_norm)
    projected = head(torch.randn(5, 6))
    assert projected.shape == (5, 4)
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(5))
    linears = [layer for layer in head.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linears] == [9] * (n_layers - 1) + [4]
    norms = [layer for layer in head.layers if isinstance(layer, torch.nn.BatchNorm1d)]
    assert len(norms) == (n_layers - 1 if batch_norm else 0)


def test_projection_is_float32_under_autocast_and_as_wide_as_its_input_by_default() -> None:
    head = ProjectionHead(6)
    assert head.layers[0].weight.shape == (6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = head(torch.randn(5, 6))
    assert projected.dtype == torch.float32
    assert projected.shape == (5, 128)


def test_projection_without_layers_is_refused() -> None:
    with pytest.raises(InputError, match="expected n_layers >= 1; got 0"):
        ProjectionHead(6, n_layers=0)
