"""EpochSampler: the order of an epoch out of labels, rule, schedule, seed and epoch."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rebalance.counts import FloatArray, IntArray
from rebalance.draws import Draws, Members, check_draws, mixed_shares, quotas, random_stream
from rebalance.errors import InputError
from rebalance.permutations import MAX_SIZE
from rebalance.samplers.base import SeededSampler, check_whole, log
from rebalance.samplers.labels import find_classes
from rebalance.samplers.names import name_weights
from rebalance.schedules import Schedule, parse_schedule
from rebalance.weights import class_weights, draw_shares


class EpochSampler(SeededSampler[int]):
    """Draws the class first and the member second; share_c = (1 - f) · n_c / n + f · rule_c.

    Every epoch has `num_samples` draws, of each class as many as its share says, rounded down or up. The members of a
    class come in cycles of permutations: none a second time before all came once. With rule "none" and `num_samples`
    = n that is a shuffle.

    The same order on every rank; no global random state; no limit at 2^24 rows; 4 bytes a row. Give it to
    `DataLoader(sampler=…)`, or take whole arrays from `chunks`, which costs a third of the time.

    Args:
        labels: Labels or a data set: whatever `find_labels` takes.
        rule: "none", "inverse", "sqrt-inverse", "effective-number" or "custom".
        exponent: Strength of the rule: 0 draws plainly, 1 fully by the rule ("inverse": every class alike). It is the
            `strength` of `class_weights` and the `--sampler-strength` of the command line.
        schedule: When the rule acts: "none" (always), "deferred:0.8" (from the epoch that begins nearest to there;
            "deferred" alone is the same), "progressive", or a `Schedule`.
        epochs: Length of training, which a schedule measures progress by; a fraction where it ends inside an epoch.
        num_samples: Draws of an epoch; by default as many as there are labels.
        seed: Seed of every epoch's order.
        cb_beta: β of the effective number.
        custom: Weight of each image of a class by the class's name, for rule "custom"; by number where no class has it
            as its name. The class as a whole is drawn in proportion to n_c · custom_c^exponent.
        classes: Class names, by default the strings among the labels, the data set's own (`classes`), or "0", "1", …

    Attributes:
        rule, exponent, schedule, epochs: As given; the schedule as a `Schedule`.
        classes: Class names, shape (C,).
        counts: Rows of each class, shape (C,).

    Raises:
        InputError: Unknown rule or schedule, a number out of range, no labels found, a schedule without `epochs`.

    Examples:
        >>> sampler = EpochSampler(["cat"] * 6 + ["owl"] * 2, rule="inverse")
        >>> sampler.expected_counts()
        array([4., 4.])
        >>> sampler
        EpochSampler(8 rows of 2 classes, rule='inverse', exponent=1, schedule='none', num_samples=8, seed=0)
        >>> sorted(EpochSampler([0, 0, 1]))
        [0, 1, 2]
    """

    def __init__(
        self,
        labels: Any,
        *,
        rule: str = "none",
        exponent: float = 1.0,
        schedule: str | Schedule = "none",
        epochs: float | None = None,
        num_samples: int | None = None,
        seed: int = 0,
        cb_beta: float | Literal["auto"] = "auto",
        custom: Mapping[str, float] | Mapping[int, float] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        ids, self.classes = find_classes(labels, classes)
        if ids.size > MAX_SIZE:
            raise InputError(f"at most {MAX_SIZE} rows", str(ids.size), "sample a part of the data")
        self.num_samples = check_draws(ids.size if num_samples is None else num_samples, "num_samples")
        self.seed = check_whole(seed, "seed")
        self.schedule = parse_schedule(schedule) if isinstance(schedule, str) else schedule
        if epochs is not None and not (isinstance(epochs, float) and 0 < epochs < math.inf):
            epochs = check_whole(epochs, "epochs", least=1)  # type: ignore[arg-type]  # it says what is wrong
        self.epochs = epochs
        if self.schedule.kind != "none" and self.epochs is None:
            raise InputError(
                "epochs beside a schedule",
                f"schedule {str(self.schedule)!r} alone",
                "pass epochs=, the length of training",
            )
        if rule == "none" and (self.schedule.kind != "none" or exponent != 1 or custom):
            log.warning("EpochSampler: schedule, exponent and custom change nothing without a rule, such as 'inverse'")
        self.rule, self.exponent = rule, exponent
        self.members = Members.of(ids, len(self.classes))
        self._cb_beta = cb_beta
        self._custom = None if custom is None else name_weights(custom, self.classes)
        self._rule_shares = self._shares_by_rule()

    @property
    def counts(self) -> IntArray:
        """Rows of each class, shape (C,)."""
        return self.members.counts

    def expected_shares(self, epoch: int = 0) -> FloatArray:
        """Share of each class among the draws of `epoch`, shape (C,)."""
        return mixed_shares(self.counts, self._rule_shares, self.factor(epoch))

    def expected_counts(self, epoch: int = 0) -> FloatArray:
        """Draws of each class in `epoch`, shape (C,), for the class table; the epoch itself has them rounded."""
        return self.expected_shares(epoch) * self.num_samples

    def draws(self, epoch: int, num_samples: int | None = None, source: int = 0) -> Draws:
        """The draws of `epoch`, all from the beginning.

        Args:
            epoch: Any epoch; that of the sampler stays.
            num_samples: Draws, by default those of an epoch.
            source: Sets orders with the same seed apart.
        """
        key = (self.seed, epoch, source)
        n = self.num_samples if num_samples is None else num_samples
        return Draws(self.members, quotas(self.expected_shares(epoch) * n, random_stream(key, 0).random()), key)

    def epoch_order(self, epoch: int) -> IntArray:
        """All rows of `epoch` in order, shape (num_samples,)."""
        return np.concatenate(list(self.draws(epoch).chunks()))

    def chunks(self) -> Iterator[IntArray]:
        """The rows of the epoch that are not consumed yet, in int64 arrays of 2^17 or 2^18."""
        return self.draws(self.epoch).chunks(self._consumed)

    def drawn_by(self) -> dict[str, Any]:
        """Rule and labels, with what the rule reads; the labels and custom weights as checksums."""
        read: dict[str, Any] = {"rule": self.rule, "labels_crc32": self.members.checksum}
        if self.rule != "none":
            read |= {"exponent": float(self.exponent), "schedule": str(self.schedule)}
        if self.rule != "none" and self.schedule.kind != "none":
            read["epochs"] = self.epochs
        if self.rule == "effective-number":
            read["cb_beta"] = self._cb_beta if isinstance(self._cb_beta, str) else float(self._cb_beta)
        if self._custom is not None and self.rule == "custom":
            weights = sorted((name, float(weight)) for name, weight in self._custom.items())
            read["custom_crc32"] = zlib.crc32(repr(weights).encode())
        return read

    def __repr__(self) -> str:
        length = "" if self.epochs is None else f"epochs={self.epochs:g}, "
        return (
            f"{type(self).__name__}({self.members.rows.size} rows of {len(self.classes)} classes, rule={self.rule!r}, "
            f"exponent={self.exponent:g}, schedule={str(self.schedule)!r}, {length}"
            f"num_samples={self.num_samples}, seed={self.seed})"
        )

    def __iter__(self) -> Iterator[int]:
        self.begin()
        for chunk in self.chunks():
            yield from chunk.tolist()

    def __len__(self) -> int:
        return self.num_samples

    @property
    def plain_shares(self) -> FloatArray:
        """Share of each class among the draws without the rule, shape (C,)."""
        return mixed_shares(self.counts, self._rule_shares, 0.0)

    @property
    def rule_shares(self) -> FloatArray:
        """Share of each class among the draws where the rule acts alone, shape (C,)."""
        return self._rule_shares.copy()

    def factor(self, epoch: int) -> float:
        """How much the rule acts in `epoch`, in [0, 1]; a deferred one from the epoch that is nearest to its start."""
        if self.epochs is None:
            return self.schedule(0.0)
        shift = 0.5 if self.schedule.kind == "deferred" else 0.0
        return self.schedule(min((epoch + shift) / self.epochs, 1.0))

    def _shares_by_rule(self) -> FloatArray:
        """Share of each class under the full rule; a class without a row has none."""
        present = np.flatnonzero(self.counts)
        names = [self.classes[c] for c in present]
        absent = set(self.classes) - set(names)
        custom = self._custom
        weights = class_weights(
            self.counts[present],
            self.rule,
            strength=self.exponent,
            cb_beta=self._cb_beta,
            custom=None if custom is None else {name: w for name, w in custom.items() if name not in absent},
            classes=names,
        )
        shares = np.zeros(self.counts.size)
        shares[present] = draw_shares(self.counts[present], weights)
        return shares
