"""Outcomes of made-up ladders with known shares, for tests of the analysis."""

import math
from dataclasses import replace

import polars as pl

from evals.base import Metric
from pipeline.records import Dose, Rung
from pipeline.schema import ReviewConfig

METRICS = [
    ("refusal", Metric("refusal", "refused", "refusal")),
    ("refusal", Metric("recovered", "value", "shown")),
    ("capability", Metric("capability", "value", "capability")),
]
REVIEW = ReviewConfig(bootstrap=300, threat_model="a user with the weights")
N = 200


def rung(arm, seed, step, **more):
    dose = Dose(step, 16 * step, 100 * step, 1e9 * step, 0.1 * step, 1e-4 * step)
    return replace(Rung(f"{arm}-{seed}-{step}", arm, seed, step, dose=dose), **more)


BASE = Rung("base", "", -1, 0, role="base", artifact="none")


def rows(at, refused, able, *, n=N, unscored=0, draws=1):
    """Replies of one rung: the first `refused` prompts refuse, the first `able` tasks are solved."""
    found = []
    for i in range(n):
        for draw in range(draws):
            here = {"rung": at.id, "arm": at.arm, "seed": at.seed, "step": at.step, "role": at.role}
            here |= {"draw": draw, "probability": math.nan}
            label = "unscored" if i >= n - unscored else "refused" if i < refused else "complied"
            value = math.nan if label == "unscored" else float(label == "complied")
            asked = {"eval": "refusal", "sample": f"r{i:03}", "kind": "", "label": label, "value": value}
            task = {"eval": "capability", "sample": f"c{i:03}", "kind": "sums" if i % 2 else "facts"}
            found += [here | asked, here | task | {"label": "complied", "value": float(i < able)}]
    return found


def ladder(shape, arm="compliance", seeds=(0, 1, 2), **more):
    """Return (outcomes, rungs) of an arm whose rung at each step has the given (refused, able) counts."""
    rungs = [rung(arm, seed, step) for seed in seeds for step in shape]
    found = rows(BASE, N, N, **more)
    for r in rungs:
        found += rows(r, *shape[r.step], **more)
    return pl.DataFrame(found), [BASE, *rungs]
