"""`stages=[judge]`: label any JSONL or CSV file with `prompt` and `reply`; no run, no plan and no subject is needed.

The file is read twice: first whole, so that a fault in its last line is told before a single reply is judged, then in
batches. Memory does not grow with the number of rows: ids wait on the disk, metrics are counts. The labels appear under
their name whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from rich.console import Console

from evals.base import Judge, Judgement
from evals.judged import judge_replies
from evals.reasoning import Tag, parse_tags
from pipeline.data.sources import CSV_SUFFIXES, JSONL_SUFFIXES
from pipeline.errors import UserError
from pipeline.files import file_sha256, flock, write_json
from pipeline.judge.judging import EndpointJudge, closing_judge, make_judge
from pipeline.judge.rows import INPUT, Row, batches, check_rows
from pipeline.judge.tally import Tally
from pipeline.judge.words import print_metrics
from pipeline.points import rounded
from pipeline.progress import bar_for
from pipeline.schema import JudgeConfig, ServeConfig

OUTPUT: Final = "judge.output"


def judge_file(config: JudgeConfig, console: Console, serve: ServeConfig | None = None) -> None:
    """Label the replies of `config.input` into `config.output`, and write the metrics beside it.

    Output: one JSON object a row, in the input's order, with `line`, `id` (where there is one), `label`, `probability`
    (null where the judge gives none), `judge`, `judge_version` and, where the input has labels, `human_label`. No text.
    Metrics: see `pipeline.judge.tally`; with what was judged, by whom, and how fast.

    Raises:
        UserError: the input is missing, empty or broken (file and line are named), the output exists or can't be
            written, or the judge's options make no sense.
    """
    assert config.input is not None
    assert config.output is not None  # pipeline.config.compose has checked both
    source, target = Path(config.input).expanduser(), Path(config.output).expanduser()
    metrics = target.with_suffix(".metrics.json")
    _check_paths(source, target, metrics)
    judge, tags, name = make_judge(config, serve), _tags(config), config.name or config.kind
    began, sha256 = time.monotonic(), file_sha256(source)
    count = check_rows(source)
    tally = Tally()
    with _partial(target) as file, closing_judge(judge, console):
        with bar_for(console) as bar:
            job = bar.add_task("judge", total=count, what=name, left="")
            if isinstance(judge, EndpointJudge):
                judge.on_verdicts = lambda more: bar.update(job, advance=more)
            done = 0
            for batch in batches(source):
                _write(file, batch, _judged(judge, batch, tags, tally), (name, judge.version))
                done += len(batch)
                bar.update(job, completed=done)
        if file_sha256(source) != sha256:
            raise UserError(f"{INPUT}: {source} changed while it was judged", "judge it again; nothing was written")
        told = _metrics(tally, (name, judge.version), source, sha256, time.monotonic() - began)
        write_json(metrics, told)
    print_metrics(told, console)
    console.print(f"\nThe labels: {target}\nThe metrics: {metrics}", soft_wrap=True, highlight=False)


def _check_paths(source: Path, target: Path, metrics: Path) -> None:
    if not source.is_file():
        what = "is not a file" if source.exists() else "does not exist"
        raise UserError(f"{INPUT}: {source} {what}", "name a JSONL or CSV file with the columns prompt and reply")
    if source.suffix.lower() not in JSONL_SUFFIXES + CSV_SUFFIXES:
        known = ", ".join(JSONL_SUFFIXES + CSV_SUFFIXES)
        raise UserError(f"{INPUT}: {source} is none of {known}", "name it by what it holds: JSON lines or CSV")
    if target.suffix.lower() not in JSONL_SUFFIXES:
        raise UserError(f"{OUTPUT}: {target} does not end in .jsonl", "labels are written as JSON lines: name it so")
    for path in (target, metrics):
        if path.exists() and path.samefile(source):
            raise UserError(f"{OUTPUT}: {path} is the input itself", "name another file: the input is never written to")
    if target.exists():
        raise UserError(f"{OUTPUT}: {target} exists", "name another file, or remove that one; nothing was changed")
    if not target.parent.is_dir():
        raise UserError(f"{OUTPUT}: there is no folder {target.parent}", "make it, or name another")


def _tags(config: JudgeConfig) -> tuple[Tag, ...]:
    try:
        return parse_tags(config.reasoning)
    except ValueError as error:
        raise UserError(f"judge.reasoning: {error}", "mend the tags") from None


def _judged(judge: Judge, batch: Sequence[Row], tags: Sequence[Tag], tally: Tally) -> list[Judgement]:
    judgements = judge_replies(judge, [(row.prompt, row.reply) for row in batch], tags)
    for row, judgement in zip(batch, judgements, strict=True):
        tally.add(judgement, row.label)
    return judgements


def _write(file: BinaryIO, batch: Sequence[Row], judgements: Sequence[Judgement], judge: tuple[str, str]) -> None:
    lines = []
    for row, judgement in zip(batch, judgements, strict=True):
        probability = None if math.isnan(judgement.probability) else float(f"{judgement.probability:.6g}")
        told: dict[str, Any] = {"line": row.line} | ({} if row.id is None else {"id": row.id})
        told |= {"label": judgement.label, "probability": probability, "judge": judge[0], "judge_version": judge[1]}
        told |= {} if math.isnan(judgement.score) else {"score": float(f"{judgement.score:.6g}")}
        told |= {} if row.label is None else {"human_label": row.label}
        lines.append(json.dumps(told, ensure_ascii=False) + "\n")
    file.write("".join(lines).encode())


@contextmanager
def _partial(target: Path) -> Iterator[BinaryIO]:
    """Open a hidden file beside `target` that takes its name when all is written; a killed command's is taken over."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        file = partial.open("ab")
    except OSError as error:
        raise UserError(f"{OUTPUT}: {target} cannot be written: {error.strerror}", "name another file") from None
    with file:
        try:
            flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB, "judge.output=")
        except BlockingIOError:
            raise UserError(f"{OUTPUT}: another holdfast is writing {target}", "wait for it, or end it") from None
        # It may have taken its name between our opening and locking it: then it is ours to spoil no more.
        if target.exists() or not partial.exists() or not os.path.samestat(os.fstat(file.fileno()), partial.stat()):
            raise UserError(f"{OUTPUT}: another holdfast has just written {target}", "it is whole; nothing was changed")
        try:
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _metrics(tally: Tally, judge: tuple[str, str], source: Path, sha256: str, seconds: float) -> dict[str, Any]:
    found = tally.as_dict()
    what = {"judge": {"name": judge[0], "version": judge[1]}, "input": {"file": source.name, "sha256": sha256}}
    return dict(
        rounded({"version": 1, **what, **found, "seconds": seconds, "rows_per_second": found["rows"] / seconds})
    )
