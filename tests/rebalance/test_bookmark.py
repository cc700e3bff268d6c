from __future__ import annotations

import torch
from torch import nn

from rebalance.bookmark import bookmark


def test_values_come_back_to_the_bit_and_in_place() -> None:
    tensors = [
        torch.tensor([1.0, -0.0, 1e-45, 3e38, float("nan"), float("inf")]),
        torch.arange(4),
        torch.tensor([True, False]),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        nn.Parameter(torch.randn(3)),
        torch.zeros((), dtype=torch.int64),
    ]
    before = [(t.detach().clone().contiguous().view(-1).view(torch.uint8), t.data_ptr(), t.stride()) for t in tensors]
    put_back = bookmark(tensors)
    for _ in range(2):
        for tensor in tensors:
            nn.init.ones_(tensor)
        put_back()
        for tensor, (values, place, stride) in zip(tensors, before, strict=True):
            assert torch.equal(tensor.detach().contiguous().view(-1).view(torch.uint8), values)
            assert (tensor.data_ptr(), tensor.stride()) == (place, stride)


def test_nothing_is_put_back_to_nothing() -> None:
    bookmark([])()
