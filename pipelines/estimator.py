"""The scikit-learn face of `rebalance train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, final

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from pipelines.estimator_config import training_config
from pipelines.estimator_inputs import (
    Format,
    path_column,
    read_format,
    read_range,
    refuse_other_kind,
    to_images,
)
from pipelines.model_files import TrainedClassifier
from pipelines.table_training import Trained, train_table
from rebalance.counts import FloatArray
from rebalance.data.pixel_ranges import PixelRange
from rebalance.data.table import ImageTable
from rebalance.devices import pick_device
from rebalance.errors import InputError

_RULES = {"none", "inverse", "sqrt-inverse", "effective-number", "custom"}
_BATCH = 256


@final
class RebalancedImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Classifier of long-tailed images, trained as `rebalance train` trains.

    X holds images (N, H, W) or (N, H, W, C) with 1 or 3 channels; flat rows of pixels with `image_shape`; file paths,
    as a list or one column of a frame or an array; or rows of numbers that are no images, which the network sees as
    grey squares. uint8 is taken as it is; of other numbers the smallest and largest of the training images become black
    and white, so that images to predict have to be scaled as those of `fit`. Images are made square: the shorter side
    scaled, the centre cropped.

    There is no `sample_weight`: samplers, priors and margins count images.

    Args:
        method: The recipe; `rebalance methods` lists them.
        options: Of the recipe, by name, such as `{"max_margin": 0.4}`.
        sampler_rule: Draw images by class weights: "none", "inverse", "sqrt-inverse", "effective-number" or "custom".
        sampler_strength: Exponent of the rule.
        sampler_schedule: When the rule acts: "none" (always), "deferred:0.8", "progressive".
        loss_rule: Weigh the loss by class, by one of the same rules; None does as the recipe does.
        loss_strength: Exponent of that rule.
        loss_schedule: When it acts; None as the recipe does.
        cb_beta: β of the effective number in both rules; None is 1 - 1 / n_max.
        custom: {label: weight} of every class, for rule "custom".
        model: Backbone: "auto" (by image size), "small_cnn", "resnet32", "resnet50", …
        weights: Local weights file of a torchvision backbone to start from, or the folder of a transformers model.
        image_shape: (H, W) or (H, W, C) of flat rows.
        image_size: Height and width that images are brought to, px; None keeps images of up to 64 px, else 224.
        augment: Augmentation, such as "crop" for images that must not be mirrored; "auto" does as the method's paper,
            or "crop+flip"; rows that are no images get none.
        epochs: Passes.
        updates: Length of training in updates, instead of epochs.
        batch_size: Images per update.
        lr: Learning rate; None takes 0.2 · batch_size / 256 for "sgd", 1 % of it for "adamw".
        opt: "sgd" or "adamw".
        weight_decay: Of the optimiser.
        warm_start: `fit` goes on from the last one's weights, with the same classes and kind of images.
        skip_corrupt: Go on without files that cannot be read; `fit` warns of how many, and `skipped_` names them.
        workers: Threads and processes that read files; None takes one for each CPU, at most 8.
        device: "auto", "cpu", "cuda" or "cuda:1".
        verbose: Show the class table and the progress.
        random_state: An int (the command line's --seed), a `RandomState` or None.

    Attributes:
        classes_: The labels, sorted, (C,).
        model_: The trained network with its preprocessing, as `pipelines.load_model` gives it; its class names are the
            labels as text.
        loss_curve_: Mean loss of each epoch.
        skipped_: Files that could not be read and were left out.
        n_features_in_: Columns of X; of image stacks their height.
        feature_names_in_: Names of the columns of X, where it is a frame with names.

    Raises:
        InputError: Settings that do not go together, or images of another kind than expected.

    Examples:
        >>> images = np.zeros((40, 8, 8), dtype=np.uint8)
        >>> images[30:, :, :4] = 255
        >>> model = RebalancedImageClassifier(epochs=5, augment="none", random_state=0)
        >>> model.fit(images, ["cat"] * 30 + ["owl"] * 10).predict(images[[0, 39]]).tolist()
        ['cat', 'owl']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "method": [str],
        "options": [dict, None],
        "sampler_rule": [StrOptions(_RULES)],
        "sampler_strength": [Interval(Real, 0, None, closed="left")],
        "sampler_schedule": [str],
        "loss_rule": [StrOptions(_RULES), None],
        "loss_strength": [Interval(Real, 0, None, closed="left")],
        "loss_schedule": [str, None],
        "cb_beta": [Interval(Real, 0, 1, closed="left"), None],
        "custom": [Mapping, None],
        "model": [str],
        "weights": [str, Path, None],
        "image_shape": [tuple, list, None],
        "image_size": [Interval(Integral, 8, None, closed="left"), None],
        "augment": [str],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "updates": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "opt": [StrOptions({"sgd", "adamw"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "skip_corrupt": ["boolean"],
        "workers": [Interval(Integral, 0, None, closed="left"), None],
        "device": [str],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    classes_: np.ndarray[Any, Any]
    model_: TrainedClassifier
    loss_curve_: list[float]
    skipped_: list[str]
    _format: Format
    _range: PixelRange | None = None  # of pickles of earlier versions too
    _trained: Trained

    def __init__(
        self,
        *,
        method: str = "balanced_mixup",
        options: Mapping[str, Any] | None = None,
        sampler_rule: str = "none",
        sampler_strength: float = 1.0,
        sampler_schedule: str = "none",
        loss_rule: str | None = None,
        loss_strength: float = 1.0,
        loss_schedule: str | None = None,
        cb_beta: float | None = None,
        custom: Mapping[Any, float] | None = None,
        model: str = "auto",
        weights: str | Path | None = None,
        image_shape: Sequence[int] | None = None,
        image_size: int | None = None,
        augment: str = "auto",
        epochs: int = 100,
        updates: int | None = None,
        batch_size: int = 64,
        lr: float | None = None,
        opt: str = "sgd",
        weight_decay: float = 5e-4,
        warm_start: bool = False,
        skip_corrupt: bool = False,
        workers: int | None = None,
        device: str = "auto",
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.options = options
        self.sampler_rule = sampler_rule
        self.sampler_strength = sampler_strength
        self.sampler_schedule = sampler_schedule
        self.loss_rule = loss_rule
        self.loss_strength = loss_strength
        self.loss_schedule = loss_schedule
        self.cb_beta = cb_beta
        self.custom = custom
        self.model = model
        self.weights = weights
        self.image_shape = image_shape
        self.image_size = image_size
        self.augment = augment
        self.epochs = epochs
        self.updates = updates
        self.batch_size = batch_size
        self.lr = lr
        self.opt = opt
        self.weight_decay = weight_decay
        self.warm_start = warm_start
        self.skip_corrupt = skip_corrupt
        self.workers = workers
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any) -> Self:
        """Train.

        Args:
            X: Images, rows of pixels, or paths.
            y: Labels of any kind, one a row.

        Returns:
            This object.
        """
        going_on = self.warm_start and hasattr(self, "model_")
        if going_on:
            refuse_other_kind(X, self._format)
        rows = self._rows(X, y, reset=True)
        y = column_or_1d(y, warn=isinstance(rows, list))
        check_consistent_length(rows, y)
        check_classification_targets(y)
        classes, targets = np.unique(y, return_inverse=True)
        if classes.size < 2:
            raise InputError(
                "at least two classes", f"one class, {classes.tolist()[0]!r}", "add images of another class"
            )
        if going_on and not np.array_equal(classes, self.classes_):
            raise InputError(
                f"the classes of the first fit, {self.classes_.tolist()}, for warm_start",
                str(classes.tolist()),
                "set warm_start=False",
            )
        form = self._format if going_on else read_format(rows, self.image_shape)
        seen = self._range if going_on else read_range(rows, form)
        if going_on and seen is not None:
            seen.check(rows)
        images = to_images(rows, form)
        table = ImageTable(images, targets.astype(np.int64), tuple(map(str, classes.tolist())))
        start = self._trained if going_on else None
        self._trained = train_table(training_config(self, len(table), form), table, start, verbose=bool(self.verbose))
        self.model_, self.loss_curve_ = self._trained.model, self._trained.losses
        self.skipped_ = list(self._trained.skipped)
        self.classes_, self._format, self._range = classes, form, seen
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities (N, C), by class in the order of `classes_`."""
        check_is_fitted(self)
        refuse_other_kind(X, self._format)
        rows = self._rows(X, reset=False)
        if self._range is not None:
            self._range.check(rows)
        images: Any = to_images(rows, self._format)
        model = self.model_.to(pick_device(self.device))
        probabilities = model.predict_proba(images, batch_size=_BATCH)
        model.to("cpu")
        return probabilities

    def predict(self, X: Any) -> np.ndarray[Any, Any]:
        """The most probable label of each row, (N,)."""
        probabilities = self.predict_proba(X)
        labels: np.ndarray[Any, Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def _rows(self, X: Any, y: Any = "no_validation", *, reset: bool) -> Any:
        """X as an array of numbers, or as a list of paths."""
        paths = path_column(X)
        if paths is None:
            checked = validate_data(self, X, y, reset=reset, dtype="numeric", allow_nd=True)
            return checked[0] if isinstance(checked, tuple) else checked
        if np.ndim(X) == 1:
            if not reset:
                return paths  # one column, whatever it is called
            X = X.to_frame() if hasattr(X, "to_frame") else np.reshape(np.array(paths, dtype=object), (-1, 1))
        validate_data(self, X, y, reset=reset, skip_check_array=True)
        return paths

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        return tags
