"""Groups of settings that several commands share. Nothing heavy is imported: the command line reads these first."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from pipelines.checked_settings import CheckedSettings
from rebalance.cpus import usual_workers


@dataclass(frozen=True, kw_only=True)
class DataConfig(CheckedSettings):
    """Where the images are, and how they are read."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """`digits`, a folder with one sub-folder per class (or train/val/test folders of such), a list file
    (`path label` lines, or CSV), or `cifar10` / `cifar100` in torchvision's layout under --root."""
    root: Path | None = None
    """Folder that the paths of list files are relative to, or that holds torchvision's CIFAR files."""
    val_list: Path | None = None
    """List file of the validation split."""
    test_list: Path | None = None
    """List file of the test split."""
    path_column: str = "path"
    """CSV column of the image path."""
    label_column: str = "label"
    """CSV column of the class name or number."""
    split_column: str = "split"
    """CSV column that says train, val or test, if there is one."""
    imbalance_factor: float | None = None
    """Cut the training split to a long tail: n_max / n_min, 100 for "IF 100". For digits 50 unless given; 1 leaves
    the data as they are."""
    profile: Literal["exp", "step"] = "exp"
    """Shape of that long tail."""
    subset_seed: int = 0
    """Which images the cut and the held-out splits take; 0 gives the published subsets of CIFAR."""
    val_fraction: float = 0.0
    """Share of the training images held out to select the epoch by, which has to give at least 5 of every class: 0.2
    needs about 25 training images of each. 0: all of them train and the last epoch counts."""
    test_fraction: float | None = None
    """Share of the training images held out as test where the data have no test split. `run` takes 0.2 unless given."""
    image_size: int | None = None
    """Height and width, px: shorter side scaled, centre cropped. By default the images' own size up to 64, else 224."""
    augment: str = "auto"
    """Augmentation of training images, joined by +: none, crop, flip, cutout, … auto: crop for digits, crop+flip
    otherwise."""
    skip_corrupt: bool = False
    """Go on without images that cannot be read, and record them."""
    cache_gb: float = 4.0
    """Keep the decoded images in memory up to this size; larger data are decoded by workers as they are needed."""
    workers: Annotated[int, arg(aliases=["-j"])] = field(default_factory=usual_workers)
    """Threads and processes that decode images; by default one for each CPU, at most 8."""
    many: int = 100
    """A class with more training images is many-shot, in tables and reports."""
    few: int = 20
    """A class with fewer training images is few-shot."""
    download: bool = False
    """Fetch cifar10 / cifar100 if they are not on disk."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(CheckedSettings):
    """The network."""

    model: str = "auto"
    """Backbone: small_cnn, resnet20, resnet32, resnet56, unet; a ResNet, ResNeXt, ConvNeXt, DenseNet, EfficientNet,
    MobileNet, RegNet or ShuffleNet of torchvision, such as resnet50, convnext_tiny or efficientnet_b0; timm/NAME, where
    timm is installed; transformers, with --weights; or package.module:Class, a Backbone of your own. auto: by image
    size, small_cnn up to 16 px, resnet32 up to 64 px, else resnet50."""
    stem: Literal["auto", "imagenet", "small"] = "auto"
    """First layers of networks of torchvision and timm: as published, or small, without their stride of 4 (of
    torchvision's ResNets, 3×3 in place of 7×7 and max-pool); auto: small up to 64 px."""
    weights: Annotated[Path | None, arg(aliases=["--initial-checkpoint"])] = None
    """Local weights file of the network to start from, or with --model transformers the folder of a vision model, such
    as ViT, DINOv2, CLIP, Swin or ConvNeXt."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(CheckedSettings):
    """What is optimised, and how classes are balanced: rule, strength, schedule; for sampler and for loss."""

    method: str | None = None
    """The recipe; `rebalance methods` lists them. By default balanced_mixup, balanced_softmax with --rsg, or composed
    where --loss is given."""
    option: Annotated[UseAppendAction[tuple[str, ...]], arg(aliases=["-o"], metavar="NAME=VALUE")] = ()
    """An option of the recipe, such as -o max_margin=0.4."""
    loss: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME[:SHARE]")] = ()
    """A loss in place of the recipe's, with its share, such as --loss ldam:0.1 --loss supcon:0.9; options follow a
    colon, ldam:0.1:max_margin=0.4."""
    head: Literal["linear", "cosine"] | None = None
    """Classification head; by default what the losses need."""
    head_scale: float | None = None
    """Factor from cosines to logits; by default that of the loss, or 30."""
    rsg: bool = False
    """Generate rare features inside the network (RSG), with any method that is composed; the method rsg does anyway."""
    rsg_start: float | None = None
    """Share of training from which they are generated; 0.8 by default."""
    mix: Annotated[str | None, arg(metavar="NAME[:ALPHA]")] = None
    """Mix the images of a batch: mixup, cutmix, remix, cmo, or none; ALPHA:PROBABILITY:UNTIL may follow."""
    sampler_rule: Literal["none", "inverse", "sqrt-inverse", "effective-number", "custom"] = "none"
    """Draw images by class weights."""
    sampler_strength: float = 1.0
    """Exponent of the sampler's rule: 0 draws images alike, 1 follows the rule (inverse: classes alike)."""
    sampler_schedule: str = "none"
    """When the sampler's rule acts: none (always), deferred:0.8 (from 80 % of training on), progressive."""
    loss_rule: Literal["none", "inverse", "sqrt-inverse", "effective-number", "custom"] | None = None
    """Weigh the loss by class; by default as the recipe does."""
    loss_strength: float = 1.0
    """Exponent of the loss's rule."""
    loss_schedule: str | None = None
    """When the loss's rule acts; by default as the recipe does."""
    cb_beta: float | None = None
    """β of the effective number in --sampler-rule and --loss-rule; by default 1 - 1 / n_max."""
    class_weight: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=WEIGHT")] = ()
    """Weight of a class, by name, for rule custom; give one for every class."""
    teacher: Annotated[Path | None, arg(metavar="RUN")] = None
    """Learn from a finished run on the same data, beside the labels (distillation); with any method that is composed.
    An update takes the teacher's forward pass longer."""
    teacher_share: float = 0.5
    """Share of the teacher in the loss; the method has the rest."""
    teacher_temperature: float = 2.0
    """Divides both logits, so that the teacher's small probabilities count."""
    teacher_power: float = 0.5
    """Exponent of the teacher's probabilities; below 1 they are flatter."""

    @property
    def recipe(self) -> str:
        """The method's name, the default resolved."""
        if self.method is not None:
            return self.method
        if self.loss:
            return "composed"
        return "balanced_softmax" if self.rsg else "balanced_mixup"  # rare features are of one class each


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig(CheckedSettings):
    """How long and how fast."""

    epochs: int = 200
    """Passes; one epoch draws as many images as there are real training images, whatever is mixed in."""
    updates: int | None = None
    """Length of training in updates, instead of epochs."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 128
    """Images per update, over all processes and accumulated parts together."""
    grad_accum_steps: int = 1
    """Parts that each process cuts its share of a batch into, to save memory."""
    lr: float | None = None
    """Learning rate; by default base_lr × batch_size / 256."""
    base_lr: float = 0.2
    """Learning rate at 256 images per update (SGD; AdamW takes 1 % of it)."""
    opt: Literal["sgd", "adamw"] = "sgd"
    """Optimiser; SGD with Nesterov momentum."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay; biases and batch-norm parameters are spared."""
    sched: Literal["cosine", "step", "constant"] = "cosine"
    """Learning rate after the warm-up; step: × 0.01 from 80 %, × 0.0001 from 90 % of training on."""
    warmup_epochs: float = 5.0
    """Linear warm-up; at most a quarter of training."""
    clip_grad: float | None = None
    """Largest norm of the gradient."""
    sam: Annotated[float | None, arg(metavar="RHO")] = None
    """Sharpness-aware minimisation: step by the gradient at the worst weights within this distance, for example 0.05
    to 0.8; an update costs twice the time."""
    sam_from: Annotated[float, arg(metavar="SHARE")] = 0.0
    """Share of training from which --sam acts; 0.75 costs a quarter more time instead of twice."""
    model_ema: Annotated[float | None, arg(metavar="DECAY")] = None
    """Average the weights with this decay, for example 0.999, and keep the average as the model."""
    amp: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Precision of the forward pass; losses stay in float32. auto: bf16 for images beyond 16 px where the device
    is known to compute it faster, or in a second's measurement does, else float32; a run keeps it to its end. fp16
    needs a GPU."""
    channels_last: bool = True
    """Memory layout that convolutions prefer."""
    compile: bool = False
    """Compile the method; pays for long trainings only."""
    deterministic: bool = False
    """The same bits in every repetition on one machine, at some speed. Only a GPU needs it: a CPU repeats itself."""


@dataclass(frozen=True, kw_only=True)
class MixingConfig(CheckedSettings):
    """How synthetic images take part in training."""

    synthetic_weight: float = 0.3
    """Loss weight of a synthetic image; a real one weighs 1."""
    real_share: float = 0.9
    """Smallest share of real images in a batch."""
    real_only_last: float = 0.1
    """Share of training, at its end, on real images only."""
    kappa: float | Literal["drawn"] = "drawn"
    """Worth of one synthetic image in priors and margins, which see n_real + kappa × n_synthetic; drawn: what the loss
    sees of one beside what it sees of a real one."""


@dataclass(frozen=True, kw_only=True)
class PlaceConfig(CheckedSettings):
    """Where the run lives and on what it runs; none of this changes a result."""

    output: Path = Path("runs")
    """Folder of all runs."""
    experiment: str | None = None
    """Name of this run's folder; by default made of the command, the data and the method."""
    resume: bool = True
    """Go on with a run that was interrupted; --no-resume starts it again from nothing."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes the GPU if there is one."""
    report_to: str = "tensorboard"
    """Experiment tracker, by accelerate's name: tensorboard, wandb, mlflow, …, or none."""
    checkpoint_updates: int = 200
    """Updates between two checkpoints."""


@dataclass(frozen=True, kw_only=True)
class BudgetConfig(CheckedSettings):
    """How many images each class is given."""

    budget: Annotated[str, arg(metavar="RULE")] = "fill-to-head"
    """fill-to-head, fill-to-median, ratio:K (K per real image), fixed:N (N for each class, up to the head's number),
    effective:RHO (share of the head's effective number), or explicit, with --count."""
    count: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="CLASS=N")] = ()
    """Images of one class, by name, for --budget explicit."""
    worth: float = 1.0
    """Worth of one synthetic image beside a real one, for --budget effective:RHO."""
    max_per_class: int | None = None
    """Upper bound for each class."""
    max_ratio: float | None = None
    """Upper bound for each class, per real image."""
    max_images: int | None = None
    """Upper bound of the sum; all classes are scaled down alike."""
    reserve: float = 0.7
    """Spare candidates planned per wanted image, to make up for rejected ones."""


@dataclass(frozen=True, kw_only=True)
class FilterConfig(CheckedSettings):
    """Which generated images are kept."""

    skip_gate: UseAppendAction[
        tuple[Literal["flat", "duplicate", "hash", "copy", "distance", "third-class", "text"], ...]
    ] = ()
    """A gate to leave out. What is not finite, cannot be decoded, or was objected to by a safety checker is no image,
    and never kept."""
    hash_distance: int = 4
    """Images whose perceptual hashes differ in at most this many of 64 bits count as one; from 32 px up, and fewer
    where real images of a class are as near to one another."""
    distance_quantile: float = 0.975
    """A kept image is no farther from its class's real images than this quantile of theirs from one another."""
    floor: float = 0.5
    """Share of its budget that a class gets even if the distance gate has to be loosened step by step."""
    third_class: float = 0.9
    """Drop an image where the classifier gives this probability to a class that is neither the image's own nor the one
    usually taken for it."""
    clip: Path | None = None
    """Local folder of a CLIP model, in transformers' layout. With it an image has to agree with its class's name as
    the class's real images do; without it there is no such gate."""
    text_quantile: float = 0.025
    """Share of the real images that agree less with their class's name than a kept image has to."""
    distance_in: Literal["classifier", "clip"] = "classifier"
    """Whose features the distances are taken in."""
    features: Path | None = None
    """Run folder whose classifier gives the features; by default one is trained on the real images."""
    feature_updates: int = 1000
    """Length of that training, in updates."""
