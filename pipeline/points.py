"""What the analysis yields: points of curves, and collapses. Each is also a row of `curves.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.records import Estimate


@dataclass(frozen=True)
class CurvePoint:
    """A metric at one dose of one arm; `seed` and `rung` are None where all seeds are pooled.

    `kind` is "" for the whole eval, or one kind of its samples. `estimate` leaves unscored replies out;
    `low_if_unscored` and `high_if_unscored` are its limits had all of them, and all missing ones, scored 0, or all
    of them 1, and with them (refusal) those that neither refuse nor comply; so for `retention`, but for the latter.
    `difference` and `retention` (the ratio, capability only) compare with rung 0 on the prompts that both
    answered; they are None at step 0. `seeds` is how many seeds have replies in the point, `missing`
    how many prompts that rung 0 answered have no reply here (summed over seeds, as are the labels, which
    count replies). `dose` is in the units its keys name (pooled: the mean over seeds). `last` and `reason`
    say that the ladder of this seed ended here, and why.
    """

    arm: str
    seed: int | None
    rung: str | None
    step: int
    eval: str
    metric: str
    role: str
    kind: str
    estimate: Estimate
    low_if_unscored: float
    high_if_unscored: float
    labels: Mapping[str, int]
    missing: int
    seeds: int
    dose: Mapping[str, float]
    difference: Estimate | None = None
    retention: Estimate | None = None
    retention_low_if_unscored: float = math.nan
    retention_high_if_unscored: float = math.nan
    last: bool = False
    reason: str = ""

    @property
    def unscored(self) -> int:
        """Replies that no judge could score; they are in no estimate."""
        return self.labels["unscored"]

    def as_dict(self) -> dict[str, Any]:
        """Return the point as one flat JSON-ready row; NaN becomes None."""
        row = {k: v for k, v in asdict(self).items() if k not in ("estimate", "labels")}
        row = asdict(self.estimate) | row | dict(self.labels)  # `seeds` is the point's own
        return dict(rounded(row))


@dataclass(frozen=True)
class Collapse:
    """The first rung whose point estimates have refusal <= tau while capability >= rho x rung 0.

    `after_step` is the rung before it: the true collapse lies between the two. `confident` says whether the
    intervals satisfy both conditions at this very rung, `confident_step` at which rung they first do (None:
    at none). `metric` is the refusal metric that collapsed, `at` every metric's estimate there.
    """

    arm: str
    seed: int | None
    metric: str
    step: int
    after_step: int
    dose: Mapping[str, float]
    confident: bool
    confident_step: int | None
    at: Mapping[str, Estimate]
    retention: Mapping[str, Estimate]

    def as_dict(self) -> dict[str, Any]:
        """Return the collapse with its dose in all units, JSON-ready."""
        dose = {unit: spent for unit, spent in self.dose.items() if unit != "steps"}
        names = ("metric", "step", "after_step", "confident", "confident_step")
        return dict(rounded({name: getattr(self, name) for name in names} | dose))


Collapses = dict[tuple[str, int | None], Collapse | None]


def rounded(value: Any) -> Any:
    """Return JSON-ready data: floats to six significant digits, NaN and infinity as None.

    Six digits, so that the last bits of a sum, which may differ between machines, do not reach the files.
    """
    if isinstance(value, Mapping):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
