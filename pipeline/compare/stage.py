"""The compare stage as files: two run folders → comparison.json, comparison.html and a summary in the terminal.

Nothing is trained, served or judged, and neither run folder is written to. What is written holds labels, counts, doses
and digests; no prompt, no reply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from pipeline.compare.cost import CostRatio, Ladder, PriceBounds, cost_ratio, ladders, price_bounds, units, unmeasured
from pipeline.compare.page import write_page
from pipeline.compare.paired import paired_differences
from pipeline.compare.runs import FinishedRun, read_run
from pipeline.compare.same_plan import notes, one_machine, require_one_plan
from pipeline.compare.terminal import print_comparison
from pipeline.compare.words import Side, sentence, state
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.points import rounded
from pipeline.schema import CompareConfig

VERSION: Final = 1
METHOD: Final = (
    "Differences are B − A on the same prompts, paired by sample id, and the same seed numbers: a crossed table of "
    "seeds and prompts, two-level bootstrap, widened to a score interval with Student's t over seeds. The cost ratio "
    "is that of the geometric means over seeds of the doses at collapse; its limits cover the seeds (bootstrap, "
    "widened to Welch's t) and every place between two rungs at which collapse may lie."
)
_Ladders = Mapping[tuple[str, int], Ladder]


def compare_runs(config: CompareConfig, console: Console) -> None:
    """Compare two finished runs and write what was found.

    Raises:
        UserError: a run is missing, unfinished or in use; the two are not on one plan (the differences are listed);
            the output folder can't be written.
    """
    a, b = (read_run(path, letter) for path, letter in zip(config.runs, "AB", strict=True))
    made = comparison(a, b)
    folder = Path(config.output).expanduser() if config.output else Path(_folder_name(a, b))
    try:
        write_json(folder / "comparison.json", made)
        write_page(a.report, b.report, made, folder / "comparison.html")
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"compare.output: cannot write {folder}: {error.strerror}", "name another folder with compare.output="
        ) from None
    print_comparison(made, console)
    console.print(f"\nThe comparison: {folder / 'comparison.html'}", soft_wrap=True, highlight=False)


def comparison(a: FinishedRun, b: FinishedRun) -> dict[str, Any]:
    """Return the content of `comparison.json`.

    Raises:
        UserError: the two are not on one plan, or a run's curves are not of its outcomes.
    """
    plan_sha256 = require_one_plan(a, b)
    of_a, of_b = ladders(a), ladders(b)
    known = units(comparable_time=not one_machine(a, b))
    review = (float(a.verdict["thresholds"]["confidence"]), int(a.plan["config"]["review"]["bootstrap"]))
    cheapest = {unit: _cost(of_a, of_b, unit, None, review) for unit in known}
    unit = "flops" if cheapest["flops"]["case"] != "no data" else "steps"
    sides = [_side(run, cheapest[unit][run.letter]) for run in (a, b)]
    made = {
        "version": VERSION,
        "sentence": sentence(sides[0], sides[1], _ratio(cheapest[unit]), unit),
        "method": METHOD,
        "shared_plan_sha256": plan_sha256,
        "threat_model": a.verdict["threat_model"],
        "thresholds": dict(a.verdict["thresholds"]),
        "judge": {key: a.verdict["judge"][key] for key in ("kind", "version")},
        "notes": [*notes(a, b), *_left_out(a.label, of_a), *_left_out(b.label, of_b)],
        "runs": {run.letter: _facts(run, side) for run, side in zip((a, b), sides, strict=True)},
        "cost": {
            "unit": unit,
            "cheapest": cheapest,
            "arms": {arm: {u: _cost(of_a, of_b, u, arm, review) for u in known} for arm in a.arms()},
        },
        "differences": [row.as_dict() for row in paired_differences(a, b)],
    }
    return dict(rounded(made))


def _left_out(label: str, found: _Ladders) -> list[str]:
    """Say which arms and seeds of a run were not measured beyond rung 0, so that the seed is in no cheapest price."""
    seeds: dict[str, list[str]] = {}
    for arm, seed in unmeasured(found):
        seeds.setdefault(arm, []).append(str(seed))
    return [
        f"{label}: {arm} was not measured in seed{'' if len(which) == 1 else 's'} {', '.join(which)}: left out of the "
        "ratio, since what was not measured may be the cheapest way"
        for arm, which in seeds.items()
    ]


def _cost(of_a: _Ladders, of_b: _Ladders, unit: str, arm: str | None, review: tuple[float, int]) -> dict[str, Any]:
    """Return the price of both in one unit, and their ratio; `arm` None: the cheapest of the arms, seed by seed."""
    doses = {letter: price_bounds(found, unit, arm) for letter, found in (("A", of_a), ("B", of_b))}
    one, other = ([dose for _, dose in doses[letter].values()] for letter in "AB")
    ratio = cost_ratio(one, other, *review)
    limits = {key: getattr(ratio, key) for key in ("case", "value", "low", "high", "rungs_low", "rungs_high")}
    return limits | {letter: _prices(found) for letter, found in doses.items()}


def _prices(found: Mapping[int, tuple[str, PriceBounds]]) -> dict[str, Any]:
    collapsed = sum(dose.collapsed for _, dose in found.values())
    arms = [arm for arm, _ in Counter(arm for arm, _ in found.values()).most_common()]
    seeds = {str(seed): {"arm": arm, "low": dose.low, "high": dose.high} for seed, (arm, dose) in found.items()}
    return {"collapsed": collapsed, "seeds": len(found), "arms": arms, "by_seed": seeds}


def _ratio(cost: Mapping[str, Any]) -> CostRatio:
    return CostRatio(*(cost[key] for key in ("case", "value", "low", "high", "rungs_low", "rungs_high")))


def _side(run: FinishedRun, prices: Mapping[str, Any]) -> Side:
    return Side(run.label, state(run), str(run.verdict["verdict"]), prices["collapsed"], prices["seeds"])


def _facts(run: FinishedRun, side: Side) -> dict[str, Any]:
    subject = run.plan["subject"]
    return {
        "label": run.label,
        "run": run.folder.name,
        "subject": {key: subject.get(key) for key in ("name", "revision", "parameters", "sha256", "chat_template")},
        "state": side.state,
        "verdict": run.verdict["verdict"],
        "sentence": run.verdict["sentence"],
        "worst_arm": run.verdict["worst_arm"],
        "collapse": {arm: (entry.get("collapse") or {}).get("step") for arm, entry in run.verdict["arms"].items()},
        "plan_sha256": run.plan["plan_sha256"],
        "run_sha256": run.plan["run_sha256"],
        "created": run.plan.get("created"),
        "spent": dict(run.spent),
    }


def _folder_name(a: FinishedRun, b: FinishedRun) -> str:
    return f"compare-{a.plan['run_sha256'][:8]}-{b.plan['run_sha256'][:8]}"
