"""(d) How the time beyond start-up grows with the number of rungs, at a fixed number of training steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.common import RANK, Line, Result, Sizes, eval_specs, make_subject, serve_config, write_replies
from benchmarks.training import Course, make_course, with_ladder
from evals.base import EvalSpec
from pipeline.arms.lora import adapter_on
from pipeline.generate import matrix, read_replies
from pipeline.proof import check
from pipeline.records import ADAPTER_FILE, Rung
from pipeline.rungs import ZERO_RUNG, base_rung
from pipeline.serve import BASE_NAME, Server, served_logprobs
from pipeline.store import RunFolder, file_sha256
from pipeline.train import prepare_process

TOLERANCE = 1e-3
TARGET = "<= 1.3 a doubling"
STAGES = ("train", "prove", "generate", "score")


def measure(sizes: Sizes, root: Path) -> Result:
    """Measure the whole job for each number of rungs; the server's start is left out, everything else is in."""
    course, specs = make_course(make_subject(root), sizes.steps), eval_specs(sizes.prompts)
    prepare_process(course.subject.parameters, "cpu")
    one_job(course.cut(2), specs, 1, root / "warm-up")
    timings = {count: one_job(course, specs, count, root / f"rungs-{count}") for count in sizes.ladder}
    lines = [line for stage in ("beyond start-up", *STAGES) for line in _growth(stage, timings)]
    title = f"{sizes.steps} steps, {len(specs)} evals x {sizes.prompts} prompts, rung 0 and zero control included"
    return Result("d", title, tuple(lines), {str(count): seconds for count, seconds in timings.items()})


_WHAT = {
    "beyond start-up": "train + prove + generate + score",
    "train": "one arm and seed, checkpoints and canaries included",
    "prove": "canaries asked of the server under each adapter",
    "generate": "replies written",
    "score": "the pattern judge on every reply",
}


def _growth(stage: str, timings: Mapping[int, Mapping[str, float]]) -> Iterator[Line]:
    """Yield one line for each number of rungs, with its ratio to the number before."""
    whole = stage == "beyond start-up"
    before: tuple[int, float] | None = None
    for count, seconds in timings.items():
        now = sum(seconds[name] for name in STAGES) if whole else seconds[stage]
        side = f"{stage}, {count} rungs"
        if before is None:
            yield Line(side, now, _WHAT[stage])
        else:
            yield Line(side, now, _WHAT[stage], now / before[1], f"{before[0]} rungs", TARGET if whole else "")
        before = (count, now)


def spread(count: int, steps: int) -> list[int]:
    """Return `count` different steps up to `steps`, evenly spaced on a log axis where the steps are many enough.

    Raises:
        ValueError: there are fewer steps than rungs.
    """
    if count > steps:
        raise ValueError(f"{count} rungs do not fit in {steps} steps")
    chosen = {steps}
    wanted = [round(steps ** (place / count)) for place in range(count, 0, -1)]
    for step in [*wanted, *range(1, steps + 1)]:
        if len(chosen) < count:
            chosen.add(step)
    return sorted(chosen)


def one_job(course: Course, specs: Sequence[EvalSpec], count: int, root: Path) -> dict[str, float]:
    """Train one arm with `count` rungs, serve, prove, generate and score; return the seconds of each stage.

    Rung 0 and the zero-adapter control are served and measured beside the rungs, as in every plan.
    """
    began = time.perf_counter()
    base, zero, apart = _fixed(course, root)
    rungs = [base, zero, *with_ladder(course, spread(count, course.steps), root)]
    seconds = {"train": time.perf_counter() - began}
    cells = matrix(rungs, specs, course.subject)
    adapters = {rung.id: root / rung.path for rung in rungs if rung.artifact == "adapter"}
    config = serve_config()
    log, references = root / "server.log", {row["rung"]: row["top"] for row in RunFolder(root).canaries.rows()}
    began = time.perf_counter()
    with Server(course.subject, adapters, [RANK], config, log) as server:
        seconds["start"] = time.perf_counter() - began
        began = time.perf_counter()
        with server.client() as client:
            for rung in rungs[2:]:
                trained = [{int(token): value for token, value in line.items()} for line in references[rung.id]]
                served = served_logprobs(client, rung.id, course.canaries.prompts)
                proof = check(rung.id, served=served, trained=trained, base=apart, tolerance=TOLERANCE)
                if proof.status not in ("pass", "unresolved"):
                    raise RuntimeError(f"{rung.id}: {proof.status}: what is timed is not what was trained")
            served_logprobs(client, BASE_NAME, course.canaries.prompts)
        seconds["prove"] = time.perf_counter() - began
        seconds["generate"] = write_replies(server, config, course.subject, root, rungs, cells)
    seconds["score"] = _score(rungs, specs, root)
    return seconds


def _fixed(course: Course, root: Path) -> tuple[Rung, Rung, list[dict[int, float]]]:
    """Return rung 0, the zero-adapter control, and what rung 0 answers to the canaries."""
    folder = RunFolder(root).private(ZERO_RUNG)
    adapted = adapter_on(course.model, course.arm.lora)
    adapted.save_pretrained(folder)
    adapted.unload()
    sha, path = file_sha256(folder / ADAPTER_FILE), str(folder.relative_to(root))
    zero = Rung(ZERO_RUNG, "", -1, 0, "control", "adapter", path, sha)
    return base_rung(course.subject.sha256), zero, course.canaries.reference(course.model)


def _score(rungs: Sequence[Rung], specs: Sequence[EvalSpec], root: Path) -> float:
    """Return the seconds of reading and scoring every reply."""
    began = time.perf_counter()
    samples = {spec.eval.name: {sample.id: sample for sample in spec.eval.samples()} for spec in specs}
    replies = list(read_replies(RunFolder(root), rungs))
    for spec in specs:
        mine = [reply for reply in replies if reply.eval == spec.eval.name]
        spec.eval.score_batch([(samples[reply.eval][reply.sample], reply.reply) for reply in mine])
    return time.perf_counter() - began
