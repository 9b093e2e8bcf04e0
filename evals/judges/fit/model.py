"""Fitting the local judge: two regularised logistic regressions, and their calibration from left-out models."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from evals.judges.fit.labels import Row
from evals.judges.fit.lines import LANGUAGES, SHORT
from evals.judges.local_features import BUCKETS, LEXICON, RULES, Extractor

STRENGTH = 0.2  # inverse of the L2 penalty
MOST_WEIGHT = 150.0  # a source model's replies of one class weigh as much as so many at most
MOST_WEIGHT_PARTIAL = 100.0
OWN_WEIGHT: Final = {SHORT: 0.3}  # factor on that: one word says little, and must not speak for whole sentences
LEAST_MODELS = 2  # a feature is used if so many source models have it: what one alone says is its style

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Linear:
    """A linear model over hashed features: weights (`BUCKETS`,), mostly 0."""

    weights: Floats
    bias: float


@dataclass(frozen=True)
class Table:
    """Labelled replies as numbers: features (rows, BUCKETS), refused at all (rows,), in part (rows,), model, group."""

    features: sp.csr_matrix
    refused: Flags
    partial: Flags
    models: NDArray[np.str_]
    groups: NDArray[np.str_]

    def odds(self, model: Linear) -> Floats:
        """Return log-odds by a model, shape (rows,)."""
        odds: Floats = self.features @ model.weights + model.bias
        return odds


def table(rows: Sequence[Row]) -> Table:
    """Read the features of labelled rows; a row without a label counts as not refused."""
    found = Extractor(LEXICON.read_text(encoding="utf-8")).extract([(row.prompt, row.reply) for row in rows])
    ones = np.ones(len(found.rows))
    features = sp.csr_matrix((ones, (found.rows, found.buckets)), shape=(len(rows), BUCKETS))
    labels = np.array([row.label or "" for row in rows])
    return Table(
        features,
        refused=np.isin(labels, ("refused", "partial")),
        partial=labels == "partial",
        models=np.array([row.model for row in rows]),
        groups=np.array([row.group for row in rows]),
    )


def fit_refused(data: Table, among: Flags) -> Linear:
    """Fit "refused in full or in part" on the rows flagged by `among`."""
    return _fit(data, among, data.refused, MOST_WEIGHT)


def fit_partial(data: Table, among: Flags) -> Linear:
    """Fit "refused in part" on those rows flagged by `among` that are refused at all."""
    return _fit(data, among & data.refused, data.partial, MOST_WEIGHT_PARTIAL)


def _fit(data: Table, among: Flags, target: Flags, most: float) -> Linear:
    from sklearn.linear_model import LogisticRegression  # extra `fit`: the features alone can be read without it

    used = _shared(data, among)
    weights = _row_weights(data, among, target, most)
    regression = LogisticRegression(C=STRENGTH, max_iter=2000, tol=1e-6)
    regression.fit(data.features[among][:, used], target[among], sample_weight=weights[among])
    spread = np.zeros(BUCKETS)
    spread[used] = regression.coef_[0]
    return Linear(spread, float(regression.intercept_[0]))


def _row_weights(data: Table, among: Flags, target: Flags, most: float) -> Floats:
    """Let each source model and class weigh alike, so that the largest file does not decide."""
    weights = np.zeros(len(target))
    for model in np.unique(data.models[among]):
        for value in (False, True):
            rows = among & (data.models == model) & (target == value)
            if rows.any():
                weights[rows] = min(1.0, most / rows.sum()) * OWN_WEIGHT.get(str(model), 1.0)
    return weights


def _shared(data: Table, among: Flags) -> NDArray[np.int64]:
    """Features that at least two source models have; those of short lines and other languages have no second source."""
    models = np.unique(data.models[among])
    count = np.zeros(BUCKETS)
    for model in models:
        has = np.asarray(data.features[among & (data.models == model)].sum(axis=0)).ravel() > 0
        count += has * (LEAST_MODELS if model in (LANGUAGES, SHORT) else 1)
    return np.flatnonzero(count >= min(LEAST_MODELS, len(models)))


def calibrated(odds: Floats, target: Flags, models: NDArray[np.str_], offset: bool) -> tuple[float, float]:
    """Return the slope and offset that turn left-out log-odds into calibrated ones; each source model weighs alike.

    Without `offset` this is temperature scaling (Guo et al. 2017, arXiv:1706.04599): the decision stays where it was
    fitted, since two or three models are too few to move it. With `offset` it is Platt's (1999).
    """
    from sklearn.linear_model import LogisticRegression

    share = {model: 1.0 / (models == model).sum() for model in np.unique(models)}
    weights = np.array([share[model] for model in models])
    platt = LogisticRegression(C=1e6, max_iter=2000, fit_intercept=offset)
    platt.fit(odds[:, None], target, sample_weight=weights * len(odds) / len(share))
    return float(platt.coef_[0, 0]), float(platt.intercept_[0]) if offset else 0.0


def packed(refused: Linear, partial: Linear, calibration: Sequence[tuple[float, float]]) -> bytes:
    """Return the file of weights (npz); the same models give the same bytes."""
    weights = np.stack([refused.weights, partial.weights], axis=1).astype(np.float16)
    buckets = np.flatnonzero(weights.any(axis=1))
    file = io.BytesIO()
    np.savez_compressed(
        file,
        buckets=buckets.astype(np.uint32),
        weights=weights[buckets],
        bias=np.array([refused.bias, partial.bias]),
        calibration=np.array(calibration),
        rules=np.array(RULES),
    )
    return file.getvalue()
