"""What is still to be run, in which order, and what ends a run of Inspect tasks early. Without server or inspect_ai."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pipeline.budget import Caps, Spent
from pipeline.errors import InstrumentError, UserError
from pipeline.inspectai.run import Job, _follow, log_file, pending
from pipeline.inspectai.scores import scores_file
from pipeline.inspectai.task import InspectTask
from pipeline.ledger import Allowance, Ledger
from pipeline.records import Rung
from pipeline.rungs import ZERO_RUNG, base_rung
from pipeline.schema import BudgetConfig
from pipeline.store import RunFolder
from pipeline.track.tracker import NullTracker

TASK = InspectTask("mine", "t.py@t", {}, None, 1, 8, 0.0, "shown", False, 4, "f" * 64, ())
RUNGS = [
    base_rung(""),
    Rung(ZERO_RUNG, "", -1, 0, "control", "adapter"),
    Rung("a-1", "a", 0, 1, sha256="1" * 64),
    Rung("a-2", "a", 0, 2, sha256="2" * 64),
]


@dataclass
class Said:
    """Events as a worker would send them."""

    events: list[dict[str, Any] | None]
    seen: list[Any] = field(default_factory=list)

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        self.seen.append(self.events[0])
        return self.events.pop(0)

    def tail(self) -> str:
        return "the end of its log"


@dataclass
class Up:
    """A server that lives or not."""

    living: bool = True

    def alive(self) -> bool:
        return self.living

    def tail(self) -> str:
        return "the end of the server's log"


@pytest.fixture
def work(tmp_path: Path) -> Any:
    budget = BudgetConfig()
    folder = RunFolder(tmp_path)
    return SimpleNamespace(
        folder=folder,
        inspect_tasks={"mine": TASK},
        subject=SimpleNamespace(parameters=10),
        config=SimpleNamespace(budget=budget),
        console=Console(file=io.StringIO()),
        ledger=Ledger(folder.ledger, budget, "cpu"),
    )


def finish(work: Any, rung: Rung, *, task: str = TASK.sha256, adapter: str | None = None, log: bool = True) -> None:
    scores = scores_file(work.folder, rung.id, "mine")
    scores.parent.mkdir(parents=True, exist_ok=True)
    told = {"task_sha256": task, "adapter_sha256": rung.sha256 if adapter is None else adapter}
    scores.write_text(json.dumps(told | {"columns": [], "means": {}, "metrics": [], "rows": []}))
    if log:
        log_file(work, rung.id, "mine").write_bytes(b"a log")


def test_rung_0_comes_first_and_controls_are_left_out(work: Any) -> None:
    assert [job.rung.id for job in pending(work, RUNGS[::-1])] == ["base", "a-2", "a-1"]


def test_what_is_finished_is_not_run_again_and_scores_without_a_log_are_not_finished(work: Any) -> None:
    finish(work, RUNGS[0])
    finish(work, RUNGS[2], log=False)
    assert [job.rung.id for job in pending(work, RUNGS)] == ["a-1", "a-2"]


@pytest.mark.parametrize("other", [{"task": "0" * 64}, {"adapter": "0" * 64}])
def test_a_log_of_another_task_or_adapter_is_told(work: Any, other: dict[str, str]) -> None:
    finish(work, RUNGS[2], **other)
    with pytest.raises(UserError, match="belongs to another task or adapter"):
        pending(work, RUNGS)


def follow(work: Any, events: list[dict[str, Any] | None], caps: Caps | None = None, server: Up | None = None) -> Any:
    jobs = [Job(rung, TASK) for rung in (RUNGS[0], RUNGS[2])]
    with work.ledger.attempt("generate") as attempt:
        allowance = Allowance(caps or Caps(), attempt, Spent())
        said: Any = Said(events)
        complete = _follow(work, server or Up(), allowance, jobs, NullTracker(), said)  # type: ignore[arg-type]
        return complete, attempt.tokens, attempt.flops, said


DONE = [{"event": "done", "rung": rung, "eval": "mine"} for rung in ("base", "a-1")]
USED = {"event": "used", "tokens": 7}


def test_tokens_and_flops_of_every_call_are_counted(work: Any) -> None:
    complete, tokens, flops, _ = follow(work, [USED, {}, DONE[0], USED, DONE[1]])
    assert (complete, tokens, flops) == (True, 14, 2.0 * 10 * 14)
    assert work.ledger.spent("generate").tokens == 14


def test_the_budgets_end_stops_it_before_the_next_call_fits_no_more(work: Any) -> None:
    complete, tokens, flops, said = follow(work, [USED, USED, USED, USED], Caps(flops=300.0))
    assert (complete, tokens) == (False, 14)
    assert flops <= 300.0
    assert len(said.events) == 2


def test_the_last_task_counts_even_where_the_budget_ends_with_it(work: Any) -> None:
    complete, *_ = follow(work, [DONE[0], {"event": "used", "tokens": 14}, DONE[1]], Caps(flops=600.0))
    assert complete


def test_a_failed_task_is_the_users_a_dead_server_the_instruments(work: Any) -> None:
    failed = {"event": "failed", "kind": "eval", "rung": "a-1", "eval": "mine", "what": "this scorer cannot"}
    with pytest.raises(UserError, match=r"evals.mine.task: t.py@t failed on rung a-1: this scorer cannot"):
        follow(work, [DONE[0], failed])
    with pytest.raises(InstrumentError, match="the vLLM server died"):
        follow(work, [failed], server=Up(living=False))


def test_a_worker_that_stops_early_is_told(work: Any) -> None:
    with pytest.raises(InstrumentError, match="ended early:\nthe end of its log"):
        follow(work, [DONE[0], None])
