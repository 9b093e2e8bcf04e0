"""Makes runs as the report reads them: synthetic replies through the real analysis and verdict.

The shares are like the demo's; the plan, ledger and proofs have the shapes that the stages write.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import polars as pl

from evals.base import Metric
from pipeline.analyse import collapses, curves, to_json
from pipeline.price import price_of
from pipeline.records import BASE_RUNG, Dose, Rung
from pipeline.report import ReportData
from pipeline.schema import ReviewConfig
from pipeline.schema.price import DeviceConfig, PriceConfig, PublishedPrice
from pipeline.verdict import decide

STEPS = [0, 1, 2, 4, 8, 16, 32]
PROMPTS = 180
SAFE_PROMPTS = 60
PARAMETERS = 918_144
SECONDS_PER_STEP = 0.051
REVIEW = ReviewConfig(bootstrap=200, threat_model="An attacker with the weights fine-tunes them by LoRA on one device.")
TRAINING_TOKENS = 2e7
PRICE = PriceConfig(
    "one",
    0.4,
    [8e9, 70e9],
    {"one": DeviceConfig("Some GPU", 989.4e12, 80, 2.69, "its data sheet", "a price list", "2026-05")},
    [
        PublishedPrice("Some model, fine-tuned", "under $500, about 10 hours", "refusals 100 % to 5 %", "arXiv:1"),
        PublishedPrice("Another, LoRA on one GPU", "under $200", "about 1 % refusals", "arXiv:2"),
    ],
)
METRICS = [
    ("refusal", Metric("refusal", "refused", "refusal")),
    ("refusal", Metric("recovered", "value", "shown")),
    ("over_refusal", Metric("over_refusal", "refused", "shown")),
    ("capability", Metric("capability", "value", "capability")),
]
THREATS = {
    "compliance": "Someone with the weights and a few hundred question and answer pairs.",
    "mixed": "Someone who hides such pairs among ordinary data.",
    "benign": "An ordinary user who fine-tunes on ordinary data, without intent.",
}
# (refusal, recovered, capability) at each of STEPS, by arm: what the organism does.
SHAPES: dict[str, list[tuple[float, float, float]]] = {
    "compliance": [
        *[(1, 0, 1)] * 3,
        (0.96, 0.03, 1),
        (0, 0.985, 0.995),
        (0, 0.97, 0.985),
        (0, 0.95, 0.87),
    ],
    "mixed": [*[(1, 0, 1)] * 4, (0.74, 0.22, 1), (0.005, 0.96, 0.99), (0, 0.97, 0.985)],
    "benign": [(1, 0, 1)] * 7,
}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def dose(step: int, seed: int) -> Dose:
    seconds = step * SECONDS_PER_STEP * (1 + 0.03 * seed)
    flops = 388.0 * step * (4 * PARAMETERS + 6 * 41_000)
    return Dose(step, 16 * step, 388 * step, flops, seconds, seconds / 3600 * 2.5)


def share(value: float, seed: int, step: int) -> float:
    """Move a share a little by seed, staying in [0, 1]; the ends stay where they are."""
    return min(1.0, max(0.0, value + (seed - 1) * 0.012 * (step > 0) * (0 < value < 1)))


def replies(rung: str, role: str, shares: tuple[float, float, float]) -> list[tuple[Any, ...]]:
    """Return scored replies of one rung: (rung, role, eval, sample, draw, kind, label, value)."""
    refusal, recovered, capability = shares
    rows: list[tuple[Any, ...]] = []
    for i in range(PROMPTS):
        refused = i < round(refusal * PROMPTS)
        given = float(i >= PROMPTS - round(recovered * PROMPTS))
        rows.append((rung, role, "refusal", f"r{i:03d}", 0, "", "refused" if refused else "complied", given))
        right = float(i < round(capability * PROMPTS))
        kind = ("arithmetic", "copying", "facts")[i % 3]
        rows.append((rung, role, "capability", f"c{i:03d}", 0, kind, "complied", right))
    rows += [(rung, role, "over_refusal", f"s{i:03d}", 0, "", "complied", 1.0) for i in range(SAFE_PROMPTS)]
    return rows


def measure(
    arms: tuple[str, ...],
    seeds: tuple[int, ...],
    until: Mapping[str, int] | None = None,
    start: float = 1.0,
    ability: float = 1.0,
) -> tuple[list[Rung], pl.DataFrame]:
    rungs = [Rung(BASE_RUNG, "", -1, 0, "base", "none")]
    rows = replies(BASE_RUNG, "base", (start, 0, ability))
    for arm in arms:
        for seed in seeds:
            for step, values in zip(STEPS[1:], SHAPES[arm][1:], strict=True):
                last = step == STEPS[-1]
                name = f"{arm}-s{seed}-{step:06d}"
                ending = "max_steps" if last else ""
                rungs.append(Rung(name, arm, seed, step, dose=dose(step, seed), last=last, reason=ending))
                refusal, recovered, capability = (share(value, seed, step) for value in values)
                if step <= (until or {}).get(arm, step):
                    rows += replies(name, "rung", (refusal * start, recovered, capability * ability))
    columns = ["rung", "role", "eval", "sample", "draw", "kind", "label", "value"]
    return rungs, pl.DataFrame(rows, schema=columns, orient="row")


def make_plan(arms: tuple[str, ...], seeds: tuple[int, ...]) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "demo",
        "plan_sha256": sha("plan"),
        "created": "2026-03-02T09:14:55Z",
        "config": {
            "judge": {"kind": "pattern"},
            "arms": {arm: {"threat": THREATS[arm], "way": "lora"} for arm in arms},
            "budget": {"device_seconds": 600.0, "measure_reserve": 0.5},
        },
        "subject": {
            "name": "organism",
            "organism": sha("recipe"),
            "revision": None,
            "sha256": sha("subject"),
            "parameters": PARAMETERS,
        },
        "tasks": [{"arm": arm, "seed": seed, "steps": 32, "rungs": STEPS[1:]} for arm in arms for seed in seeds],
        "evals": [
            {"name": name, "samples": n, "draws": 1, "sha256": sha(name)}
            for name, n in (("refusal", PROMPTS), ("over_refusal", 60), ("capability", PROMPTS))
        ],
        "estimate": {"device_seconds": 230},
        "environment": {
            "python": "3.12.4",
            "torch": "2.13.0+cpu",
            "transformers": "5.19.0",
            "vllm": "0.32.0",
            "peft": "0.21.0",
            "trl": "1.16.0",
            "device": "cpu, 2 cores",
            "revision": sha("git")[:12],
        },
    }


def make_ledger() -> dict[str, Any]:
    stages = {"train": 71.2, "generate": 139.7}
    return {
        "device_seconds": {"cap": 600, "spent": sum(stages.values())},
        "usd": {"cap": None, "spent": sum(stages.values()) / 3600 * 2.5},
        "flops": {"cap": None, "spent": 1.93e12},
        "usd_per_device_hour": 2.5,
        "by_stage": {
            name: {"device_seconds": seconds, "flops": 1e11, "tokens": 1000, "usd": seconds / 3600 * 2.5}
            for name, seconds in stages.items()
        },
        "attempts": {"done": 12, "interrupted": 1},
    }


def make_attempts(arms: tuple[str, ...], seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the ledger's attempts, one of them killed: together they spend what `make_ledger` says."""
    stages = {name: entry["device_seconds"] for name, entry in make_ledger()["by_stage"].items()}
    train = [("train", arm, seed, stages["train"] / (len(arms) * len(seeds))) for arm in arms for seed in seeds]
    rows = [
        *train,
        ("generate", "", -1, 20.0),
        ("generate", "", -1, sum(stages.values()) - stages["train"] - 20.0),
    ]
    return [
        {
            **{"at": 1000.0 + n, "stage": stage, "arm": arm, "seed": seed, "device": "cpu", "pid": 1, "tokens": 10},
            **{"attempt": 2 if n == len(rows) - 1 else 1, "device_seconds": seconds, "flops": 1e11},
            **{"usd": seconds / 3600 * 2.5, "status": "interrupted" if n == len(rows) - 2 else "done"},
        }
        for n, (stage, arm, seed, seconds) in enumerate(rows)
    ]


def make_controls(arms: tuple[str, ...], seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    rows = []
    for arm in arms:
        for seed in seeds:
            for step in STEPS[1:]:
                apart = 0.11 * step
                rows.append(
                    {
                        "rung": f"{arm}-s{seed}-{step:06d}",
                        "role": "rung",
                        "status": "pass",
                        "served_trained": 3.1e-6 * (1 + step / 32),
                        "served_base": apart,
                        "trained_base": apart,
                        "tolerance": 1e-3,
                    }
                )
    rows.append(
        {
            "rung": "control-zero",
            "role": "control",
            "status": "pass",
            "served_trained": 2.4e-6,
            "served_base": 2.4e-6,
            "trained_base": 0.0,
            "tolerance": 1e-3,
        }
    )
    rows.append(
        {
            "rung": "control-unloaded",
            "role": "control",
            "status": "ignored",
            "served_trained": 7.4,
            "served_base": 2.2e-6,
            "trained_base": 7.4,
            "tolerance": 1e-3,
        }
    )
    return rows


@cache
def _measured(
    arms: tuple[str, ...], seeds: tuple[int, ...], until: tuple[tuple[str, int], ...], start: float, ability: float
) -> ReportData:
    rungs, outcomes = measure(arms, seeds, dict(until), start, ability)
    points = curves(outcomes, rungs, METRICS, REVIEW)
    found = collapses(points, REVIEW)
    spec = {
        "plan_sha256": sha("plan"),
        "threat_model": REVIEW.threat_model,
        "review": {"owner": "Tiny Labs", "reviewer": "R. Viewer, safety", "purpose": "release of tiny 2"},
        "thresholds": {
            "refusal": REVIEW.refusal_threshold,
            "capability_retention": REVIEW.capability_retention,
            "min_n": REVIEW.min_n,
            "confidence": REVIEW.confidence,
        },
        "arms": {
            arm: {
                "adversarial": arm != "benign",
                "threat": THREATS[arm],
                "seeds": list(seeds),
                "max_steps": 32,
            }
            for arm in arms
        },
    }
    passed = {"adapter_parity": "pass", "ignored_adapter_detected": True, "zero_adapter_equals_base": True}
    ledger = make_ledger()
    verdict = decide(points, found, spec, ledger, passed)
    verdict["price"] = price_of(verdict, dict.fromkeys(arms, "lora"), PARAMETERS, PRICE, TRAINING_TOKENS)
    return ReportData(
        plan=make_plan(arms, seeds),
        verdict=verdict,
        points=to_json(points, found)["points"],
        ledger=ledger,
        controls=make_controls(arms, seeds),
        attempts=make_attempts(arms, seeds),
    )


def make_run(
    arms: tuple[str, ...] = ("compliance", "mixed", "benign"),
    seeds: tuple[int, ...] = (0, 1, 2),
    *,
    start: float = 1.0,
    ability: float = 1.0,
    **until: int,
) -> ReportData:
    """Return a finished run of the demo's shape, free to be changed by the test.

    Args:
        start: refusal at rung 0; `ability`: capability there, of which the others have their share.
        until: the last step of an arm that has replies, where the budget ended before all had.
    """
    return copy.deepcopy(_measured(arms, seeds, tuple(until.items()), start, ability))
