"""Every case of golden/modules.json that is of PaCo or GPaCo: numbers recorded from the original implementations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rebalance.losses.paco import PaCoLoss, paco_log_prior
from rebalance.momentum import MomentumEncoder
from rebalance.queue import FeatureQueue

Golden = Any
"""See the fixture `golden`."""


def paco(golden: Golden) -> PaCoLoss:
    params = golden.inputs["params"]
    return PaCoLoss(
        golden.inputs["cls_num_list"],
        alpha=params["alpha"],
        beta=params["beta"],
        gamma=params["gamma"],
        logit_temperature=params["supt"],
        temperature=params["temperature"],
        base_temperature=params.get("base_temperature"),
        label_smoothing=params.get("smooth", 0.0),
    )


def per_view(logits: Tensor, n_images: int) -> Tensor:
    """Rows in the original's order, view by view, (V·B, C) → (B, V, C), or (B, C) for one view."""
    return logits.unflatten(0, (-1, n_images)).transpose(0, 1).squeeze(1)


@pytest.mark.golden("paco_*", "gpaco_*", without="*3steps")
def test_paco_and_gpaco(golden: Golden) -> None:
    q, k = golden.tensor("q", grad=True), golden.tensor("k", grad=True)
    logits = golden.tensor("sup_logits", grad=True)
    queue = golden.tensor("queue").reshape(-1, q.shape[1])
    targets, queue_targets = golden.ids("labels"), golden.ids("queue_labels")
    loss = paco(golden)(per_view(logits, len(q)), torch.stack([q, k], 1), targets, queue, queue_targets)
    loss.backward()
    golden.close(loss, golden.expected["loss"])
    golden.close(q.grad, golden.expected["grad_q"])
    golden.close(k.grad, golden.expected["grad_k"])
    golden.close(logits.grad, golden.expected["grad_sup_logits"])
    if golden.expected["prior_weight"] is not None:
        prior = paco_log_prior(golden.inputs["cls_num_list"]).exp() - 1e-9
        torch.testing.assert_close(
            prior, torch.tensor(golden.expected["prior_weight"][0], dtype=torch.float64), rtol=1e-6, atol=0
        )


class MocoEncoder(nn.Module):
    """The case's network: images (B, 5) → feature (B, 6) → projection (B, 5)."""

    def __init__(self, projector: nn.Sequential) -> None:
        super().__init__()
        self.body = nn.Linear(5, 6)
        self.fc = projector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.body(images).tanh()
        return feature, F.normalize(self.fc(feature), dim=1)


class Moco(nn.Module):
    """PaCo's or GPaCo's state."""

    def __init__(self, golden: Golden, *, generalized: bool) -> None:
        super().__init__()
        params = golden.inputs["params"]
        if generalized:
            layers = (nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5))
        else:
            layers = (nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5))
        self.encoder_q = MocoEncoder(nn.Sequential(*layers))
        self.encoder_k = None if generalized else MomentumEncoder(self.encoder_q, momentum=params["m"])
        self.linear = nn.Linear(6, params["num_classes"])
        self.queue = FeatureQueue(params["K"], params["dim"], init="official", n_classes=params["num_classes"])
        self.to(golden.dtype)
        self.queue.keys.copy_(golden.tensor("initial_queue"))
        self.queue.targets.copy_(golden.ids("initial_queue_labels"))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) or (B, V, C), and views (B, 2, D)."""
        feature, q = self.encoder_q(first)
        logits = self.linear(feature)
        if self.encoder_k is not None:
            self.encoder_k.update(self.encoder_q)
            _, k = self.encoder_k(second)
        else:
            feature, k = self.encoder_q(second)
            logits = torch.stack([logits, self.linear(feature)], 1)
        return logits, torch.stack([q, k], 1)


def moco_name(name: str) -> str:
    return name.replace("encoder_k.", "encoder_k.encoder.", 1)


@pytest.mark.golden("paco_*3steps", "gpaco_*3steps")
def test_paco_and_gpaco_for_three_updates(golden: Golden) -> None:
    inputs, expected = golden.inputs, golden.expected
    model = Moco(golden, generalized=golden.name.startswith("gpaco"))
    # linear_k is a momentum copy of the classifier that the original keeps and never uses.
    initial = {key: values for key, values in inputs["initial_params"].items() if not key.startswith("linear_k")}
    golden.inputs = {**inputs, "initial_params": initial}
    golden.load(model, "initial_params", moco_name)
    options = inputs["optimizer"]
    optimizer = torch.optim.SGD(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=options["lr"],
        momentum=options["momentum"],
        weight_decay=options["weight_decay"],
    )
    loss_of = paco(golden)
    batches = zip(golden.tensor("im_q"), golden.tensor("im_k"), golden.ids("labels"), expected["steps"], strict=True)
    for first, second, targets, step in batches:
        logits, views = model(first, second)
        keys, key_targets = model.queue()
        loss = loss_of(logits, views, targets, keys, key_targets)
        model.queue.enqueue(views[:, -1], targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        golden.close(loss, step["loss"])
        golden.close(torch.cat([views[:, 0], views[:, 1], keys]), step["features"])
        assert torch.cat([targets, targets, key_targets]).tolist() == step["labels"]
        golden.close(logits if logits.ndim == 2 else logits.transpose(0, 1).flatten(0, 1), step["logits"])
        golden.close(model.queue.keys, step["queue_after"])
        assert model.queue.targets.tolist() == step["queue_labels_after"]
        assert int(model.queue.pointer) == step["queue_ptr_after"]
    state = model.state_dict()
    for theirs, values in expected["final_params"].items():
        if not theirs.startswith("linear_k"):
            golden.close(state[moco_name(theirs)], values)
    model.eval()
    with torch.no_grad():
        feature, _ = model.encoder_q(golden.tensor("im_q")[0])
        golden.close(model.linear(feature), expected["eval_logits_first_batch"])
