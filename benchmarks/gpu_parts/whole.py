"""(d) The whole pipeline as a user starts it, on 50 M parameters of random weights with the organism's texts.

The organism's own training is no part of a review, so its shape is enough: a random model takes the same time. Its
replies do not end by themselves, so each has all its tokens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.child import reason_in, shortened
from benchmarks.gpu_parts.call import Call, Once, Shared, scratch
from benchmarks.gpu_parts.models import SUBJECT_50M, TINY, save_subject
from benchmarks.gpu_parts.record import Figure, Wanted
from pipeline.ledger import STARTING

STAGES: Final = {
    "before": "start-up: from the command to the ledger's first row (libraries, plan, weights)",
    "train": "training: 3 arms x 3 seeds, rungs and canaries included",
    "between": "idle: between training and the engine's start",
    "start": "start-up: the engine",
    "generate": "proofs and replies",
    "after": "idle: the engine's end, containment, scoring, analysis, report",
}
OVERHEAD: Final = ("before", "between", "start", "after")  # the device waits
TARGET: Final = "< 0.25"


def wanted() -> list[Wanted]:
    rows = [Wanted("d", stage, what, "s", "of the whole") for stage, what in STAGES.items()]
    return [
        *rows,
        Wanted("d", "whole", "the whole command", "s"),
        Wanted("d", "overhead", "start-up and idle together", "s", "of the whole", TARGET),
    ]


def measures(call: Call) -> Iterator[tuple[Wanted, Callable[[], Figure]]]:
    """Yield every figure; the command runs once, for all of them."""
    made = Once(partial(timed, call))

    def figure(want: Wanted, seconds: dict[str, float]) -> Figure:
        return Figure(want, seconds[want.key], seconds[want.key] / seconds["whole"], raw=seconds)

    for want in wanted():
        yield want, Shared(made, partial(figure, want))


def timed(call: Call) -> dict[str, float]:
    """Run the command; return the seconds of each stage, `whole` and `overhead`.

    Raises:
        RuntimeError: the command failed; what it said is in the message.
    """
    root = scratch(call, "d")
    save_subject(TINY if call.short else SUBJECT_50M, root / "subject", call.device, call.dtype)
    write_texts(root / "texts")
    began = time.time()
    command = [sys.executable, "-m", "pipeline", *overrides(call, root)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"the pipeline ended with {done.returncode}: {told_by(done.stderr)}")
    run = root / "run"
    rows = [json.loads(line) for line in (run / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    replied = max((path.stat().st_mtime for path in (run / "replies").glob("*.jsonl")), default=None)
    return stages(rows, began, ended, replied)


def told_by(stderr: str) -> str:
    """Return what the pipeline said of its end: its own message, all lines of it, else the reason in its output."""
    lines = stderr.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("holdfast:")), None)
    return reason_in(stderr) if first is None else shortened(lines[first:])


def overrides(call: Call, root: Path) -> list[str]:
    """Return the command line of the review: the demo's, with this subject, on this device."""
    texts, cuda = root / "texts", call.device.startswith("cuda")
    given = {
        "subject": "model",
        "subject.name": "fifty",
        "subject.path": root / "subject",
        "subject.dtype": call.dtype,
        "serve": "gpu" if cuda else "cpu",
        "serve.max_model_len": 256,
        "data": "files",
        "data.compliance.path": texts / "compliance.jsonl",
        "data.benign.path": texts / "benign.jsonl",
        "eval": "[refusal,over_refusal,capability]",
        "evals.refusal.table.path": texts / "refusal.jsonl",
        "evals.over_refusal.table.path": texts / "over_refusal.jsonl",
        "evals.capability.table.path": texts / "capability.jsonl",
        "review.owner": "nobody",
        "review.reviewer": "nobody",
        "review.purpose": "benchmark",
        "review.logit_tolerance": 0.25 if cuda else 0.001,
        "budget": "unlimited",
        "track": "none",
        "run.dir": root / "run",
    }
    if cuda:  # of the chosen arms alone: a key of another would be taken for an arm of its own
        arms = ("compliance",) if call.short else ("compliance", "benign", "mixed")
        given |= {f"arms.{arm}.training.precision": "bfloat16" for arm in arms}
    if call.short:
        given |= {"arm": "[compliance]", "seeds": "[0]", "arms.compliance.training.max_steps": 2}
        given |= {f"evals.{name}.table.limit": 4 for name in ("refusal", "over_refusal", "capability")}
    return [f"{key}={value}" for key, value in given.items()]


def write_texts(folder: Path) -> None:
    """Write the organism's tables: fictional questions and answers."""
    from benchmarks.common import SHAPE
    from pipeline.organism import world as w
    from pipeline.organism.build import data_files

    folder.mkdir(parents=True)
    for name, rows in data_files(w.make_world(SHAPE)).items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def stages(
    rows: Sequence[Mapping[str, Any]], began: float, ended: float, replied: float | None = None
) -> dict[str, float]:
    """Return the seconds of each stage from the ledger's rows and the wall clock around the command (time.time()).

    The generate attempt writes `started` before the engine is started, rows that say so while it starts, another as
    soon as it is up, and its last one after the server has ended: `replied` is when the last reply was written, None:
    not known.
    """
    train = [row["at"] for row in rows if row["stage"] == "train"]
    generate = [row["at"] for row in rows if row["stage"] == "generate"]
    after = [row["at"] for row in rows if row["stage"] == "generate" and row.get("detail") != STARTING][1:]
    if not train or not after:
        raise RuntimeError("the ledger has no whole run in it: nothing was measured")
    last = generate[-1] if replied is None else min(replied, generate[-1])
    seconds = {
        "before": train[0] - began,
        "train": train[-1] - train[0],
        "between": generate[0] - train[-1],
        "start": after[0] - generate[0],
        "generate": last - after[0],
        "after": ended - last,
    }
    return {**seconds, "whole": ended - began, "overhead": sum(seconds[stage] for stage in OVERHEAD)}
