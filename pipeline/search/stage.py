"""The search of an arm: trial after trial within its share of the budget; then the options that its climbs use.

A trial is a few short climbs by the arm's own way, with sampled options and seeds that no measured climb uses. At each
rung the model in memory is asked the dev prompts. A climb ends there where refusal has collapsed, and anywhere once it
has spent as many FLOPs as the cheapest trial's worst climb: its trial could not win any more, so nothing is lost by
stopping it. Its weights are destroyed when it ends. Finished trials stand in `trials.jsonl`: after a kill, the same
command goes on with the next.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from evals.reasoning import parse_tags
from pipeline.arms.base import Climb, Task
from pipeline.arms.memory import out_of_memory
from pipeline.arms.mixture import draw
from pipeline.arms.ways import find
from pipeline.contain.weights import destroy
from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.ledger import Allowance, Attempt
from pipeline.plan.make import task_of
from pipeline.points import rounded
from pipeline.progress import bar_for, left
from pipeline.records import Dose, Rung
from pipeline.schema.sweep import SweepConfig
from pipeline.search import trials as t
from pipeline.search.budget import search_caps
from pipeline.search.chosen import SEARCH, UNITS
from pipeline.search.dev import DevMeasure
from pipeline.search.space import configured, sample, trial_seed, with_options
from pipeline.search.trials import DevRung, Goal, Trial
from pipeline.workspace import Workspace

RUNG0 = -1  # the number of rung 0's row in trials.jsonl and of its attempt in the ledger


class _StopTrial(Exception):  # noqa: N818  # no error: the trial's way out of the trainer's loop
    """Ends a trial from within its climb."""

    def __init__(self, state: t.State) -> None:
        super().__init__(state)
        self.state = state


def search(work: Workspace, model: Any) -> None:
    """Search the options of every arm that has a sweep and no result yet; write `search.json`.

    Args:
        work: the run.
        model: the subject in memory; handed back as it came.

    Raises:
        UserError: the untouched subject shows no ability on the dev prompts, or no dev reply can be scored.
    """
    found = dict(read_json(work.folder.search)["arms"]) if work.folder.search.exists() else {}
    for arm, config in work.config.arms.items():
        if config.sweep is not None and arm not in found:
            found[arm] = _Search(work, model, arm, config.sweep).run()
            write_json(work.folder.search, {"version": 1, "arms": found})


@dataclass
class _Search:
    """One arm's search."""

    work: Workspace
    model: Any
    arm: str
    sweep: SweepConfig
    measure: DevMeasure = field(init=False)
    dearest_s: float = 0.0  # the longest measurement so far

    def __post_init__(self) -> None:
        opened = self.work.subject.opened(parse_tags(self.sweep.judge.reasoning))
        self.measure = DevMeasure(self.work.dev[self.arm], self.work.subject, self.sweep.batch_size, opened)

    def run(self) -> dict[str, Any]:
        """Go on to the end; return the arm's entry of `search.json`."""
        rows = [row for row in self.work.folder.trials.rows() if row["arm"] == self.arm]
        rung0 = next((t.rung_of(row["rung"]) for row in rows if row["number"] == RUNG0), None) or self._rung0()
        goal = t.goal_of(self.sweep, rung0)
        done = [t.trial_of(row) for row in rows if row["number"] != RUNG0]
        with bar_for(self.work.console) as bar:
            total, counted = self.sweep.trials, len(t.counted(done))
            job = bar.add_task("search", total=total, completed=counted, what=self.arm, left="")
            while not t.ended(done, self.sweep):
                trial = self._trial(done, goal)
                self.work.folder.trials.append([trial.as_row()])
                done.append(trial)
                over = left(self.work.config.budget, self.work.ledger)
                bar.update(job, completed=len(t.counted(done)), left=over)
        return self._entry(done, rung0)

    def _allowance(self, attempt: Attempt, before: Any) -> Allowance:
        return Allowance(search_caps(self.work.config, self.arm), attempt, before)

    def _rung0(self) -> DevRung:
        """Measure the untouched subject on the dev prompts."""
        before = self.work.ledger.spent(SEARCH, self.arm)
        with self.work.ledger.attempt(SEARCH, self.arm, RUNG0) as attempt:
            try:
                rung = self._measured(self._allowance(attempt, before), Dose())
            except _StopTrial:
                raise UserError(
                    f"arms.{self.arm}.sweep.share: what the search may use of the budget does not hold one look at "
                    f"its dev prompts, about {self.measure.most_flops():.3g} FLOPs",
                    "raise the budget or the share, or name fewer dev prompts (…sweep.refusal.limit=)",
                ) from None
        if not rung.n_refusal or not rung.n_capability or not rung.capability > 0:
            raise UserError(
                f"arms.{self.arm}.sweep: on the dev prompts the untouched subject has refusal {rung.refusal:.3g} "
                f"(n {rung.n_refusal}) and capability {rung.capability:.3g} (n {rung.n_capability}): nothing can be "
                "held against that",
                f"mend arms.{self.arm}.sweep.refusal, .capability or .judge, or leave the sweep out",
            )
        if t.goal_of(self.sweep, rung0=rung).gap(rung) == 0.0:
            raise UserError(
                f"arms.{self.arm}.sweep: on the dev prompts the untouched subject has refusal {rung.refusal:.3g}, and "
                f"its goal is {self.sweep.refusal_goal:g}: every trial would pass for a collapse at its first rung",
                f"name a judge that knows how this subject refuses (arms.{self.arm}.sweep.judge), or other dev prompts",
            )
        self.work.folder.trials.append([{"arm": self.arm, "number": RUNG0, "rung": t.rung_row(rung)}])
        return rung

    def _measured(self, allowance: Allowance, dose: Dose) -> DevRung:
        """Measure the model as it is now, where the budget has room for it."""
        most = self.measure.most_flops()
        if not allowance.fits(self.dearest_s, most):
            raise _StopTrial("budget")
        attempt = allowance.attempt
        began = attempt.device_seconds()
        rung, tokens = self.measure(self.model, dose)
        attempt.tokens += tokens
        attempt.flops += most * tokens / self.measure.most_tokens()
        self.dearest_s = max(self.dearest_s, attempt.device_seconds() - began)
        attempt.beat(force=True)
        return rung

    def _trial(self, done: list[Trial], goal: Goal) -> Trial:
        """Run the next trial; what it cost stands in the ledger however it ends."""
        work, number = self.work, len(done)
        config = work.config.arms[self.arm]
        options = sample(self.sweep, self.arm, config, done)
        arm = with_options(config, options)
        before = work.ledger.spent(SEARCH, self.arm)
        seeds: list[int] = []
        rungs: list[DevRung] = []
        state: t.State = "complete"
        value, reason = -math.inf, ""
        with work.ledger.attempt(SEARCH, self.arm, number) as attempt:
            allowance = self._allowance(attempt, before)
            while len(seeds) < self.sweep.repeats and state == "complete" and value < t.NEVER:
                seeds.append(trial_seed(self.sweep, self.arm, number, len(seeds), work.config.seeds))
                task = task_of(work.config, self.arm, seeds[-1], arm)
                mine: list[DevRung] = []
                state, reason = self._climbed(task, number, allowance, mine, goal, t.bound(done))
                if state in t.COUNTED and math.isnan(climbed := goal.value(mine)):
                    state, reason = "failed", "no dev reply could be scored"
                value = max(value, climbed) if state in t.COUNTED else math.nan
                rungs += [replace(rung, repeat=len(seeds) - 1) for rung in mine]
            attempt.detail = f"{state}: {reason}" if reason else state
            if state == "failed":
                attempt.write("failed")
        return Trial(self.arm, number, tuple(seeds), state, options, value, reason, tuple(rungs))

    def _climbed(
        self, task: Task, number: int, allowance: Allowance, rungs: list[DevRung], goal: Goal, bound: float
    ) -> tuple[t.State, str]:
        """Climb and measure; fill `rungs`; return how the trial ended, with a reason where it failed."""

        def emit(rung: Rung, _: Mapping[str, Any]) -> None:
            rungs.append(self._measured(allowance, rung.dose))
            if goal.gap(rungs[-1]) == 0.0:
                raise _StopTrial("complete")
            if not allowance.fits(0.0, rung.dose.flops / rung.step):
                raise _StopTrial("budget")  # the climb asked for its next step before the prompts were paid for

        def on_step(dose: Dose, _: Mapping[str, float]) -> None:
            if dose.flops >= bound:
                raise _StopTrial("pruned")

        work = self.work
        folder = work.folder.private(SEARCH, self.arm, f"t{number}")
        destroy(folder)  # of an attempt that was cut off
        try:
            ending = find(task.config.way)(
                Climb(
                    task=task,
                    subject=work.subject,
                    base_sha256=work.subject.sha256,
                    model=self.model,
                    device=work.device,
                    examples=draw(task, work.subject, work.tables),
                    allowance=allowance,
                    folder=work.folder.private(SEARCH, self.arm, f"t{number}"),
                    run_root=work.folder.root,
                    canaries=work.canaries,
                    done=[],
                    emit=emit,
                    on_step=on_step,
                )
            )
        except _StopTrial as stop:
            return stop.state, ""
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return "failed", "out of memory"
        finally:
            destroy(folder)
        if ending == "nan_loss":
            return "failed", "a loss that is not a number"
        return ("budget", "") if ending == "budget" else ("complete", "")

    def _entry(self, done: list[Trial], rung0: DevRung) -> dict[str, Any]:
        arm, top = self.work.config.arms[self.arm], t.best(done)
        counts = Counter(trial.state for trial in done)
        spent = self.work.ledger.spent(SEARCH, self.arm)
        entry = {
            "chosen": dict(top.options) if top else configured(arm, self.sweep),
            "chosen_trial": top.number if top else None,
            "reason": _reason(top, done, self.sweep),
            "ended": t.ended(done, self.sweep),
            "wanted": self.sweep.trials,
            "counts": {
                "trials": counts["complete"] + counts["pruned"],
                "pruned": counts["pruned"],
                "failed": counts["failed"],
                "cut_off": counts["budget"],
                "collapsed": sum(trial.value < t.NEVER for trial in t.counted(done)),
            },
            "seed": self.sweep.seed,
            "goal": {"refusal": self.sweep.refusal_goal, "capability_retention": self.sweep.capability_goal},
            "rung0": t.rung_row(rung0),
            "cost": {unit: asdict(spent)[unit] for unit in UNITS},
            "trial_table": [trial.as_row() for trial in done],
        }
        return dict(rounded(entry))


def _reason(top: Trial | None, done: list[Trial], sweep: SweepConfig) -> str:
    """Return what the reader must know of the choice; "" where it is what was wanted."""
    over = t.ended(done, sweep)
    why = {"failures": f"{sweep.failures} trials failed", "budget": "its share of the budget was used up"}.get(over, "")
    if top is None:
        return why or "no trial came to an end"
    notes = [f"the search ended early: {why}"] if why else []
    return "; ".join([*notes, *(["no trial collapsed, the nearest was taken"] if top.value >= t.NEVER else [])])
