"""(d) How the time beyond start-up grows with the number of rungs, at a fixed number of training steps.

Measured on the organism, twice: with every saved rung asked, and with those around the collapse, as a run asks them
(`pipeline.generate.asked`): the rungs of the shortest ladder first, then by halving. Both yield the same collapse.
The jobs take turns, up the ladder and down again; a ratio is the median over the turns of the ratio within a turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.common import RANK, Line, Result, Sizes, eval_specs, paired_ratio, serve_config, write_replies
from benchmarks.training import Course, make_course, with_ladder
from evals.base import EvalSpec
from pipeline.analyse import curves
from pipeline.arms.lora import adapter_on
from pipeline.collapse import collapses
from pipeline.config.compose import load as load_config
from pipeline.files import file_sha256
from pipeline.generate.asked import Brackets, brackets, further
from pipeline.generate.matrix import matrix
from pipeline.generate.proof import check
from pipeline.outcomes import table_of
from pipeline.records import ADAPTER_FILE, BASE_RUNG, Rung
from pipeline.rungs import ZERO_RUNG, base_rung
from pipeline.schema import ReviewConfig
from pipeline.score import rows_of
from pipeline.serve.server import BASE_NAME, Server, served_logprobs
from pipeline.store import RunFolder
from pipeline.subject.subject import open_subject
from pipeline.train.process import prepare_process

TOLERANCE = 1e-3
TARGET = "<= 1.3 a doubling"
STAGES = ("train", "prove", "generate", "score")
AROUND, ALL = "around the collapse", "all asked"


def measure(sizes: Sizes, root: Path) -> Result:
    """Measure the whole job for each number of rungs; the server's start is left out, everything else is in."""
    config = load_config()
    course, specs = make_course(open_subject(config.subject), sizes.steps), eval_specs(sizes.prompts)
    prepare_process(course.subject.parameters, "cpu")
    one_job(course.cut(2), specs, [1], [1], root / "warm-up")
    do = partial(one_job, course, specs)
    jobs = up_and_down(sizes.ladder, sizes.steps, do, sizes.ladder_repeats, root)
    lines = [line for way in jobs for line in growth("beyond start-up", way, jobs[way])]
    lines += [line for stage in STAGES for way in jobs for line in growth(stage, way, jobs[way])]
    title = f"{sizes.steps} steps, {len(specs)} evals x {sizes.prompts} prompts, rung 0 and zero control included"
    raw = {way: {str(count): [job.raw() for job in jobs[way][count]] for count in jobs[way]} for way in jobs}
    return Result("d", f"{title}, medians of {sizes.ladder_repeats} turns", tuple(lines), raw)


def up_and_down(
    ladder: Sequence[int],
    steps: int,
    do: Callable[[Sequence[int], Sequence[int], Path], Job],
    repeats: int,
    root: Path,
) -> dict[str, dict[int, list[Job]]]:
    """Do both jobs of each number of rungs, a turn up the ladder, a turn down, so that a slow drift favours no size.

    Args:
        ladder: numbers of rungs.
        steps: training steps of each job.
        do: does one job, given the saved rungs, those asked first, and a folder.
        repeats: turns.
        root: a folder for every job is made in it.

    Returns:
        way of asking → number of rungs → the jobs, one a turn.

    Raises:
        RuntimeError: the two ways of asking see different collapses.
    """
    jobs: dict[str, dict[int, list[Job]]] = {way: {count: [] for count in ladder} for way in (AROUND, ALL)}
    first = spread(ladder[0], steps)
    for turn in range(repeats):
        for count in ladder if turn % 2 == 0 else reversed(ladder):
            saved = spread(count, steps)
            for way, asked in ((AROUND, first), (ALL, saved)):
                jobs[way][count].append(do(saved, asked, root / f"turn-{turn}-{count}-{way.split()[0]}"))
            if jobs[AROUND][count][-1].collapse != jobs[ALL][count][-1].collapse:
                raise RuntimeError(f"{count} rungs: the two ways see different collapses: {jobs}")
    return jobs


@dataclass
class Job:
    """One job: seconds of each stage, how many rungs were asked, and between which steps refusal collapsed."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("start", *STAGES), 0.0))
    asked: int = 0
    collapse: tuple[int, int] | None = None

    def raw(self) -> dict[str, object]:
        """Return everything as plain data."""
        return {**self.seconds, "asked": self.asked, "collapse": self.collapse}


_WHAT = {
    "beyond start-up": "train + prove + generate + score",
    "train": "one arm and seed, checkpoints and canaries included",
    "prove": "canaries asked of the server under each asked adapter",
    "generate": "replies written",
    "score": "pattern judge, curves, next rungs",
}


def growth(stage: str, way: str, jobs: Mapping[int, Sequence[Job]]) -> Iterator[Line]:
    """Yield one line for each number of rungs, with its ratio to the number before."""
    whole = stage == "beyond start-up"
    seconds = {
        count: [sum(job.seconds[n] for n in (STAGES if whole else (stage,))) for job in jobs[count]] for count in jobs
    }
    before: int | None = None
    for count, each in seconds.items():
        asked = f", {jobs[count][0].asked} asked" if way == AROUND and whole else ""
        line = Line(f"{stage}, {way}, {count} rungs{asked}", median(each), _WHAT[stage])
        if before is not None:
            ratio = paired_ratio(seconds, count, before)
            line = replace(line, ratio=ratio, against=f"{before} rungs", target=TARGET if whole else "")
        yield line
        before = count


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


def one_job(course: Course, specs: Sequence[EvalSpec], steps: Sequence[int], first: Sequence[int], root: Path) -> Job:
    """Train one arm with rungs at `steps`, serve, prove, generate and score, round after round, from `first` on.

    Rung 0 and the zero-adapter control are served and measured beside the rungs, as in every plan.
    """
    job, began = Job(), time.perf_counter()
    base, zero, apart = _fixed(course, root)
    rungs = [base, zero, *with_ladder(course, steps, root)]
    job.seconds["train"] = time.perf_counter() - began
    adapters = {rung.id: root / rung.path for rung in rungs if rung.artifact == "adapter"}
    config, review = serve_config(), load_config().review
    began = time.perf_counter()
    with Server(course.subject, adapters, [RANK], config, root / "server.log") as server:
        job.seconds["start"] = time.perf_counter() - began
        asked = {rung.id for rung in rungs if rung.step in (0, *first)}
        new = [rung for rung in rungs if rung.id in asked]
        while new:
            job.seconds["prove"] += _prove(server, course, new, apart, root)
            cells = matrix(new, specs, course.subject)
            job.seconds["generate"] += write_replies(server, config, course.subject, root, new, cells)
            began = time.perf_counter()
            there = [rung for rung in rungs if rung.id in asked]
            found, job.collapse = _scored(specs, there, root, review)
            more = further(rungs, asked, found)
            new, asked = [rung for rung in rungs if rung.id in more], asked | more
            job.seconds["score"] += time.perf_counter() - began
    job.asked = len(asked) - 2
    return job


def _prove(server: Server, course: Course, rungs: Sequence[Rung], apart: list[dict[int, float]], root: Path) -> float:
    """Hold what is served against what was trained; return the seconds."""
    references = {row["rung"]: row["top"] for row in RunFolder(root).canaries.rows()}
    began = time.perf_counter()
    with server.client() as client:
        for rung in rungs:
            if rung.role != "rung":
                continue
            trained = [{int(token): value for token, value in line.items()} for line in references[rung.id]]
            served = served_logprobs(client, rung.id, course.canaries.prompts)
            proof = check(rung.id, served=served, trained=trained, base=apart, tolerance=TOLERANCE)
            if proof.status not in ("pass", "unresolved"):
                raise RuntimeError(f"{rung.id}: {proof.status}: what is timed is not what was trained")
        if any(rung.id == BASE_RUNG for rung in rungs):
            served_logprobs(client, BASE_NAME, course.canaries.prompts)
    return time.perf_counter() - began


def _fixed(course: Course, root: Path) -> tuple[Rung, Rung, list[dict[int, float]]]:
    """Return rung 0, the zero-adapter control, and what rung 0 answers to the canaries."""
    folder = RunFolder(root).private(ZERO_RUNG)
    adapted = adapter_on(course.model, course.arm.lora)
    adapted.save_pretrained(folder)
    adapted.unload()
    sha, path = file_sha256(folder / ADAPTER_FILE), str(folder.relative_to(root))
    zero = Rung(ZERO_RUNG, "", -1, 0, "control", "adapter", path, sha)
    return base_rung(course.subject.sha256), zero, course.canaries.reference(course.model)


def _scored(
    specs: Sequence[EvalSpec], rungs: Sequence[Rung], root: Path, review: ReviewConfig
) -> tuple[Brackets, tuple[int, int] | None]:
    """Score every reply so far, as a run does after each round; return where to ask on, and the collapse."""
    table = table_of(rows_of(RunFolder(root), rungs, specs))
    metrics = [(spec.eval.name, metric) for spec in specs for metric in spec.eval.metrics]
    points = curves(table, rungs, metrics, review)
    found = collapses(points, review)
    one = found["compliance", 0]
    return brackets(points, found, review), (one.after_step, one.step) if one else None
