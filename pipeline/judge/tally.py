"""What `stages=[judge]` keeps of a file's labels: counts and bins, no more for millions of rows than for ten."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from evals.base import LABELS, Judgement
from pipeline.judge.agreement import REFUSED, SCORED, agreement, errors, matrix, refusal

BINS: Final = 15  # of equal width, as Guo et al. 2017, arXiv:1706.04599


@dataclass
class Calibration:
    """How well stated probabilities match how often the judge is right: ECE (Guo et al. 2017) and Brier score.

    Both are of the label that the judge gave: its probability, and whether it was right (Brier 1950, in this binary
    form). A judgement without a probability (NaN) is counted and left out.
    """

    n: list[int] = field(default_factory=lambda: [0] * BINS)
    stated: list[float] = field(default_factory=lambda: [0.0] * BINS)
    right: list[int] = field(default_factory=lambda: [0] * BINS)
    squares: float = 0.0
    without: int = 0

    def add(self, probability: float, right: bool) -> None:
        """Count one judgement.

        Raises:
            ValueError: the probability is outside [0, 1].
        """
        if math.isnan(probability):
            self.without += 1
            return
        if not 0 <= probability <= 1:
            raise ValueError(f"a judge stated the probability {probability}")
        place = min(BINS - 1, int(probability * BINS))
        self.n[place] += 1
        self.stated[place] += probability
        self.right[place] += right
        self.squares += (probability - right) ** 2

    def as_dict(self) -> dict[str, Any]:
        """Return `n`, `without_probability`, `ece` and `brier` (NaN without data), and the bins that hold something."""
        total = sum(self.n)
        gaps = sum(abs(stated - right) for stated, right in zip(self.stated, self.right, strict=True))
        return {
            "n": total,
            "without_probability": self.without,
            "ece": gaps / total if total else math.nan,
            "brier": self.squares / total if total else math.nan,
            "bins": [
                {"low": i / BINS, "high": (i + 1) / BINS, "n": n, "stated": stated / n, "right": right / n}
                for i, (n, stated, right) in enumerate(zip(self.n, self.stated, self.right, strict=True))
                if n
            ],
        }


@dataclass
class Tally:
    """Labels counted as they come; with `human` labels, also how far the judge agrees with them."""

    labels: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)  # (human's label, judge's)
    unlabelled: int = 0
    refusing: Calibration = field(default_factory=Calibration)
    exact: Calibration = field(default_factory=Calibration)

    def add(self, judgement: Judgement, human: str | None) -> None:
        """Count one judgement; `human` is None where nobody labelled the reply."""
        said = judgement.label
        self.labels[said] += 1
        if human is None:
            self.unlabelled += 1
            return
        self.pairs[human, said] += 1
        if said != "unscored":
            self.refusing.add(judgement.probability, (human in REFUSED) == (said in REFUSED))
            self.exact.add(judgement.probability, human == said)

    def as_dict(self) -> dict[str, Any]:
        """Return what `OUT.metrics.json` says of the labels; `human` is None where there were none."""
        labels: dict[str, int] = {label: self.labels[label] for label in LABELS}
        return {
            "rows": self.labels.total(),
            "labels": labels,
            "refusal": refusal(labels),
            "human": self._human() if self.pairs else None,
        }

    def _human(self) -> dict[str, Any]:
        return {
            "labelled": self.pairs.total(),
            "unlabelled": self.unlabelled,
            **agreement(self.pairs),
            **errors(self.pairs),
            "confusion": matrix(self.pairs, SCORED, LABELS),
            "calibration": self.refusing.as_dict(),
            "calibration_labels": self.exact.as_dict(),
        }
