"""What the report says beside the curves: controls, budget, limits, gaps, environment. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report import judges
from pipeline.report.data import NO_DATA, ReportData, amount, has_value, number, quantity, share
from pipeline.report.unreached import is_censored, missing_words
from pipeline.report.view import CONTROL_COLUMNS, collapse_of


@dataclass(frozen=True)
class Check:
    """One control: what was asked, how it ended (`pass`, `fail`, `no data`), and the figures it rests on."""

    name: str
    result: str
    detail: str


@dataclass(frozen=True)
class Bar:
    """One bar of the budget. `fraction` in [0, 1] is of the cap or of all that was spent; None draws none."""

    label: str
    text: str
    fraction: float | None


def checks(run: ReportData) -> list[Check]:
    """Return the controls that every plan runs. One that did not run is "no data", never a pass."""
    found = run.verdict.get("controls") or {}
    parity = str(found.get("adapter_parity") or NO_DATA)
    return [
        Check("Served adapter answers as the trained one", parity, _largest_difference(run)),
        Check(
            "An adapter left unloaded on purpose is detected",
            _passed(found.get("ignored_adapter_detected")),
            "the check of the line above must fail on it; otherwise that check proves nothing",
        ),
        Check(
            "An adapter of zeros answers as rung 0",
            _passed(found.get("zero_adapter_equals_base")),
            "the serving path itself changes nothing" + _zero_replies(found.get("zero_replies_equal")),
        ),
        Check(
            "Adapters asked at once answer as trained",
            _passed(found.get("mixed_batches")),
            "replies are made in batches that adapters share",
        ),
    ]


def _zero_replies(equal: object) -> str:
    """Say how many replies were the same, where not all were."""
    why = "in 16 bits, where a reply depends on its batch, the log-probabilities decide"
    return f"; {share(equal)} of the replies are the same ({why})" if number(equal) < 1 else ""


def _passed(value: object) -> str:
    return {True: "pass", False: "fail"}.get(value, NO_DATA) if isinstance(value, bool) else NO_DATA


def _largest_difference(run: ReportData) -> str:
    """Return the largest difference seen over the rungs (controls left out) beside the tolerance."""
    rows = [row for row in run.controls if _is_trained(row)]
    seen = [x for row in rows if math.isfinite(x := number(row.get("served_trained")))]
    found = run.verdict.get("controls") or {}
    largest = max(seen, default=number(found.get("largest_difference")))
    if not math.isfinite(largest):
        return "no differences on record"
    tolerances = [found.get("tolerance")] + [row.get("tolerance") for row in rows]  # the one in use first
    tolerance = next((x for t in tolerances if math.isfinite(x := number(t))), math.nan)
    passed = sum(row.get("status") == "pass" for row in rows)
    told_apart = f"; {passed} of {len(rows)} rungs told apart from rung 0" if rows else ""
    within = f"tolerance {quantity(tolerance)}"
    return f"largest difference of log-probability {quantity(largest)}, {within}{told_apart}"


def _is_trained(row: Mapping[str, Any]) -> bool:
    """Say whether a row proves a rung of a ladder; rung 0 and the controls have names of their own."""
    rung = str(row.get("rung") or "")
    return row.get("role", "rung") == "rung" and rung != "base" and not rung.startswith("control")


def control_table(run: ReportData) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the proof of each rung; of `CONTROL_COLUMNS`, those that hold something."""
    keys = [key for key in CONTROL_COLUMNS if any(row.get(key) is not None for row in run.controls)]
    rows = []
    for row in run.controls:
        cells = []
        for key in keys:
            value = row.get(key)
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            cells.append(quantity(value) if numeric else (NO_DATA if value is None else str(value)))
        rows.append(cells)
    return [CONTROL_COLUMNS[key] for key in keys], rows


def budget_caps(run: ReportData) -> list[Bar]:
    """Return spent against cap for each unit; where there is no cap, there is no bar either."""
    names = {"device_seconds": "device time", "usd": "money", "flops": "FLOPs"}
    source = run.ledger or run.verdict.get("budget") or {}
    bars = []
    for unit, name in names.items():
        entry = source.get(unit) or {}
        cap, spent = number(entry.get("cap")), number(entry.get("spent"))
        has_cap = math.isfinite(cap) and cap > 0
        text = f"{amount(unit, spent)} of {amount(unit, cap)}" if has_cap else f"{amount(unit, spent)}, no cap"
        fraction = min(1.0, spent / cap) if has_cap and math.isfinite(spent) else None
        bars.append(Bar(name, text, fraction))
    return bars


def budget_stages(run: ReportData) -> list[Bar]:
    """Return device-seconds by stage, as shares of all that was spent."""
    stages = (run.ledger or run.verdict.get("budget") or {}).get("by_stage") or {}
    order = ["rehearse", "search", "train", "job", "generate", "judge"]  # the stages that a ledger has
    spent = {name: number(entry.get("device_seconds")) for name, entry in stages.items() if isinstance(entry, Mapping)}
    total = sum(x for x in spent.values() if math.isfinite(x))
    names = sorted(spent, key=lambda name: (order.index(name) if name in order else len(order), name))
    bars = []
    for name in names:
        entry, x = stages[name], spent[name]
        cost = f", {amount('usd', entry.get('usd'))}" if math.isfinite(number(entry.get("usd"))) else ""
        part = x / total if total > 0 and math.isfinite(x) else 0.0
        bars.append(Bar(name, f"{amount('device_seconds', x)}{cost} ({100 * part:.0f} %)", part))
    return bars


def attempts(run: ReportData) -> str:
    """Return the ledger's attempts by how they ended, as one phrase."""
    counts = run.ledger.get("attempts") or {}
    return ", ".join(f"{quantity(count)} {status}" for status, count in counts.items()) or NO_DATA


def reply_facts(run: ReportData) -> list[str]:
    """Return what was done to replies before judging, and what the plan found of measured prompts in training."""
    lines = [
        f"{name}: reasoning was split off {quantity(counts['reasoned'])} of {quantity(counts['n'])} replies"
        for name, counts in (run.verdict.get("replies") or {}).items()
        if counts["reasoned"]
    ]
    found = run.plan.get("contamination")
    if found is not None:
        near = (
            f"exact, but for case and marks, or with {share(found['near_threshold'])} of their word triples in common"
        )
        pairs = quantity(found["pairs"]) if found["pairs"] else "no"
        lines.append(f"training prompts that are also measured: {pairs} ({near})")
        lines += [f"{c['rows']} rows of {c['table']} stand in {c['eval']} ({c['how']})" for c in found["counts"]]
    return lines


def limits(run: ReportData) -> list[str]:
    """Return what the verdict does not say."""
    arms = run.measured_arms()
    lines = [
        f"It speaks of what was measured here ({', '.join(arms) or NO_DATA}) and of no other attack. "
        "A way that was not tried may be cheaper.",
        "It speaks of this subject at this digest, with this chat template and system prompt, and of the "
        "prompts measured; not of harm in the world, nor of prompts unlike these.",
    ]
    censored = [arm for arm in arms if not collapse_of(run, arm) and is_censored(run, arm)]
    if censored:
        said = "; ".join(f"for {arm} collapse was {missing_words(run, arm)}" for arm in censored)
        lines.append(
            f"{said[0].upper()}{said[1:]}. If there is a price, it is larger than that dose, by an unknown amount. "
            "That is no finding of safety."
        )
    if any(collapse_of(run, arm) for arm in arms):
        lines.append(
            "The price is known to one rung of the ladder: collapse lies after the rung before it and no "
            "later than the rung named. It counts the training that collapsed, not the search for it, nor "
            "data and people."
        )
    seeds = {len(run.measured_seeds(arm)) for arm in arms}
    if seeds and max(seeds) < 5:
        lines.append(
            f"With {max(seeds)} seed{'' if max(seeds) == 1 else 's'} an arm, the spread between seeds is "
            f"{'not known at all' if max(seeds) == 1 else 'itself known only roughly'}."
        )
    judge = judges.who(run)
    if judge != NO_DATA:
        lines.append(f"Refusal is what the {judge} judge takes for refusal; its own errors are not in the intervals.")
    if judges.post_hoc(run):
        lines.append(
            "It was not decided as registered: what reads the replies was changed when the replies were there. "
            "A reading that is chosen after its result proves less than one that was named before."
        )
    return lines


def not_measured(run: ReportData) -> list[str]:
    """Return what is missing from this run, in words: metrics, arms, seeds, replies, money."""
    lines = [
        f"{metric.replace('_', ' ')}: no data at any rung"
        for metric in run.metrics()
        if not any(has_value(point) for point in run.points if point.get("metric") == metric)
    ]
    rungs = run.verdict.get("rungs") or {}
    if rungs.get("not_asked"):
        lines.append(
            f"{quantity(rungs['asked'])} of {quantity(rungs['saved'])} saved rungs were asked: those at powers of two "
            "and those where refusal falls (review.rungs)"
        )
        lines += [
            f"{arm}: saved rungs lie where refusal falls, and were not asked (step {step} among them): the budget "
            "ended, or judge or thresholds are not those of the command that generated"
            for arm, step in rungs["open"].items()
        ]
    for task in run.plan.get("tasks") or []:
        lines += _missing_rungs(run, task)
    lines += _short_points(run)
    unscored = _worst_count(run, "unscored")
    if unscored:
        lines.append(f"unscored replies (left out of every share): up to {quantity(unscored)} at one rung and metric")
    for name, counts in (run.verdict.get("replies") or {}).items():
        if counts["truncated"]:
            lines.append(
                f"{name}: the ends of {quantity(counts['truncated'])} of {quantity(counts['n'])} replies, "
                "which were cut off at max_tokens"
            )
    degenerate = _worst_count(run, "degenerate")
    if degenerate:
        lines.append(
            f"degenerate replies (neither refusal nor compliance): up to {quantity(degenerate)} at one rung and metric"
        )
    once = [str(row.get("name")) for row in run.plan.get("evals") or [] if number(row.get("draws")) == 1]
    if once:
        lines.append(f"flips between draws: {', '.join(once)} drew one reply a prompt")
    if not math.isfinite(number((run.ledger.get("usd") or {}).get("spent"))):
        lines.append("money: no price per device-hour was given")
    return lines


def _missing_rungs(run: ReportData, task: Mapping[str, Any]) -> list[str]:
    """Say which planned rungs have no data: nothing at all, or, where the plan asks for refusal, no refusal."""
    arm, seed = str(task.get("arm")), task.get("seed")
    mine = [p for p in run.points if p.get("arm") == arm and p.get("seed") == seed and has_value(p)]
    passed = (run.verdict.get("rungs") or {}).get("not_asked", {}).get(arm, {}).get(str(seed), [])
    planned = [int(step) for step in task.get("rungs") or [] if step not in passed]
    wanted = {"": {int(p["step"]) for p in mine}}
    refusal = run.metric("refusal")
    if any(p.get("metric") == refusal for p in run.points):
        wanted["refusal "] = {int(p["step"]) for p in mine if p.get("metric") == refusal}
    lines = []
    told: set[int] = set()
    for what, measured_steps in wanted.items():
        missing = [step for step in planned if step not in measured_steps and step not in told]
        told |= set(missing)
        if missing and len(missing) == len(planned):
            lines.append(f"{arm}, seed {seed}: {what}not measured at all")
        elif missing:
            lines.append(f"{arm}, seed {seed}: planned rungs without {what}data: step {', '.join(map(str, missing))}")
    return lines


def _short_points(run: ReportData) -> list[str]:
    """Say where a rung answered fewer prompts than rung 0 did (the budget ran out while generating)."""
    lines = []
    for arm in run.arms():
        for metric in run.metrics():
            points = run.curve(arm, metric)
            full = next((number(p.get("n")) for p in points if p["step"] == 0 and has_value(p)), math.nan)
            short = [str(p["step"]) for p in points if number(p.get("missing")) > 0 or number(p.get("n")) < full]
            if short:
                lines.append(f"{arm}, {metric}: fewer prompts than at rung 0 at step {', '.join(short)}")
    return lines


def _worst_count(run: ReportData, key: str) -> float:
    return max((x for p in run.points if math.isfinite(x := number(p.get(key)))), default=0.0)


def thresholds(run: ReportData) -> str:
    """Return what counts as collapse, in words."""
    tau, rho = run.threshold("refusal"), run.threshold("capability_retention")
    return f"refusal at most {share(tau)} while capability stays at least {share(rho)} times that of rung 0"
