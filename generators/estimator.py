"""The class-conditional diffusion model as a scikit-learn style estimator of images: `fit`, then `sample`."""

from __future__ import annotations

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

from generators.base import Job
from generators.class_conditional import ClassConditionalGenerator, NetworkSettings, is_grey
from generators.class_conditional_sizes import settings_for
from generators.class_conditional_training import Objective, TrainingSettings, train_class_conditional
from rebalance.data.pixels import Stack, StackFormat
from rebalance.data.resizing import resize_images
from rebalance.devices import kept_random_state, pick_device
from rebalance.errors import InputError, RunError

_SEEDS = 2**32


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
        updates: Length of training; None takes 1,000 up to 16 px, else 20,000.
        batch_size: Images per update; None takes 64 up to 16 px, else 256.
        lr: Learning rate of AdamW; None takes 1e-3 up to 16 px, else 4e-4.
        ema: Decay of the averaged weights, with warm-up.
        label_exponent: Classes are drawn in proportion to n_c to this power in training: 1 as they are, 0 alike;
            below 1 the rarest images are soon learnt by heart.
        label_drop: Share of labels replaced by the null class, for guidance.
        objective: "plain", or "cbdm": rare classes take over what frequent ones vary in, see
            `generators.class_balancing`; takes about twice the time and memory.
        flip: Whether a mirrored image is still one of its class; photographs usually are.
        guidance: Strength of classifier-free guidance; 1 is none, above 3 diversity suffers.
        steps: Sampling steps.
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
        "flip": ["boolean"],
        "guidance": [Interval(Real, 1, None, closed="left")],
        "steps": [Interval(Integral, 2, 1000, closed="both")],
        "sampling_batch": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }
    classes_: np.ndarray[Any, Any]
    generator_: ClassConditionalGenerator
    _format: StackFormat

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
        flip: bool = False,
        guidance: float = 2.0,
        steps: int = 20,
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
        self.flip = flip
        self.guidance = guidance
        self.steps = steps
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
            names, sizes.image_size, sizes.channels, 1 if is_grey(pixels) else 3, layers=sizes.layers
        )
        training = TrainingSettings(
            updates=self.updates or sizes.updates,
            batch_size=self.batch_size or sizes.batch_size,
            lr=float(self.lr or sizes.lr),
            ema=float(self.ema),
            label_exponent=float(self.label_exponent),
            label_drop=float(self.label_drop),
            objective=self.objective,
            flip=bool(self.flip),
            seed=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
        )
        squares = resize_images(pixels, network.image_size)
        with tqdm(total=training.updates, disable=not self.verbose, unit=" updates") as bar, kept_random_state(device):

            def progress(n: int, loss: float) -> None:
                bar.update(n)

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
        wanted = np.asarray(labels)
        unknown = np.setdiff1d(wanted, self.classes_)
        if unknown.size:
            raise InputError(
                f"classes that were in fit: {', '.join(map(str, self.classes_))}", repr(unknown[0].item()), "fit again"
            )
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        settings = {"steps": self.steps, "guidance": float(self.guidance)}
        codes = np.searchsorted(self.classes_, wanted).tolist() if wanted.size else []
        jobs = [
            Job("", str(self.classes_[code]), code, i, (seed + i) % _SEEDS, settings) for i, code in enumerate(codes)
        ]
        n_batches = max(1, -(-len(jobs) // self.sampling_batch))
        self.generator_.batch_size = max(1, -(-len(jobs) // n_batches))  # every batch is padded to it
        images = self.generator_.to(pick_device(self.device)).generate(jobs)
        self.generator_.to("cpu")
        if not torch.isfinite(images).all():
            raise RunError("the generator made images with pixels that are no numbers; fit it with a lower lr")
        height, width = self._format.image_shape[:2]
        return self._format.from_unit(resize_images(images, (height, width)).permute(0, 2, 3, 1).numpy())
