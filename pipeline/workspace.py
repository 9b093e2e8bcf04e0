"""What the stages of a run share: configuration, plan, folder, subject, tables, evals; opened once, when needed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from evals.base import EvalSpec, Judge, Metric, Sample
from pipeline.budget import JUDGE
from pipeline.config.cluster import asks_in_extra
from pipeline.config.limits import check_limits
from pipeline.data import contamination
from pipeline.data.benchmarks import make_eval, read_samples
from pipeline.data.tables import Row, read_table
from pipeline.data.variants import Way, base_name, expand
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.generate.asked import asked_of, rule_of
from pipeline.generate.canaries import Canary, choose
from pipeline.generate.proof import Canaries
from pipeline.inspectai import KIND as INSPECT
from pipeline.inspectai.task import InspectTask, inspect_tasks
from pipeline.judge.judging import make_judge
from pipeline.ledger import Attempt, Ledger
from pipeline.plan.earlier import judges_of_labels
from pipeline.plan.examples import example_facts
from pipeline.plan.facts import SubjectFacts
from pipeline.plan.inputs import eval_facts, judge_facts, search_facts, table_facts, task_facts
from pipeline.plan.make import make_plan
from pipeline.plan.registered import post_hoc
from pipeline.records import Rung
from pipeline.reproduce.machine import environment
from pipeline.rungs import read_rungs
from pipeline.schema import Config
from pipeline.search.dev import DevEvals, dev_evals, refuse_measured
from pipeline.serve.device import resolve_device
from pipeline.serve.launch import Ahead
from pipeline.store import RunFolder, task_folder
from pipeline.subject.folder import ORGANISM, data_folder, identity
from pipeline.subject.subject import Subject, open_subject

DEVICE_STAGES: Final = {"train", "generate"}  # the stages that need an accelerator, where the subject asks for one


class Workspace:
    """One run's inputs and its folder. Nothing is opened before it is asked for."""

    def __init__(self, config: Config, console: Console) -> None:
        self.config = config
        self.console = console
        self.replayed: frozenset[str] | None = None  # the rungs that the run asked which this one reproduces
        self.submits = False  # jobs on other machines train and serve, not this process
        self.ahead: Ahead | None = None  # the server's process, which imports while this one trains

    @property
    def uses_device(self) -> bool:
        """Whether this process trains or serves; if not, it needs no device and can say nothing of the run's."""
        return not self.submits and bool(DEVICE_STAGES & set(self.config.stages))

    @cached_property
    def device(self) -> str:
        """The device that trains and serves: cpu or cuda.

        Raises:
            UserError: this process trains or serves on cuda, and none can be used here.
        """
        wanted = self.config.serve.device
        return wanted if wanted == "cuda" and not self.uses_device else resolve_device(wanted)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, source and machine of this process; see `pipeline.reproduce.machine`. A device may be lacking."""
        wanted: str | None = self.config.serve.device
        if wanted == "auto":
            known = self.uses_device or (self.submits and not self._asks_for_gpus())
            wanted = self.device if known else None
        return environment(wanted, self.subject.sha256, touched=self.uses_device)

    def _asks_for_gpus(self) -> bool:
        """Say whether the jobs that this process submits may work on GPUs."""
        slurm = self.config.cluster.slurm
        return any(job.gpus or asks_in_extra(job.extra) for job in (slurm.train, slurm.serve))

    @cached_property
    def subject(self) -> Subject:
        """The opened subject."""
        return open_subject(self.config.subject)

    @cached_property
    def tables(self) -> dict[str, list[Row]]:
        """The training tables that some arm uses."""
        used = dict.fromkeys(name for arm in self.config.arms.values() for name in arm.mix)
        return {name: read_table(self.config.data[name], where=f"data.{name}", resolve=self._resolve) for name in used}

    @cached_property
    def judge(self) -> Judge:
        """The judge that decides the verdict."""
        return make_judge(self.config.judge, self.config.serve, self._hold_judge)

    def _hold_judge(self) -> AbstractContextManager[Attempt]:
        return self.ledger.attempt(JUDGE)

    @cached_property
    def panel(self) -> dict[str, Judge]:
        """The further judges, by the names that the panel gives them."""
        return {name: make_judge(one, self.config.serve, self._hold_judge) for name, one in self.config.panel.items()}

    @cached_property
    def specs(self) -> list[EvalSpec]:
        """The evals with their samples, scored by the judge that decides the verdict."""
        return self.specs_by(self.judge)

    def specs_by(self, judge: Judge) -> list[EvalSpec]:
        """Return the evals as another judge scores them; all read the same text, split by the tags of `judge`."""
        return [self._spec(way, judge) for way in self._ways]

    @cached_property
    def dev(self) -> dict[str, DevEvals]:
        """The dev evals of each arm that searches for its options; none of their prompts is measured."""
        searching = [name for name, arm in self.config.arms.items() if arm.sweep is not None]
        found = {name: dev_evals(self.config, name, self._resolve) for name in searching}
        refuse_measured(found, self._measured(), self.config.review.near_copy)
        return found

    @cached_property
    def inspect_tasks(self) -> dict[str, InspectTask]:
        """The evals that are Inspect tasks, loaded and hashed; they are served, scored and shown like the rest."""
        return inspect_tasks(self.config.evals)

    @cached_property
    def metrics(self) -> list[tuple[str, Metric]]:
        """Every metric with the name of its eval."""
        return [(spec.eval.name, metric) for spec in self.specs for metric in spec.eval.metrics]

    @cached_property
    def canaries(self) -> Canaries:
        """What is asked of each rung so that it proves itself; see `pipeline.generate.canaries`."""
        return Canaries(tuple(canary.ids for canary in self._canaries))

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The plan, hashed; see `pipeline.plan.make`."""
        subject = self.subject
        tables = {name: table_facts(rows, subject) for name, rows in self.tables.items()}
        evals = {spec.eval.name: eval_facts(spec, subject) for spec in self.specs}
        evals |= {name: task_facts(task, subject) for name, task in self.inspect_tasks.items()}
        facts = SubjectFacts(identity(self.config.subject), subject.parameters, subject.sha256)
        judge = judge_facts(self.config.judge.name, self.config.judge, self.judge)
        panel = [judge_facts(name, self.config.panel[name], judge) for name, judge in self.panel.items()]
        search = {
            name: search_facts(sweep, self.dev[name], subject)
            for name, arm in self.config.arms.items()
            if (sweep := arm.sweep) is not None
        }
        made = make_plan(self.config, facts, tables, evals, judge, panel, search)
        there = self._folder(made["run_sha256"]).plan
        if there.exists():  # it is paid for, its vLLM took what there is, and its examples were counted
            before = read_json(there)
            examples = before.get("examples") if before.get("run_sha256") == made["run_sha256"] else None
            if "score" not in self.config.stages:
                made |= judges_of_labels(before, made, self._folder(made["run_sha256"]).outcomes)
        else:
            check_limits(self.config, subject, self.tables, self.specs, self._canaries)
            examples = example_facts(self.config, subject, self.tables)
        return made | {"contamination": self._contamination()} | ({"examples": examples} if examples else {})

    @cached_property
    def registered(self) -> dict[str, Any]:
        """The plan that stands in the run folder: what was planned before anything ran.

        Raises:
            UserError: there is no run yet, or its plan.json is damaged.
        """
        return dict(read_json(self.folder.plan))

    @cached_property
    def post_hoc(self) -> dict[str, dict[str, Any]]:
        """What reads the replies and is not as registered; see `pipeline.plan.registered.post_hoc`."""
        return post_hoc(self.registered, self.plan)

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder that belongs to what can change a reply."""
        return self._folder(self.plan["run_sha256"])

    def _folder(self, sha: str) -> RunFolder:
        run = self.config.run
        root = Path(run.dir) if run.dir else Path(run.root) / f"{self.config.name}-{sha[:8]}"
        task = self.config.cluster.task
        folder = RunFolder(root.expanduser().absolute(), task_folder(task) if task else None)
        folder.option = "run.dir" if run.dir else "run.root"
        return folder

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, opened under the folder's lock: attempts that a kill left open are closed."""
        return Ledger(self.folder.ledger, self.config.budget, self.device, self.folder.ledgers())

    def rungs(self) -> list[Rung]:
        """Return rung 0, the controls and all rungs saved so far, in the plan's order."""
        return read_rungs(self.folder, self.ledger, [(task["arm"], task["seed"]) for task in self.plan["tasks"]])

    def asked(self) -> list[Rung]:
        """Return those of `rungs` whose replies are asked for so far: see `pipeline.generate.asked`."""
        rungs = self.rungs()
        asked = asked_of(rungs, self.rule, self.folder.answered())
        return [rung for rung in rungs if rung.id in asked]

    @property
    def rule(self) -> str:
        """The rule of the registered plan for which rungs are asked, whoever judges them now."""
        return rule_of(self.registered["config"])

    def _contamination(self) -> dict[str, Any]:
        """Return which training prompts are (nearly) measured ones, or refuse (`pipeline.data.contamination`)."""
        review = self.config.review
        tables = {name: [(row.id, row.prompt) for row in rows] for name, rows in self.tables.items()}
        refuse = review.contamination == "refuse"
        return contamination.check(tables, self._measured(), review.near_copy, refuse=refuse)

    def _measured(self) -> dict[str, list[tuple[str, str]]]:
        """Return the measured prompts by eval, as (id, text)."""
        measured = {
            spec.eval.name: [(s.id, text) for s in spec.eval.samples() for text in (s.prompt, s.question) if text]
            for spec in self.specs
        }
        return measured | {
            name: [(str(n), text) for n, text in enumerate(task.inputs, start=1)]
            for name, task in self.inspect_tasks.items()
        }

    @cached_property
    def _ways(self) -> list[Way]:
        """Every eval in each way it is asked, with its samples."""
        evals = {name: config for name, config in self.config.evals.items() if config.kind != INSPECT}
        return [
            way
            for name, config in evals.items()
            for way in expand(name, config, self._read_samples(name), self.subject)
        ]

    def _read_samples(self, name: str) -> list[Sample]:
        return read_samples(name, self.config.evals[name], self._resolve)

    def _spec(self, way: Way, judge: Judge) -> EvalSpec:
        config = self.config.evals[base_name(way.name)]
        made = make_eval(way.name, config, way.samples, judge, self.config.judge.reasoning, way.role)
        return EvalSpec(made, config.max_tokens, config.draws, config.temperature)

    def _resolve(self, path: str) -> str:
        if not path.startswith(ORGANISM):
            return path
        folder = data_folder(self.config.subject)
        if folder is None:
            raise UserError(f"{path}: only the built-in organism has such data", "name a file, e.g. data=files")
        return str(folder / path.removeprefix(ORGANISM))

    @cached_property
    def _canaries(self) -> list[Canary]:
        return choose(self.subject, self.tables, self.config.review.canaries)
