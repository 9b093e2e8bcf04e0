"""The compare stage as files: two run folders → comparison.json, comparison.html and a summary in the terminal.

Nothing is trained, served or judged, and neither run folder is written to. What is written holds labels, counts, doses
and digests; no prompt, no reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from pipeline.compare import searched
from pipeline.compare.cost import CostRatio, units
from pipeline.compare.page import write_page
from pipeline.compare.paired import paired_differences
from pipeline.compare.prices import Prices, ratio_of
from pipeline.compare.runs import FinishedRun, read_run
from pipeline.compare.same_plan import notes, one_machine, require_one_plan
from pipeline.compare.terminal import print_comparison
from pipeline.compare.words import NO_RATIO, Side, sentence, state, with_search
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.points import rounded
from pipeline.schema import CompareConfig

VERSION: Final = 1
METHOD: Final = (
    "Differences are B − A on the same prompts, paired by sample id, and the same seed numbers: a crossed table of "
    "seeds and prompts, two-level bootstrap, widened to a score interval with Student's t over seeds. The cost ratio "
    "is that of the geometric means over seeds of the doses at collapse; its limits cover the seeds (bootstrap, "
    "widened to Welch's t), the prompts (resampled for both runs alike, each collapse found anew) and every place "
    "between two rungs at which collapse may lie."
)


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
    prices = Prices(a, b)
    cost = prices.table(units(comparable_time=not one_machine(a, b)))
    unit = cost["unit"]
    sides = [_side(run, cost["cheapest"][unit][run.letter], prices.certain(run, unit)) for run in (a, b)]
    said = sentence(sides[0], sides[1], ratio_of(cost["cheapest"][unit]), unit)
    if cost["with_search"] and not said.startswith(NO_RATIO):
        found = cost["with_search"]["cheapest"].get(unit)
        said += with_search(ratio_of(found) if found else CostRatio("no data"), unit)
    made = {
        "version": VERSION,
        "sentence": said,
        "method": METHOD,
        "shared_plan_sha256": plan_sha256,
        "threat_model": a.verdict["threat_model"],
        "thresholds": dict(a.verdict["thresholds"]),
        "judge": {key: a.verdict["judge"][key] for key in ("kind", "version")},
        "notes": [*notes(a, b), *searched.notes(a, b), *prices.notes()],
        "runs": {run.letter: _facts(run, side) for run, side in zip((a, b), sides, strict=True)},
        "cost": cost,
        "differences": [row.as_dict() for row in paired_differences(a, b, without=searched.apart(a, b))],
    }
    return dict(rounded(made))


def _side(run: FinishedRun, prices: Mapping[str, Any], certain: int) -> Side:
    return Side(run.label, state(run), prices["collapsed"], prices["seeds"], certain)


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
        "searches": {
            arm: {key: entry.get(key) for key in ("chosen", "reason", "counts", "cost")}
            for arm, entry in run.searches.items()
        },
    }


def _folder_name(a: FinishedRun, b: FinishedRun) -> str:
    return f"compare-{a.plan['run_sha256'][:8]}-{b.plan['run_sha256'][:8]}"
