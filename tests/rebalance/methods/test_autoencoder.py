from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.batches import TrainingBatches
from pipelines.config_groups import OptimizationConfig
from pipelines.loop import TrainingData, training_steps
from pipelines.optimization import build_optimizer
from rebalance.backbones import Backbone, SmallCNN, UNetEncoder, build_backbone
from rebalance.classifier import Classifier
from rebalance.data.augmentation import parse_views
from rebalance.data.store import ResidentStore
from rebalance.decoder import Decoder
from rebalance.errors import InputError
from rebalance.heads import ProjectionHead
from rebalance.losses import CrossEntropyLoss, FocalSoftmaxLoss, SupConLoss
from rebalance.methods.autoencoder import AutoencoderMethod
from rebalance.methods.base import Batch
from rebalance.methods.batch_mix import BatchMix
from rebalance.methods.composed import ComposedMethod, LossTerm
from rebalance.methods.weighting import ClassWeighting
from rebalance.samplers import EpochSampler

COUNTS = [30, 10, 2]
START = torch.tensor(0.0)
CE = LossTerm("ce", CrossEntropyLoss())


def batch(n: int = 4, weight: Tensor | None = None) -> Batch:
    stream = torch.Generator().manual_seed(0)
    return Batch(
        views=torch.randn(n, 1, 3, 8, 8, generator=stream),
        targets=torch.arange(n) % 3,
        mix=None,
        weight=torch.ones(n) if weight is None else weight,
        synthetic=torch.zeros(n, dtype=torch.bool),
        index=torch.arange(n),
    )


def make(*terms: LossTerm, backbone: Backbone | None = None, skips: bool = False, **options: Any) -> AutoencoderMethod:
    torch.manual_seed(0)
    backbone = backbone or SmallCNN(width=8)
    objective = ComposedMethod(Classifier(backbone, 3), terms or (CE,), ClassWeighting(COUNTS, "inverse"))
    return AutoencoderMethod(objective, Decoder(backbone.stage_channels, skips=skips), **options)


def train(method: AutoencoderMethod, updates: int, **options: Any) -> list[dict[str, Tensor]]:
    """Copies of the state before the training and after each update, with momentum and weight decay."""
    stream = np.random.default_rng(0)
    pixels = torch.from_numpy(stream.integers(0, 256, (42, 3, 8, 8), dtype=np.uint8))
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    data = TrainingData(
        ResidentStore(pixels),
        targets,
        torch.zeros(42, dtype=torch.bool),
        torch.ones(42),
        parse_views("none", image_size=8),
        torch.full((3,), 0.5),
        torch.full((3,), 0.3),
    )
    config = OptimizationConfig(weight_decay=0.01, **options)
    batches = TrainingBatches(EpochSampler(targets.numpy()), batch_size=16, epochs=1, updates=updates)
    optimizer = build_optimizer(method, config)
    steps = training_steps(method, method, optimizer, data, batches, config, seed=0)
    return [copy_of(method), *(copy_of(method) for _ in steps)]


def copy_of(method: AutoencoderMethod) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor], part: str) -> set[bool]:
    """Whether the tensors of a part changed; both where some did."""
    return {not torch.equal(before[name], after[name]) for name in before if part in name}


def test_both_losses_by_hand() -> None:
    method, given = make(reconstruction_weight=0.3), batch(weight=torch.tensor([1.0, 0.5, 0.0, 2.0]))
    method.eval()
    images = given.views[:, 0]
    maps = method.classifier.backbone.stage_maps(images)
    assert method.decoder is not None
    errors = [(method.decoder(maps, (8, 8))[i] - images[i]).pow(2).mean() * given.weight[i] for i in range(4)]
    terms = method(given, START)
    torch.testing.assert_close(terms["reconstruction"], 0.3 * sum(errors) / 4)
    torch.testing.assert_close(terms["ce"], method.objective(given, START)["ce"])
    assert list(terms) == ["ce", "reconstruction"]


def test_end_to_end_trains_everything_all_the_time() -> None:
    states = train(make(), 3)
    for part in ("backbone", "head", "decoder"):
        assert changed(states[0], states[1], part) == {True}
        assert changed(states[-2], states[-1], part) == {True}


@pytest.mark.parametrize("backbone", [SmallCNN(width=8), UNetEncoder(width=4, n_stages=3)])
@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_separate_leaves_the_head_first_and_then_the_encoder_to_the_last_bit(backbone: Backbone, opt: str) -> None:
    states = train(make(backbone=backbone, stage="separate", pretraining=0.5), 8, opt=opt)
    for before, after in pairwise(states[:5]):
        assert changed(before, after, "backbone") == {True}  # batch-norm statistics and the number of batches too
        assert changed(before, after, "decoder") == {True}
        assert changed(before, after, ".head.") == {False}
    for before, after in pairwise(states[4:]):
        assert changed(before, after, "backbone") == {False}
        assert changed(before, after, "decoder") == {False}
        assert changed(before, after, ".head.") == {True}


def test_an_evaluation_between_two_updates_does_not_wake_the_encoder() -> None:
    method = make(stage="separate")
    method.before_step(0.9)
    before = {name: tensor.clone() for name, tensor in method.classifier.backbone.state_dict().items()}
    method.classifier.train()  # what an evaluation leaves behind
    method.before_step(0.95)
    method(batch(), START)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.classifier.backbone.state_dict().items())


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_separate_gives_every_parameter_a_gradient_and_the_same_terms(
    progress: float, norm_behind_pooling: Backbone
) -> None:
    method = make(CE, LossTerm("focal", FocalSoftmaxLoss()), backbone=norm_behind_pooling, stage="separate")
    method.before_step(progress)
    terms = method(batch(), START)
    assert set(terms) == {"ce", "focal", "reconstruction"}
    assert [name for name, value in terms.items() if float(value.detach())] == (
        ["ce", "focal"] if progress else ["reconstruction"]
    )
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_the_classifier_alone_has_no_decoder_and_no_reconstruction() -> None:
    method = make(stage="classifier")
    assert not any("decoder" in name for name in method.state_dict())
    assert list(method(batch(), START)) == ["ce"]
    assert method.pictures(batch().views[:, 0]) == {}


def test_the_decoder_is_not_part_of_the_classifier() -> None:
    method = make().eval()
    images = batch().views[:, 0]
    classifier = Classifier(SmallCNN(width=8), 3).eval()
    classifier.load_state_dict(method.classifier.state_dict())
    assert torch.equal(classifier(images), method.predict(images))


@pytest.mark.parametrize("name", ["small_cnn", "unet", "mobilenet_v2", "shufflenet_v2_x0_5", "resnet20", "resnet18"])
@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("size", [8, 19])
def test_any_backbone_and_size_is_decoded(name: str, skips: bool, size: int) -> None:
    backbone = build_backbone(name, image_size=size)
    decoder = Decoder(backbone.stage_channels, skips=skips)
    maps = backbone.stage_maps(torch.randn(2, 3, size, size))
    assert decoder(maps, (size, size)).shape == (2, 3, size, size)


def test_without_skips_only_the_last_maps_are_read() -> None:
    backbone = SmallCNN(width=8)
    maps = backbone.stage_maps(torch.randn(2, 3, 8, 8))
    others = [torch.zeros_like(part) for part in maps[:-1]] + maps[-1:]
    for skips, same in ((False, True), (True, False)):
        decoder = Decoder(backbone.stage_channels, skips=skips).eval()
        assert torch.equal(decoder(maps, (8, 8)), decoder(others, (8, 8))) == same


def test_pictures_are_images_over_their_reconstructions() -> None:
    method, images = make().eval(), batch().views[:, 0]
    (pictures,) = method.pictures(images).values()
    assert pictures.shape == (2, 4, 3, 8, 8)
    assert torch.equal(pictures[0], images)
    errors = (pictures[1] - images).pow(2).mean()
    torch.testing.assert_close(errors, method(batch(), START)["reconstruction"])


def test_reconstruction_gets_better() -> None:
    method = make()
    given, optimizer = batch(), torch.optim.Adam(method.parameters(), lr=0.01)
    errors = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = method(given, START)["reconstruction"]
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "end-to-end"}, "a stage; got 'end-to-end'; did you mean 'end_to_end'"),
        ({"reconstruction_weight": 0.0}, "reconstruction_weight > 0; got 0; without reconstruction: stage=classifier"),
        ({"pretraining": 1.0}, r"pretraining in \(0, 1\); got 1"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**options)


def test_contrasts_and_mixes_are_refused() -> None:
    supcon = LossTerm("supcon", SupConLoss(), 1.0, "views")
    classifier, weighting = Classifier(SmallCNN(width=8), 3), ClassWeighting(COUNTS)
    contrastive = ComposedMethod(classifier, (CE, supcon), weighting, projection=ProjectionHead(32, 4))
    mixed = ComposedMethod(classifier, (CE,), weighting, mix=BatchMix("mixup", COUNTS))
    for objective in (contrastive, mixed):
        with pytest.raises(InputError, match="classification losses for the autoencoder"):
            AutoencoderMethod(objective, Decoder(classifier.backbone.stage_channels))


def test_reconstruction_is_float32_under_autocast() -> None:
    method = make().eval()
    full = method(batch(), START)
    with torch.autocast("cpu", torch.bfloat16):
        half = method(batch(), START)
    for name, value in half.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[name], rtol=0.05, atol=0.05)


def test_normalised_decoders_have_no_bias_to_spare() -> None:
    convolutions = [m for m in Decoder((8, 16)).stages.modules() if isinstance(m, nn.Conv2d)]
    assert all(convolution.bias is None for convolution in convolutions)
