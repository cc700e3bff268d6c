"""The class-conditional diffusion model as a scikit-learn style estimator of images: `fit`, then `sample`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from generators.base import MOST_STEPS, Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings, is_grey
from generators.class_conditional_sizes import settings_for
from generators.class_conditional_training import Objective, TrainingSettings, train_class_conditional
from generators.head_to_tail import head_to_tail_jobs
from generators.plan import plan_jobs
from generators.source_images import steps_of
from generators.training_clock import TrainingClock
from rebalance.counts import IntArray
from rebalance.data.pixels import Stack, StackFormat
from rebalance.data.resizing import resize_images
from rebalance.data.table import ImageTable
from rebalance.devices import kept_random_state, pick_device
from rebalance.errors import InputError, RunError


@final
class ClassConditionalDiffusion(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A diffusion model of images given their class, trained on the images themselves; nothing is downloaded.

    Made for `FillSampler(generator=ClassConditionalDiffusion())`. Images are (N, H, W) or (N, H, W, C) with 1 or 3
    channels, or flat rows with `image_shape`; what it makes has their shape and dtype. uint8 is taken as it is; of
    other numbers the smallest and largest pixel become black and white. The network works on squares of at most 64 px:
    other images are scaled to that and back.

    Args:
        image_shape: (H, W) or (H, W, C) of flat rows.
        channels: Of the U-Net at each level; None takes 32, 64 up to 16 px, else 64, 128, 128.
        updates: Length of training; None takes 1,000 up to 16 px, else 20,000, which want a GPU; `fit` warns where it
            will take more than ten minutes.
        batch_size: Images per update; None takes 64 up to 16 px, else 256.
        lr: Learning rate of AdamW; None takes 1e-3 up to 16 px, else 4e-4.
        ema: Decay of the averaged weights, with warm-up.
        label_exponent: Classes are drawn in proportion to n_c to this power in training: 1 as they are, 0 alike;
            below 1 the rarest images are soon learnt by heart.
        label_drop: Share of labels replaced by the null class, for guidance.
        objective: "plain", or "cbdm": rare classes take over what frequent ones vary in, see
            `generators.class_balancing`; takes about twice the time and memory.
        augment: Share of training images that are turned, share that are scaled, and so on; the network is told how,
            so that made images are not, see `generators.told_augmentation`.
        flip: Whether a mirrored image is still one of its class; photographs usually are.
        guidance: Strength of classifier-free guidance; 1 is none, above 3 diversity suffers.
        steps: Sampling steps.
        head_to_tail: Strengths above 0, at most 1, that take turns: how far images of other classes are noised that
            the made ones begin from, see `generators.head_to_tail`; below 0.5 much of the other class stays. The
            images of `fit` are kept for it. None begins from noise.
        sampling_batch: Most images sampled at a time.
        device: "auto", "cpu", "cuda" or "cuda:1".
        verbose: Show the progress of training.
        random_state: An int, a `RandomState` or None; for training.

    Attributes:
        classes_: The labels, sorted, (C,).
        generator_: The trained `generators.class_conditional.ClassConditionalGenerator`.
        n_features_in_: Columns of flat rows; of image stacks their height.

    Raises:
        InputError: Images of another shape, or a class that was not in `fit`.
        RunError: A training whose loss is not finite.

    Examples:
        >>> generator = ClassConditionalDiffusion(updates=2, channels=(8, 16), steps=2, random_state=0)
        >>> images, labels = np.zeros((4, 8, 8), dtype=np.uint8), ["cat", "cat", "cat", "owl"]
        >>> generator.fit(images, labels).sample(["owl", "owl"], random_state=0).shape
        (2, 8, 8)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "image_shape": [tuple, list, None],
        "channels": [tuple, list, None],
        "updates": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "ema": [Interval(Real, 0, 1, closed="left")],
        "label_exponent": [Interval(Real, 0, 1, closed="both")],
        "label_drop": [Interval(Real, 0, 0.9, closed="both")],
        "objective": [StrOptions({"plain", "cbdm"})],
        "augment": [Interval(Real, 0, 1, closed="both")],
        "flip": ["boolean"],
        "guidance": [Interval(Real, 1, None, closed="left")],
        "steps": [Interval(Integral, 2, MOST_STEPS, closed="both")],
        "head_to_tail": ["array-like", None],
        "sampling_batch": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }
    classes_: np.ndarray[Any, Any]
    generator_: ClassConditionalGenerator
    _format: StackFormat
    _lenders: ImageTable | None

    def __init__(
        self,
        *,
        image_shape: Sequence[int] | None = None,
        channels: Sequence[int] | None = None,
        updates: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        ema: float = 0.999,
        label_exponent: float = 1.0,
        label_drop: float = 0.1,
        objective: Objective = "plain",
        augment: float = 0.0,
        flip: bool = False,
        guidance: float = 2.0,
        steps: int = 20,
        head_to_tail: Sequence[float] | None = None,
        sampling_batch: int = 128,
        device: str = "auto",
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.image_shape = image_shape
        self.channels = channels
        self.updates = updates
        self.batch_size = batch_size
        self.lr = lr
        self.ema = ema
        self.label_exponent = label_exponent
        self.label_drop = label_drop
        self.objective = objective
        self.augment = augment
        self.flip = flip
        self.guidance = guidance
        self.steps = steps
        self.head_to_tail = head_to_tail
        self.sampling_batch = sampling_batch
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, images: Any, labels: Any) -> Self:
        """Train.

        Args:
            images: The images.
            labels: Their labels, of any kind.

        Returns:
            This object.
        """
        if hasattr(images, "iloc"):
            raise InputError("images as an array", "a frame", "read the images: np.stack([…])")
        self._strengths()
        stack, labels = validate_data(self, images, labels, dtype="numeric", allow_nd=True)
        self._format = StackFormat.of(stack, self.image_shape)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        sizes = settings_for(
            max(self._format.image_shape[:2]), tuple(self.channels) if self.channels is not None else None
        )
        device = pick_device(self.device)
        pixels = torch.from_numpy(self._format.to_rgb(stack).copy()).permute(0, 3, 1, 2)
        names = tuple(map(str, self.classes_.tolist()))
        network = NetworkSettings(
            names,
            sizes.image_size,
            sizes.channels,
            1 if is_grey(pixels) else 3,
            layers=sizes.layers,
            told=self.augment > 0,
        )
        training = TrainingSettings(
            updates=self.updates or sizes.updates,
            batch_size=self.batch_size or sizes.batch_size,
            lr=float(self.lr or sizes.lr),
            ema=float(self.ema),
            label_exponent=float(self.label_exponent),
            label_drop=float(self.label_drop),
            objective=self.objective,
            augment=float(self.augment),
            flip=bool(self.flip),
            seed=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
        )
        squares = resize_images(pixels, network.image_size)
        self._lenders = None
        if self._strengths():
            self._lenders = ImageTable(squares.permute(0, 2, 3, 1).numpy(), codes.astype(np.int64), names)
        clock = TrainingClock(training.updates, device)
        with tqdm(total=training.updates, disable=not self.verbose, unit=" updates") as bar, kept_random_state(device):

            def progress(n: int, loss: float) -> None:
                bar.update(n)
                clock.update()

            unet = train_class_conditional(
                squares.to(device),
                torch.from_numpy(codes.astype(np.int64)),
                network,
                training,
                progress=progress,
            )
        self.generator_ = ClassConditionalGenerator(unet.cpu(), network)
        return self

    def sample(self, labels: Any, *, random_state: Any = None) -> Stack:
        """New images, one for each label.

        Args:
            labels: Labels that were in `fit`, (M,).
            random_state: An int, a `RandomState` or None.

        Returns:
            Images of the shape and the dtype of those in `fit`, M of them.
        """
        check_is_fitted(self)
        self._strengths()
        wanted = np.asarray(labels)
        if wanted.ndim != 1:
            raise InputError(
                "a label for each image to make, (M,)",
                repr(labels) if wanted.ndim == 0 else f"labels of shape {wanted.shape}",
                "pass a list, for example [label] * 10",
            )
        unknown = np.setdiff1d(wanted, self.classes_)
        if unknown.size:
            raise InputError(
                f"classes that were in fit: {', '.join(map(str, self.classes_))}", repr(unknown[0].item()), "fit again"
            )
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        codes = np.searchsorted(self.classes_, wanted).astype(np.int64) if wanted.size else np.zeros(0, dtype=np.int64)
        plan = self._plan(np.bincount(codes, minlength=len(self.classes_)), seed)
        jobs = [job for of_class in plan for job in of_class]
        rows = dict(zip((job.id for job in jobs), np.argsort(codes, kind="stable").tolist(), strict=True))
        size = self.generator_.settings.image_size
        images = torch.zeros((len(jobs), 3, size, size))
        self.generator_.to(pick_device(self.device))
        try:
            for batch in self._batches(jobs):
                images[[rows[job.id] for job in batch]] = self.generator_.generate(batch)
        finally:
            self.generator_.to("cpu").sources.clear()
        if not torch.isfinite(images).all():
            raise RunError("the generator made images with pixels that are no numbers; fit it with a lower lr")
        height, width = self._format.image_shape[:2]
        return self._format.from_unit(resize_images(images, (height, width)).permute(0, 2, 3, 1).numpy())

    def _strengths(self) -> tuple[float, ...]:
        """The checked `head_to_tail`."""
        given: Sequence[Any] = () if self.head_to_tail is None else self.head_to_tail
        for strength in given:
            if isinstance(strength, str) or not 0 < strength <= 1 or steps_of(self.steps, strength) < 1:
                raise InputError(
                    f"head_to_tail strengths of at most 1 that leave one of {self.steps} steps",
                    repr(strength),
                    "use for example (0.5, 0.6, 0.7, 0.8)",
                )
        return tuple(map(float, given))

    def _plan(self, counts: IntArray, seed: int) -> list[list[Job]]:
        """Jobs for so many images of each class; the generator has their sources at hand."""
        names = self.generator_.settings.classes
        settings = {"steps": self.steps, "guidance": float(self.guidance)}
        strengths = self._strengths()
        if not strengths:
            return plan_jobs("", names, counts, reserve=0, seed=seed, settings=settings)
        if self._lenders is None:
            raise InputError("head_to_tail before fit, which keeps the images", f"{strengths} after", "fit again")
        plan, sources = head_to_tail_jobs("", self._lenders, counts, strengths, reserve=0, seed=seed, settings=settings)
        self.generator_.sources.update(sources)
        return plan

    def _batches(self, jobs: list[Job]) -> list[list[Job]]:
        """The jobs in few batches of about one size: each is padded to the largest."""
        largest = max(Counter(job.settings.get("strength") for job in jobs).values(), default=1)
        n_batches = -(-largest // self.sampling_batch)
        self.generator_.batch_size = -(-largest // n_batches)
        return self.generator_.batches(jobs)
