"""`stages=[reproduce]`: inputs and environment are held against the run's, the plan is run again, results are compared.

The run's own folder is only read. The reproduction is a run like any other, in a folder of its own: cut off, the same
command goes on there; `reproduction.json` in it says what came out.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from rich.console import Console

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.plan.registered import post_hoc, reply_differences
from pipeline.points import rounded
from pipeline.reproduce.consent import taken_over
from pipeline.reproduce.differs import NOT, Judgement, compare, judge
from pipeline.reproduce.environment import Difference, Severity, differences, unused
from pipeline.reproduce.overrides import given
from pipeline.reproduce.record import environments
from pipeline.reproduce.results import read_results
from pipeline.reproduce.source import Source, configuration, read_source
from pipeline.reproduce.terminal import print_before, print_reproduction
from pipeline.schema import Config
from pipeline.schema.contain import ContainConfig
from pipeline.schema.reproduce import ReproduceConfig
from pipeline.subject.folder import ORGANISM
from pipeline.workspace import Workspace

VERSION: Final = 1
FILE: Final = "reproduction.json"
EXIT_NOT_REPRODUCED: Final = 1
_CODE: Final = "this Holdfast makes another plan of the run's configuration"


def reproduce(
    config: ReproduceConfig,
    console: Console,
    run: Callable[[Workspace], None],
    contain: ContainConfig | None = None,
) -> None:
    """Run a finished run again and say what differs; with `dry` only say what differs before anything runs.

    Args:
        run: runs the stages that a workspace's configuration names.
        contain: what becomes of the adapters; None: they are destroyed.

    Raises:
        UserError: the run can't be read, an input is missing or is not the run's, the output folder holds another run.
        SystemExit: code 1 where the run was not reproduced.
    """
    assert config.run is not None, "config/review.py"
    source = read_source(config.run)
    made_of = configuration(source, config, contain or ContainConfig())
    _print_taken_over(made_of, console)
    work = Workspace(made_of, console)
    check_inputs(source.plan, _plan(work))
    _check_output(work)
    print_before(source, work.folder.root, found := _differences(source, work), console)
    if config.dry:
        words = shlex.join(word for word in given() if not word.startswith("reproduce.dry="))
        text = f"\nNothing was run. To run it:\n  holdfast {words}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
        return
    work.replayed = frozenset(rung for rung, _ in source.results.replies)
    run(work)
    results = compare(source.results, read_results(work.folder, weigh=True))
    same_plan = work.registered["plan_sha256"] == source.plan["plan_sha256"]
    judgement = judge(results, same_plan=same_plan)
    found = _differences(source, work)
    made = _content(source, work, found, results, judgement)
    write_json(work.folder.root / FILE, made)
    print_reproduction(made, console)
    console.print(f"\nThe comparison: {work.folder.root / FILE}", soft_wrap=True, highlight=False)
    if judgement.word == NOT:
        print(f"holdfast: reproduce: {judgement.sentence} (exit code {EXIT_NOT_REPRODUCED})", file=sys.stderr)
        raise SystemExit(EXIT_NOT_REPRODUCED)


def _print_taken_over(made_of: Config, console: Console) -> None:
    """Print what the run's plan decides of this machine, before anything of it is opened."""
    rows = [f"  {key}: {value}" for key, value in taken_over(made_of)]
    console.print("\n".join(["taken over from its plan, if not changed here:", *rows]), soft_wrap=True, markup=False)


def check_inputs(planned: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Make sure that subject, tables and evals are the run's. The organism is made on the spot: its recipe must be.

    Raises:
        UserError: some are not; each is named.
    """
    free = {"name", "parameters"}
    if str(planned["config"]["subject"]["path"]).startswith(ORGANISM):
        free.add("sha256")
    subjects = [{key: value for key, value in plan["subject"].items() if key not in free} for plan in (planned, now)]
    lines = [] if subjects[0] == subjects[1] else ["subject: its weights, tokenizer or template are not the run's"]
    lines += [f"data.{name}: its rows are not the run's" for name, sha in _changed(planned["data"], now["data"])]
    evals = ({row["name"]: (row["samples"], row["sha256"]) for row in plan["evals"]} for plan in (planned, now))
    lines += [f"evals.{name}: its samples are not the run's" for name, _ in _changed(*evals)]
    if lines:
        raise UserError(
            "reproduce.run: the inputs here are not those of the run:" + "".join(f"\n  - {line}" for line in lines),
            f"bring the run's own files back; {_ELSEWHERE}; nothing was run",
        )


_ELSEWHERE: Final = "where they lie elsewhere, say so: +reproduce.change.data.compliance.path=FILE"


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, one.get(name)) for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def _plan(work: Workspace) -> dict[str, Any]:
    """Return the plan; where an input is missing the error also says how to name another place."""
    try:
        return work.plan
    except UserError as error:
        raise UserError(error.what, f"{error.remedy}; {_ELSEWHERE}") from None


def _check_output(work: Workspace) -> None:
    plan = work.folder.plan
    if plan.exists() and read_json(plan).get("run_sha256") != work.plan["run_sha256"]:
        raise UserError(
            f"reproduce.output: {work.folder.root} holds another run", "name another folder, or move that one away"
        )


def _differences(source: Source, work: Workspace) -> list[Difference]:
    """Return how the environments differ: the run's, against this one and those that earlier commands here had."""
    here = [work.environment]
    if work.folder.plan.exists():
        record = read_json(work.folder.reproduce) if work.folder.reproduce.exists() else None
        here += [one for one in environments(work.registered, record) if one not in here]
    found = differences(source.environments, here, unused(work.config))
    return [*_plan_differences(source.plan, work.plan), *found]


def _plan_differences(planned: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Return what this Holdfast plans otherwise though the inputs are the same: its judge's version, a new option."""
    lines = reply_differences(planned, now)
    keys = dict.fromkeys([*(line.partition(":")[0] for line in lines), *post_hoc(planned, now)])
    return [Difference(f"plan.{key}", "as planned", "otherwise", Severity.INSTRUMENT, _CODE) for key in keys]


def _content(
    source: Source, work: Workspace, found: list[Difference], results: Mapping[str, Any], judgement: Judgement
) -> dict[str, Any]:
    """Return what `reproduction.json` holds: labels, counts, digests; no prompt, no reply, no path."""
    plans = {"run": source.plan, "again": work.registered}
    made = {
        "version": VERSION,
        "result": judgement.word,
        "sentence": judgement.sentence,
        "runs": {
            side: {
                "folder": folder.root.name,
                **{key: plan.get(key) for key in ("plan_sha256", "run_sha256", "created")},
            }
            for (side, plan), folder in zip(plans.items(), (source.folder, work.folder), strict=True)
        },
        "from_record": source.results.points is None,
        "environment": [difference.as_dict() for difference in found],
        **results,
    }
    return dict(rounded(made))
