"""The plan on one screen of the terminal, and its protocol on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.errors import UserError
from pipeline.files import write_atomic
from pipeline.plan.caps import amount, tell_over_caps
from pipeline.plan.examples import words
from pipeline.plan.make import at_most
from pipeline.plan.protocol import as_registered, protocol, registered_protocol
from pipeline.plan.registered import post_hoc
from pipeline.records import now
from pipeline.search import budget as search_budget

if TYPE_CHECKING:
    from pipeline.workspace import Workspace


def print_plan(plan: Mapping[str, Any], console: Console) -> None:
    """Print the plan on one screen: what will run, what it is estimated to cost, what the caps are."""
    estimate, budget, config = plan["estimate"], plan["config"]["budget"], plan["config"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("plan", f"{plan['name']}  {plan['plan_sha256'][:8]}, replies {plan['run_sha256'][:8]}")
    table.add_row("subject", f"{config['subject']['name']}")
    rungs = f"{at_most(plan)}{estimate['rungs']} rungs with rung 0 and control"
    table.add_row("arms", f"{', '.join(config['arms'])} x seeds {config['seeds']}, {rungs}")
    for name, found in plan["search"].items():
        table.add_row(f"search, {name}", search_budget.words(found, config["arms"][name]["sweep"]["share"]))
    for name, facts in (plan.get("examples") or {}).items():
        table.add_row(f"examples, {name}", "; ".join(words(facts)))
    shown = ", ".join(f"{e['name']} {e['samples']} x {e['draws']}" for e in plan["evals"])
    table.add_row("evals", f"{shown}: {estimate['replies']:,} replies, {estimate['measuring_tokens']:,} tokens at most")
    judges = ", ".join(dict.fromkeys(facts["name"] for facts in (plan["judge"], *plan["panel"])))
    table.add_row("judges", f"{judges}; {plan['judge']['name']} decides")
    table.add_row("training", f"{estimate['training_tokens']:,} tokens, {estimate['training_flops']:.3g} FLOPs")
    usd = "no price is set" if estimate["usd"] is None else f"{amount('usd', estimate['usd'])} USD"
    table.add_row(
        "estimate",
        f"{amount('device_seconds', estimate['device_seconds'])} device-seconds, {usd}, at an assumed "
        f"{estimate['assumed_flops_per_second']:.1g} FLOP/s; start-up not counted",
    )
    caps_set = [f"{budget[key]:,g} {key}" for key in ("device_seconds", "usd", "flops") if budget[key] is not None]
    table.add_row("caps", ", ".join(caps_set) or "none")
    review = config["review"]
    table.add_row(
        "collapse",
        f"refusal <= {review['refusal_threshold']:g} while capability >= {review['capability_retention']:g} x rung 0's",
    )
    console.print(table)


def print_protocol(work: Workspace) -> None:
    """Print the protocol to standard output; write it to `plan.output`, and to a run folder that is there already.

    A run folder keeps the protocol of its registered plan; printing makes no folder.

    Raises:
        UserError: the file can't be written.
    """
    there = work.folder.plan.exists() and work.registered.get("run_sha256") == work.plan["run_sha256"]
    made = now()
    if there:
        before = work.registered
        same = before["plan_sha256"] == work.plan["plan_sha256"]
        state = f"printed {made}; registered is `{before['plan_sha256']}`, {before.get('created')}"
        text = protocol(work.plan, as_registered(before) if same else state, post_hoc(before, work.plan))
        if not work.folder.protocol.exists():
            _write(work.folder.protocol, registered_protocol(before))
    else:
        text = protocol(work.plan, f"printed {made}, not registered: no run folder holds it yet")
    print(text, end="")
    tell_over_caps(work.plan, work.console)
    output = work.config.plan.output
    if output is not None:
        _write(Path(output).expanduser(), text)
        work.console.print(f"The protocol: {output}", soft_wrap=True, markup=False, highlight=False)


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text)
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"plan.output: cannot write {path}: {error.strerror}", "name another file") from None
