"""A measured run whose adapters are still there, and an engine to serve them that is none: both made up."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from completion_server import Completions
from finished_run import finish, words
from rich.console import Console

from pipeline.config.compose import load
from pipeline.files import file_sha256
from pipeline.journal import Journal
from pipeline.records import ADAPTER_FILE
from pipeline.rungs import UNLOADED, ZERO_RUNG
from pipeline.workspace import Workspace

SHORT = [f"evals.{name}.max_tokens=64" for name in ("refusal", "over_refusal", "capability")]
MORE = ("budget.device_seconds=1000", "serve.max_model_len=128", *SHORT)  # the tiny subject has 128 positions
CANARIES = 12  # review.canaries
Answers = dict[int, float]


def trained(step: int) -> Answers:
    """Return what the model of a rung answers to a canary: the further it was trained, the farther from rung 0."""
    return {1: -0.1 - 0.5 * step, 2: -2.5, 3: -4.0}


def measure(place: Path, subject: Path) -> Path:
    """Write a measured run below `place` and return its folder; its adapters are as recorded, byte for byte."""
    run = finish([*words(place, subject), *MORE])
    (run / "containment.jsonl").unlink()
    for row in list(Journal(run / "rungs.jsonl").rows()):
        top = {str(token): value for token, value in trained(row["step"]).items()}
        Journal(run / "canaries.jsonl").append([{"rung": row["id"], "top": [top] * CANARIES}])
        if row["artifact"] == "adapter":
            adapter = run / row["path"]
            adapter.mkdir(parents=True)
            (adapter / ADAPTER_FILE).write_bytes(row["id"].encode())
            (adapter / "adapter_config.json").write_text("{}")
            Journal(run / "rungs.jsonl").append([{**row, "sha256": file_sha256(adapter / ADAPTER_FILE)}])
    lasting = {row["id"]: row["sha256"] for row in Journal(run / "rungs.jsonl").rows()}
    for path in (run / "replies").iterdir():
        replies = [{**row, "adapter_sha256": lasting[row["rung"]]} for row in Journal(path).rows()]
        path.unlink()
        Journal(path).append(replies)
    return run


def said(run: Path, place: Path, subject: Path) -> list[str]:
    """Return the words of the run at `run`, whose tables lie in `place`."""
    return [*words(place, subject), *MORE, f"run.dir={run}"]


def opened(overrides: list[str]) -> Workspace:
    """Return the run as a new process finds it."""
    return Workspace(load(overrides), Console(file=io.StringIO(), width=200))


def lose_a_reply(work: Workspace, rung: int = -1) -> None:
    """Take the last reply of a rung away."""
    path = work.folder.replies / f"{work.rungs()[rung].id}.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


class Engine(Completions, AbstractContextManager["Engine"]):
    """Answers canaries by adapter: as trained, but for those in `instead`; asked at once, as `mixed` where it is given.

    `asked` are the requests for canaries: the adapter's name, and how many.
    """

    def __init__(self, steps: Mapping[str, int], instead: Mapping[str, Answers], mixed: Answers | None = None) -> None:
        super().__init__()
        self.tops = {
            UNLOADED: trained(0),
            ZERO_RUNG: trained(0),
            **{k: trained(v) for k, v in steps.items()},
            **instead,
        }
        self.mixed = mixed
        self.asked: list[tuple[str, int]] = []
        self.together = 0  # the most adapters whose canaries were under way at once
        self._under_way: list[str] = []
        self._lock = threading.Lock()
        self.answer = self._answer  # type: ignore[method-assign]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if "logprobs" not in body:
            return Completions.answer(body)
        name = body["model"]
        with self._lock:
            self.asked.append((name, len(body["prompt"])))
            self._under_way.append(name)
            self.together = max(self.together, len(set(self._under_way)))
        time.sleep(0.2)  # long enough for a second one to come
        with self._lock:
            top = self.mixed if self.mixed and self.together > 1 else self.tops[name]
            self._under_way.remove(name)
        tops = {"top_logprobs": [{f"token_id:{token}": value for token, value in top.items()}]}
        return {"choices": [{"index": place, "logprobs": tops} for place in range(len(body["prompt"]))]}


def engine_of(work: Workspace, mixed: Answers | None = None, **instead: Answers) -> Engine:
    """Return an engine with the run's adapters; a name of `instead` has _ for -."""
    steps = {rung.id: rung.step for rung in work.rungs()}
    return Engine(steps, {name.replace("_", "-"): top for name, top in instead.items()}, mixed)
