"""Which of the saved rungs are asked for replies: first the coarse ones, then those where refusal falls. Pure.

Saving a rung costs a file, asking it every prompt of every eval. A price needs close rungs only where refusal falls. So
the rungs at powers of two and the last of each ladder are asked first; then, arm by arm and for all its seeds alike,
the middle one of those between the last rung before refusal falls (or collapses, or may have collapsed before ability
was lost) and that rung, until none is left between them: each doubling of `rungs_per_doubling` costs one rung more.
Where refusal falls and rises again between two rungs that were asked, that is not seen, as with rungs at powers of two
alone. Corrections for many looks count every saved rung, since any of them might have been asked; the worst rung is
picked from those that are asked whatever the replies say, since its held-out prompts choose the others, too
(`pipeline.inference.picked`).

What is asked next follows from the proofs and replies that are there, so nothing else is recorded: after a kill the
same rungs are chosen. Judge and thresholds are those of the command that generates.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline.collapse import is_lost, unseen
from pipeline.inspectai import KIND as INSPECT
from pipeline.points import Collapses, CurvePoint
from pipeline.records import Rung
from pipeline.schema import ReviewConfig

AROUND, ALL = "around_collapse", "all"
RUNG_RULES: Final = (AROUND, ALL)
Key = tuple[str, int | None]  # arm, seed (None: pooled)
Brackets = Mapping[Key, Collection[tuple[int, int]]]  # the steps between which refusal falls


def rule_of(config: Mapping[str, Any]) -> str:
    """Return the rule that a resolved configuration goes by.

    A judge behind an endpoint is asked once, when the server of the subject is gone, and an Inspect task is scored by
    Inspect: what they say is not known in time, so every rung is asked.
    """
    late = config["judge"]["kind"] == "llm" or any(one["kind"] == INSPECT for one in config["evals"].values())
    return ALL if late else str(config["review"]["rungs"])


def coarse(steps: Iterable[int]) -> list[int]:
    """Return the steps that are asked first: powers of two and the last.

    >>> coarse([1, 2, 3, 4, 5, 6, 7, 8, 10])
    [1, 2, 4, 8, 10]
    """
    ladder = sorted(steps)
    return [step for step in ladder if step & (step - 1) == 0 or step == ladder[-1]]


def asked_of(rungs: Sequence[Rung], rule: str, answered: Collection[str] = ()) -> set[str]:
    """Return the ids of the rungs that are asked: rung 0, the controls, the coarse ones, and what has replies.

    All seeds of an arm are asked at the same steps, so that what is pooled over seeds is pooled over all of them.

    Args:
        rungs: every saved rung.
        rule: `around_collapse` or `all`.
        answered: ids of rungs that were proved, or have a reply, already.
    """
    ladders: dict[Key, list[int]] = {}
    for rung in rungs:
        if rung.role == "rung":
            ladders.setdefault((rung.arm, rung.seed), []).append(rung.step)
    steps = {(arm, step) for (arm, _), ladder in ladders.items() for step in coarse(ladder)}
    steps |= {(rung.arm, rung.step) for rung in rungs if rung.id in answered}
    return {rung.id for rung in rungs if rung.role != "rung" or rule == ALL or (rung.arm, rung.step) in steps}


def brackets(points: Sequence[CurvePoint], found: Collapses, review: ReviewConfig) -> Brackets:
    """Return between which asked steps refusal first falls to the threshold, and where it collapses, if not there.

    A fall at which ability is lost is no collapse, but a rung before it may be one; so may one before a rung at which
    ability is lost and refusal is not sure to stand, which would leave the verdict open.
    """
    places: dict[Key, set[tuple[int, int]]] = {
        key: {(one.after_step, one.step)} for key, one in found.items() if one is not None
    }
    refusal: dict[tuple[Key, str], dict[int, float]] = {}
    for point in points:
        if point.role == "refusal" and not point.kind and point.estimate.n:
            refusal.setdefault(((point.arm, point.seed), point.metric), {})[point.step] = point.estimate.value
    for (key, _), by_step in refusal.items():
        steps = sorted(by_step)
        fallen = [is_lost(by_step[step], review) for step in steps]
        if True in fallen and not fallen[0]:
            place = fallen.index(True)
            places.setdefault(key, set()).add((steps[place - 1], steps[place]))
    for key, curve in _by_step(points).items():
        places.setdefault(key, set()).update((low, high) for low, high, _ in unseen(curve, review))
    return {key: found_places for key, found_places in places.items() if found_places}


def _by_step(points: Iterable[CurvePoint]) -> dict[Key, dict[int, list[CurvePoint]]]:
    curves: dict[Key, dict[int, list[CurvePoint]]] = {}
    for point in points:
        if not point.kind:
            curves.setdefault((point.arm, point.seed), {}).setdefault(point.step, []).append(point)
    return curves


def further(rungs: Sequence[Rung], asked: Collection[str], found: Brackets) -> set[str]:
    """Return the ids of the rungs to ask next: of each arm the lowest of the middle ones within its brackets.

    One step an arm and round: what was cut off in the middle of a round is seen from any reply to it, so that the
    next command goes on as if there had been no cut.

    Args:
        rungs: every saved rung.
        asked: the ids of those whose replies are there.
        found: what `brackets` makes of their replies, for each seed and for the pooled curve.
    """
    chosen = set()
    for arm in {rung.arm for rung in rungs if rung.role == "rung"}:
        mine = [rung for rung in rungs if rung.arm == arm and rung.role == "rung"]
        open_steps = sorted({rung.step for rung in mine if rung.id not in asked})
        middles = set()
        for low, high in (place for (name, _), places in found.items() if name == arm for place in places):
            between = [step for step in open_steps if low < step < high]
            if between:
                middles.add(between[len(between) // 2])
        chosen |= {rung.id for rung in mine if rung.step == min(middles, default=-1) and rung.id not in asked}
    return chosen


def most(steps: Sequence[int], seeds: int) -> int:
    """Return how many rungs of a ladder are asked at most, for the plan's estimate.

    Each seed and the pooled curve may fall between other rungs, collapse between others again, and lose ability between
    yet others; halving n open rungs takes `n.bit_length()`.

    >>> most([1, 2, 3, 4, 5, 6, 7, 8], seeds=1)
    8
    >>> most([1, 2, 4, 8], seeds=3)
    4
    """
    base = coarse(steps)
    gaps = [sum(low < step < high for step in steps) for low, high in itertools.pairwise([0, *base])]
    return min(len(steps), len(base) + 3 * (seeds + 1) * max(gaps, default=0).bit_length())


def summary(rungs: Sequence[Rung], asked: Collection[str], found: Brackets) -> dict[str, Any]:
    """Return what the verdict says of it: rungs saved and asked, and by arm and seed the steps that were not asked.

    `open` are those steps, by arm, at which halving would have gone on: the budget ended before, or judge or thresholds
    are not those of the command that generated.
    """
    passed: dict[str, dict[str, list[int]]] = {}
    ladder = [rung for rung in rungs if rung.role == "rung"]
    for rung in ladder:
        if rung.id not in asked:
            passed.setdefault(rung.arm, {}).setdefault(str(rung.seed), []).append(rung.step)
    more = further(rungs, asked, found)
    left = {(rung.arm, rung.step) for rung in ladder if rung.id in more}
    return {
        "saved": len(ladder),
        "asked": sum(rung.id in asked for rung in ladder),
        "not_asked": passed,
        "open": dict(sorted(left)),
    }
