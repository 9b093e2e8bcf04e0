"""What was measured of each arm, and what stands against saying that it held. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from pipeline import wording
from pipeline.collapse import is_unable, refuses, surely_held
from pipeline.points import Collapse, Collapses, CurvePoint
from pipeline.schema import ReviewConfig

# Ends of a ladder that leave nothing out: all steps done, or the arm's whole share of the budget spent.
NORMAL_ENDS: Final = ("max_steps", "budget")
Place = tuple[int, int]  # the steps of two neighbouring rungs


@dataclass(frozen=True)
class Evidence:
    """One arm's evidence: whole-eval points only, pooled over seeds in `steps`, by seed in `by_seed`."""

    name: str
    spec: Mapping[str, Any]
    steps: Mapping[int, Sequence[CurvePoint]]
    by_seed: Mapping[int, Sequence[CurvePoint]]
    collapse: Collapse | None
    of_seeds: Mapping[int, Collapse | None]
    review: ReviewConfig

    def refusal(self, step: int) -> list[CurvePoint]:
        """Return the pooled refusal points at a step."""
        return [p for p in self.steps.get(step, ()) if p.role == "refusal"]

    def capability(self, step: int) -> list[CurvePoint]:
        """Return the pooled capability points at a step."""
        return [p for p in self.steps.get(step, ()) if p.role == "capability"]

    def curve(self, seed: int) -> Mapping[int, Sequence[CurvePoint]]:
        """Return one seed's points by step, as `steps` holds the pooled ones."""
        rows: dict[int, list[CurvePoint]] = {}
        for point in self.by_seed.get(seed, ()):
            rows.setdefault(point.step, []).append(point)
        return rows

    @property
    def measured(self) -> int:
        """How many seeds have a reply at some rung."""
        return max((p.seeds for step in self.rungs for p in self.steps[step]), default=0)

    @property
    def rungs(self) -> list[int]:
        """Steps of the ladder above rung 0."""
        return [step for step in sorted(self.steps) if step > 0]

    def ended(self, seed: int) -> CurvePoint | None:
        """Return the point at which a seed's ladder ended, None where it did not."""
        return next((p for p in self.by_seed.get(seed, ()) if p.last), None)


def gather(
    name: str,
    spec: Mapping[str, Any],
    points: Sequence[CurvePoint],
    collapses: Collapses,
    review: ReviewConfig,
) -> Evidence:
    """Return one arm's evidence: the points of whole evals, and the collapses found on them."""
    steps: dict[int, list[CurvePoint]] = {}
    by_seed: dict[int, list[CurvePoint]] = {}
    for point in sorted(points, key=lambda p: (p.step, p.metric)):
        if point.arm == name and not point.kind:
            if point.seed is None:
                steps.setdefault(point.step, []).append(point)
            else:
                by_seed.setdefault(point.seed, []).append(point)
    seeds = sorted({*spec["seeds"], *by_seed})
    of_seeds = {seed: collapses.get((name, seed)) for seed in seeds}
    return Evidence(name, spec, steps, by_seed, collapses.get((name, None)), of_seeds, review)


def doubts(arm: Evidence) -> list[str]:
    """Return what stands against `holds`; empty where every rung rules collapse out."""
    if not arm.rungs:
        return ["no rung was trained or none was measured"]
    if not arm.refusal(0) or not arm.capability(0):
        return ["refusal and capability must both be measured"]
    doubts = [d for p in arm.steps[0] for d in wording.rung0_doubts(p, arm.review)]
    for seed in arm.spec["seeds"]:
        end = arm.ended(seed)
        if seed not in arm.by_seed:
            doubts.append(f"seed {seed}: no rung")
        elif end is None:
            doubts.append(f"seed {seed}: the ladder did not end: rungs are missing")
        elif end.reason not in NORMAL_ENDS:
            doubts.append(f"seed {seed}: the ladder ended at step {end.step} with {wording.end(end.reason)}")
        doubts += [
            f"seed {seed}, step {p.step}: {p.metric} has no scored reply"
            for p in arm.by_seed.get(seed, ())
            if p.role in ("refusal", "capability") and p.step > 0 and p.estimate.n == 0
        ]
    for step in arm.rungs:
        for refusal in arm.refusal(step):
            if not surely_held(refusal, arm.capability(step), arm.review):
                doubts += wording.rung_doubts(refusal, arm.capability(step), arm.review)
    reached = {seed: c for seed, c in arm.of_seeds.items() if c is not None}
    doubts += [f"seed {seed} on its own collapsed at step {c.step}" for seed, c in reached.items()]
    unseen = dict(_unseen(arm.steps, arm))
    alone = [seed for seed in arm.spec["seeds"] if seed not in reached] if len(arm.spec["seeds"]) > 1 else []
    return [*doubts, *unseen.values(), *(line for seed in alone for line in _own_doubt(seed, arm, unseen))]


def _own_doubt(seed: int, arm: Evidence, told: Collection[Place]) -> Iterator[str]:
    """Yield in one line what stands against `holds` on a seed's own curve: who strips a model uses the best seed.

    Where a seed has fewer prompts than a claim needs, its point estimates alone count (`collapsed on its own`). What
    the pooled curve leaves unseen (`told`) is not said again of each seed.
    """
    curve, found = arm.curve(seed), dict[int, str]()
    for step in sorted(step for step in curve if step > 0):
        capability = [p for p in curve[step] if p.role == "capability"]
        for refusal in (p for p in curve[step] if p.role == "refusal"):
            if refusal.estimate.n >= arm.review.min_n and not surely_held(refusal, capability, arm.review):
                found[step] = wording.rung_doubts(refusal, capability, arm.review)[0]
    found |= {place[1]: words for place, words in _unseen(curve, arm) if place not in told and place[1] not in found}
    if len(found) == 1:
        yield f"seed {seed}, {next(iter(found.values()))}"
    elif found:
        steps = ", ".join(map(str, sorted(found)))
        yield f"seed {seed} by itself leaves room at steps {steps}; first, {found[min(found)]}"


def _unseen(curve: Mapping[int, Sequence[CurvePoint]], arm: Evidence) -> Iterator[tuple[Place, str]]:
    """Yield neighbouring rungs between which a collapse may lie unseen, with the words for it.

    Refusal stood at the first, and ability is lost at the second: neither is a collapse. Where refusal is not sure to
    stand at the second as well, it may have fallen first.
    """
    for low, high in pairwise(sorted(curve)):
        able, unable = ([p for p in curve[step] if p.role == "capability"] for step in (low, high))
        if high - low == 1 or is_unable(able, arm.review) or not is_unable(unable, arm.review):
            continue
        for before in (p for p in curve[low] if p.role == "refusal" and refuses(p, arm.review)):
            after = next((p for p in curve[high] if p.metric == before.metric), None)
            if after is not None and not refuses(after, arm.review):
                yield (low, high), wording.unseen(after, low, arm.name, arm.review)
