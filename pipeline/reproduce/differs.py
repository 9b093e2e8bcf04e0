"""Did another run find the same? Adapters, replies, labels, curves, collapse, verdict: what differs. Pure.

Reproduced *exactly*: the same plan, and adapters, replies, labels and every estimate of the curves are the same to the
last bit, as are the verdict's words and steps; times and money are only told as ratios. Reproduced
*within its intervals*: the same verdict, of each arm too; each arm collapses (or is censored) as before, at a step
between those of the run's own seeds; every estimate, and what it is against rung 0 (its difference, and what is
retained of ability), lies in the interval that the run gave for it. Anything else is *not reproduced*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.reproduce.results import POINT, Count, Group, Key, PointKey, Results

EXACTLY: Final = "reproduced exactly"
WITHIN: Final = "reproduced within its intervals"
NOT: Final = "not reproduced"
_ROWS: Final = 40  # of a list in the file
_ROUNDING: Final = 1e-5  # of a value: curves.json holds six digits
_PARTS: Final = ("", "difference", "retention")  # of a point: its own estimate, and against rung 0
_NO_DATA: Final[Mapping[str, Any]] = {"value": None, "low": None, "high": None, "n": 0}


@dataclass(frozen=True)
class Judgement:
    """The word, and why it is no better: what differs; empty where nothing does."""

    word: str
    reasons: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The word with its reasons, as one sentence."""
        return f"{self.word}: {'; '.join(self.reasons)}" if self.reasons else self.word


def compare(run: Results, again: Results) -> dict[str, Any]:
    """Return what differs between a run and its reproduction, JSON-ready."""
    return {
        "adapters": _adapters(run.adapters, again.adapters),
        "replies": _counted(run.replies, again.replies, run.each_reply, again.each_reply),
        "labels": _counted(run.labels, again.labels, run.each_label, again.each_label),
        "judge": {"run": run.judge, "again": again.judge, "same": run.judge == again.judge},
        "curves": _curves(run, again),
        "collapse": _collapses(run.verdict, again.verdict),
        "verdict": _verdict(run.verdict, again.verdict),
        "spent": _ratios(run.spent, again.spent),
        "price": {arm: _ratios(units, again.collapse.get(arm, {})) for arm, units in run.collapse.items()},
    }


def judge(found: Mapping[str, Any], *, same_plan: bool) -> Judgement:
    """Return the word for what `compare` found.

    Args:
        same_plan: the digests of the two registered plans are the same.
    """
    against = [*_verdict_faults(found), *_curve_faults(found["curves"])]
    if against:
        return Judgement(NOT, tuple(against))
    less = [] if same_plan else ["the plan's digest differs"]
    less += _difference_words(found)
    return Judgement(WITHIN, tuple(less)) if less else Judgement(EXACTLY)


def _adapters(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, Any]:
    both = [rung for rung in one if rung in other]
    return {
        "n": len(one),
        "differ": [rung for rung in both if one[rung] != other[rung]],
        "missing": [rung for rung in one if rung not in other],
        "new": [rung for rung in other if rung not in one],
    }


def _counted(
    one: Mapping[Group, Count],
    other: Mapping[Group, Count],
    each: Mapping[Key, str] | None,
    others: Mapping[Key, str] | None,
) -> dict[str, Any]:
    """Count by rung and eval what differs or is there on one side alone; None where only digests are there."""
    rows = [
        {"rung": group[0], "eval": group[1], "n": one.get(group, (0,))[0], "differ": _different(group, each, others)}
        for group in sorted({*one, *other})
        if one.get(group) != other.get(group)
    ]
    counts = [row["differ"] for row in rows]
    n = sum(count for count, _ in one.values())
    return {"n": n, "differ": None if None in counts else sum(counts), "by": rows}


def _different(group: Group, each: Mapping[Key, str] | None, others: Mapping[Key, str] | None) -> int | None:
    if each is None or others is None:
        return None
    keys = {key for side in (each, others) for key in side if key[:2] == group}
    return sum(each.get(key) != others.get(key) for key in keys)


def _curves(run: Results, again: Results) -> dict[str, Any]:
    """Hold every point's estimates against the run's intervals; only digests where a side has no points."""
    found: dict[str, Any] = {"same": run.curves_sha256 == again.curves_sha256, "points": None, "largest": None}
    if run.points is None or again.points is None:
        return found | {"outside": None, "unmatched": None, "prompts": None}
    shared = [key for key in run.points if key in again.points]
    gaps = {key: _gap(run.points[key], again.points[key]) for key in shared}
    unmatched = [key for key in (*run.points, *again.points) if (key in run.points) != (key in again.points)]
    far = max(gaps, key=lambda key: gaps[key], default=None)
    outside = [
        (key, part)
        for key in shared
        for part in _PARTS
        if not _inside(_part(run.points[key], part), _part(again.points[key], part))
    ]
    prompts = [key for key in shared if run.points[key]["n"] != again.points[key]["n"]]
    return found | {
        "points": len(run.points),
        "largest": None if far is None or not gaps[far] else _row(far, run, again),
        "outside": {
            "n": len({key for key, _ in outside}),
            "rows": [_row(key, run, again, part) for key, part in outside[:_ROWS]],
        },
        "prompts": {"n": len(prompts), "rows": [_prompts_row(key, run, again) for key in prompts[:_ROWS]]},
        "unmatched": {"n": len(unmatched), "rows": [_place(key) for key in unmatched[:_ROWS]]},
    }


def _gap(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the distance of two estimates; no data on both sides is none, on one side infinite."""
    a, b = one["value"], other["value"]
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    return abs(float(b) - float(a))


def _part(point: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """Return a point's own estimate, or a part of it; where there is none, no data."""
    return (point[part] or _NO_DATA) if part else point


def _inside(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether the other estimate lies in this one's interval; no data agrees with no data alone."""
    if one["value"] is None or other["value"] is None:
        return one["value"] is other["value"]
    slack = _ROUNDING * max(1.0, abs(one["value"]))
    low, high = (one["value"] if limit is None else limit for limit in (one["low"], one["high"]))
    return bool(low - slack <= other["value"] <= high + slack)


def _row(key: PointKey, run: Results, again: Results, part: str = "") -> dict[str, Any]:
    one, other = (_part(side.points[key], part) for side in (run, again) if side.points)
    interval = {limit: one[limit] for limit in ("low", "high")}
    return {**_place(key), "part": part, "run": one["value"], "again": other["value"], **interval}


def _prompts_row(key: PointKey, run: Results, again: Results) -> dict[str, Any]:
    one, other = (side.points[key]["n"] for side in (run, again) if side.points)
    return {**_place(key), "run": one, "again": other}


def _place(key: PointKey) -> dict[str, Any]:
    return dict(zip(POINT, key, strict=True))


def _collapses(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each arm's (seed None) and each seed's collapse on both sides; a step of None with `censored` is known."""
    rows: list[dict[str, Any]] = []
    for arm in sorted({*one["arms"], *other["arms"]}):
        sides = [verdict["arms"].get(arm) for verdict in (one, other)]
        rows.append(_collapse_row(arm, None, *sides))
        of_seeds = [side["seeds"] if side else {} for side in sides]
        seeds = sorted({*of_seeds[0], *of_seeds[1]}, key=int)
        rows += [_collapse_row(arm, int(seed), *(side.get(seed) for side in of_seeds)) for seed in seeds]
    return rows


def _collapse_row(
    arm: str, seed: int | None, one: Mapping[str, Any] | None, other: Mapping[str, Any] | None
) -> dict[str, Any]:
    a, b = (None if side is None else {key: side[key] for key in ("step", "censored")} for side in (one, other))
    return {"arm": arm, "seed": seed, "run": a, "again": b, "same": a == b}


def _verdict(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    arms = sorted({*one["arms"], *other["arms"]})
    words = {arm: [side["arms"].get(arm, {}).get("verdict") for side in (one, other)] for arm in arms}
    return {
        "run": one["verdict"],
        "again": other["verdict"],
        "arms": {arm: {"run": a, "again": b} for arm, (a, b) in words.items()},
        "controls": {
            key: {"run": value, "again": other["controls"].get(key)} for key, value in one["controls"].items()
        },
    }


def _ratios(one: Mapping[str, float | None], other: Mapping[str, float | None]) -> dict[str, Any]:
    """Return both amounts and the reproduction's in units of the run's; None where one is not known or is nothing."""
    rows = {}
    for unit, before in one.items():
        now = other.get(unit)
        rows[unit] = {"run": before, "again": now, "ratio": now / before if before and now is not None else None}
    return rows


def _verdict_faults(found: Mapping[str, Any]) -> list[str]:
    verdict = found["verdict"]
    faults = []
    if verdict["run"] != verdict["again"]:
        faults.append(f"the verdict was {verdict['run']} and is {verdict['again']}")
    faults += [
        f"arm {arm} was {both['run'] or 'not there'} and is {both['again'] or 'not there'}"
        for arm, both in verdict["arms"].items()
        if both["run"] != both["again"]
    ]
    faults += [
        f"the control {key} was {both['run']} and is {both['again']}"
        for key, both in verdict["controls"].items()
        if both["run"] != both["again"]
    ]
    for row in found["collapse"]:
        if row["seed"] is None and not row["same"] and not _between_seeds(row, found["collapse"]):
            faults.append(f"arm {row['arm']} {_state(row['run'])} and now {_state(row['again'])}")
    return faults


def _between_seeds(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether an arm's new step lies between those at which the run's own seeds collapsed."""
    seeds = [r["run"]["step"] for r in rows if r["arm"] == row["arm"] and r["seed"] is not None and r["run"]]
    steps = [step for step in seeds if step is not None]
    now = row["again"]["step"] if row["again"] else None
    before = row["run"]["step"] if row["run"] else None
    return before is not None and now is not None and bool(steps) and min(steps) <= now <= max(steps)


def _state(side: Mapping[str, Any] | None) -> str:
    if side is None:
        return "was not there"
    if side["step"] is not None:
        return f"collapsed at step {side['step']}"
    return "did not collapse (censored)" if side["censored"] else "was not measured, or had nothing to strip or to keep"


def _curve_faults(curves: Mapping[str, Any]) -> list[str]:
    if curves["outside"] is None:
        return [] if curves["same"] else ["the curves differ; without the run's curves.json nobody knows by how much"]
    faults = []
    if curves["unmatched"]["n"]:
        faults.append(f"{curves['unmatched']['n']} points of the curves are on one side only")
    if curves["outside"]["n"]:
        outside = f"{curves['outside']['n']} of {curves['points']} estimates lie outside the run's intervals"
        faults.append(f"{outside}, first {_named(curves['outside']['rows'][0])}")
    return faults


def _where(row: Mapping[str, Any]) -> str:
    where = f"{row['metric']} of {row['arm']}, " + ("" if row["seed"] is None else f"seed {row['seed']}, ")
    return f"{where}step {row['step']}" + (f" ({row['kind']})" if row["kind"] else "")


def _named(row: Mapping[str, Any]) -> str:
    part = {"": "", "difference": ", the difference from rung 0", "retention": ", what is retained"}[row["part"]]
    return f"{_where(row)}{part}: {_number(row['run'])} → {_number(row['again'])}"


def _number(value: float | None) -> str:
    return "no data" if value is None else f"{value:.3g}"


def _difference_words(found: Mapping[str, Any]) -> list[str]:
    """Return what is not the same to the last bit, in words."""
    words = []
    adapters = found["adapters"]
    changed = len(adapters["differ"])
    if changed:
        words.append(f"{changed} of {adapters['n']} adapters differ")
    apart = len(adapters["missing"]) + len(adapters["new"])
    if apart:
        words.append(f"{apart} adapters are on one side only")
    for name in ("replies", "labels"):
        part = found[name]
        if part["by"]:
            count = "some" if part["differ"] is None else part["differ"]
            words.append(f"{count} of {part['n']:,} {name} differ")
    if not found["judge"]["same"]:
        words.append("the judge's version differs")
    if not found["curves"]["same"]:
        words.append("the curves differ within the run's intervals")
    if found["curves"]["prompts"] and found["curves"]["prompts"]["n"]:
        part, first = found["curves"]["prompts"], found["curves"]["prompts"]["rows"][0]
        words.append(
            f"{part['n']} of {found['curves']['points']} estimates rest on another number of prompts (first "
            f"{_where(first)}: {first['run']} → {first['again']})"
        )
    seeds = sum(row["seed"] is not None and not row["same"] for row in found["collapse"])
    if seeds:
        words.append(f"{seeds} of the seeds collapsed at another step")
    arms = [row["arm"] for row in found["collapse"] if row["seed"] is None and not row["same"]]
    return [*words, *(f"arm {arm} collapsed at another step, between those of the run's seeds" for arm in arms)]
