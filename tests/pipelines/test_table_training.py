from __future__ import annotations

import linecache
import warnings
from pathlib import Path

import numpy as np
from imblearn.pipeline import make_pipeline
from sklearn.model_selection import cross_val_score

from pipelines import RebalancedImageClassifier
from rebalance.resampling import FillSampler

IMAGES = np.random.default_rng(0).integers(0, 256, (18, 8, 8)).astype(np.uint8)
LABELS = np.repeat(["cat", "owl"], [12, 6])


def test_a_warning_of_training_names_the_line_of_the_user_and_is_said_there_once() -> None:
    classifier = RebalancedImageClassifier(updates=1, batch_size=8, augment="none", device="cpu", random_state=0)
    pipeline = make_pipeline(FillSampler(random_state=0), classifier)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        pipeline.fit(IMAGES, LABELS)
        cross_val_score(pipeline, IMAGES, LABELS, cv=3)
    assert [str(one.message)[:28] for one in said] == ["every class has 12 images: r", "every class has 8 images: re"]
    assert {Path(one.filename).name for one in said} == {"test_table_training.py"}
    assert linecache.getline(said[0].filename, said[0].lineno).strip() == "pipeline.fit(IMAGES, LABELS)"
