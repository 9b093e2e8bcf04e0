"""Which of the saved rungs are asked for replies: first the coarse ones, then those around the collapse.

Saving a rung costs a file, asking it every prompt of every eval. A price needs close rungs only where refusal
collapses. So the rungs at powers of two and the last of each ladder are asked first; then, arm by arm and for all its
seeds alike, the middle one of those between the last rung before a collapse and the rung of the collapse, until none
is left between them: each doubling of `rungs_per_doubling` costs one rung more. Where refusal falls, rises and falls
again between two rungs that were asked, the first fall is not seen, as with rungs at powers of two alone.

Judge and thresholds are those of the command that generates. `asked.jsonl` keeps what was chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline.inspectai import KIND as INSPECT
from pipeline.points import Collapses
from pipeline.records import Rung
from pipeline.store import Journal, RunFolder

AROUND, ALL = "around_collapse", "all"
RUNG_RULES: Final = (AROUND, ALL)


def rule_of(config: Mapping[str, Any]) -> str:
    """Return the rule that a resolved configuration goes by.

    A judge behind an endpoint is asked once, when the server of the subject is gone, and an Inspect task is scored by
    Inspect: what they say is not known in time, so every rung is asked.
    """
    late = config["judge"]["kind"] == "llm" or any(one["kind"] == INSPECT for one in config["evals"].values())
    return ALL if late else str(config["review"].get("rungs", ALL))  # a plan of an earlier Holdfast names none


def coarse(steps: Iterable[int]) -> list[int]:
    """Return the steps that are asked first: powers of two and the last.

    >>> coarse([1, 2, 3, 4, 5, 6, 7, 8, 10])
    [1, 2, 4, 8, 10]
    """
    ladder = sorted(steps)
    return [step for step in ladder if step & (step - 1) == 0 or step == ladder[-1]]


def first(rungs: Sequence[Rung], rule: str = AROUND) -> set[str]:
    """Return the ids of the rungs that are asked whatever they say: rung 0, the controls, each ladder's coarse ones."""
    chosen = {rung.id for rung in rungs if rung.role != "rung" or rule == ALL}
    ladders: dict[tuple[str, int], list[Rung]] = {}
    for rung in rungs:
        if rung.role == "rung":
            ladders.setdefault((rung.arm, rung.seed), []).append(rung)
    for ladder in ladders.values():
        steps = coarse(rung.step for rung in ladder)
        chosen |= {rung.id for rung in ladder if rung.step in steps}
    return chosen


def further(rungs: Sequence[Rung], asked: Collection[str], found: Collapses) -> set[str]:
    """Return the ids of the rungs to ask next: of each arm the middle ones within its collapses' brackets.

    Args:
        rungs: every saved rung.
        asked: the ids of those whose replies are there.
        found: the collapses that their replies show, of each seed and of the pooled curve.
    """
    chosen = set()
    for arm in {rung.arm for rung in rungs if rung.role == "rung"}:
        mine = [rung for rung in rungs if rung.arm == arm and rung.role == "rung"]
        open_steps = sorted({rung.step for rung in mine if rung.id not in asked})
        middles = set()
        for collapse in (one for (name, _), one in found.items() if name == arm and one is not None):
            between = [step for step in open_steps if collapse.after_step < step < collapse.step]
            if between:
                middles.add(between[len(between) // 2])
        chosen |= {rung.id for rung in mine if rung.step in middles and rung.id not in asked}
    return chosen


def most(steps: Sequence[int], seeds: int) -> int:
    """Return how many rungs of a ladder are asked at most, for the plan's estimate.

    Each seed and the pooled curve may collapse between other rungs; halving n open rungs takes `n.bit_length()`.

    >>> most([1, 2, 3, 4, 5, 6, 7, 8], seeds=1)  # 1, 2, 4, 8 and two brackets of at most two rungs
    8
    >>> most([1, 2, 4, 8], seeds=3)
    4
    """
    base = coarse(steps)
    gaps = [sum(low < step < high for step in steps) for low, high in itertools.pairwise([0, *base])]
    return min(len(steps), len(base) + (seeds + 1) * max(gaps, default=0).bit_length())


def journal(folder: RunFolder) -> Journal:
    """Return the record of the chosen rungs, one row each, written only where some saved rung is not asked."""
    return Journal(folder.root / "asked.jsonl", made_again=True)


def recorded(folder: RunFolder) -> set[str]:
    """Return the ids of the rungs that were chosen so far; empty where nothing had to be chosen."""
    return {str(row["rung"]) for row in journal(folder).rows()}


def asked_of(rungs: Sequence[Rung], folder: RunFolder) -> list[Rung]:
    """Return those of the rungs that were chosen, in their order; all of them where nothing had to be chosen."""
    chosen = recorded(folder)
    return [rung for rung in rungs if not chosen or rung.id in chosen]


def record(folder: RunFolder, rungs: Sequence[Rung], chosen: Collection[str]) -> None:
    """Add to the record what is new; where all rungs are asked from the start, there is none."""
    there = recorded(folder)
    if there or len(chosen) < len(rungs):
        journal(folder).append({"rung": rung.id} for rung in rungs if rung.id in chosen and rung.id not in there)


def summary(rungs: Sequence[Rung], folder: RunFolder) -> dict[str, Any]:
    """Return what the verdict says of it: rungs saved and asked, and by arm and seed the steps that were not asked."""
    asked = {rung.id for rung in asked_of(rungs, folder)}
    passed: dict[str, dict[str, list[int]]] = {}
    for rung in rungs:
        if rung.role == "rung" and rung.id not in asked:
            passed.setdefault(rung.arm, {}).setdefault(str(rung.seed), []).append(rung.step)
    ladder = [rung.id for rung in rungs if rung.role == "rung"]
    return {"saved": len(ladder), "asked": len(asked & set(ladder)), "not_asked": passed}
