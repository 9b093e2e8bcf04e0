"""(a) All rungs and evals from one engine, against an engine per merged checkpoint, and per checkpoint and eval."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.common import (
    RANK,
    Line,
    Result,
    Sizes,
    adapter_rungs,
    base_only,
    eval_specs,
    make_adapters,
    make_subject,
    serve_config,
    write_replies,
)
from benchmarks.gpu_parts.device import free
from evals.base import EvalSpec
from pipeline.generate.matrix import matrix
from pipeline.schema import ServeConfig
from pipeline.serve import vllm_server
from pipeline.serve.server import Server, served_logprobs
from pipeline.serve.width import Load
from pipeline.subject.subject import Subject

CANARIES = 8


class PlainServer(Server):
    """vLLM's server without our shorter start and end of a process (`pipeline.interpreter`), which others don't have.

    That its engine is forked on a CPU, as ours is, is granted: vLLM's own start takes longer.
    """

    def _command(self) -> list[str]:
        command = super()._command()
        return [*command[:2], *command[command.index(vllm_server.__file__) :]]


def measure(sizes: Sizes, root: Path) -> Result:
    """Measure the ways in turn, from nothing to the last reply written, after one start that is not counted.

    The first start after an installation compiles modules and reads libraries from the disk, whichever way it is of.
    The slow ways are measured on some checkpoints and scaled; ours before, among and after them, because a shared
    machine changes its speed meanwhile.
    """
    subject, config, specs = make_subject(root), serve_config(), eval_specs(sizes.prompts)
    adapters = make_adapters(subject, root, sizes.rungs)
    rivals: dict[str, tuple[list[list[EvalSpec]], type[Server]]] = {
        "per_checkpoint": ([specs], PlainServer),
        "per_checkpoint_with_our_start": ([specs], Server),
        "per_checkpoint_and_eval": ([[spec] for spec in specs], PlainServer),
    }
    with PlainServer(subject, {}, [], config, root / "first-start.log"):
        pass
    seconds: dict[str, list[float]] = {name: [] for name in ("one_engine", *rivals)}

    def ours() -> None:
        folder = root / f"one-engine-{len(seconds['one_engine'])}"
        seconds["one_engine"].append(one_engine(subject, config, specs, adapters, folder))

    for number, (name, adapter) in enumerate(list(adapters.items())[: sizes.checkpoints]):
        if number % 2 == 0:
            ours()
        for way, (groups, start) in rivals.items():
            one = {name: adapter}
            seconds[way].append(engine_per_checkpoint(subject, config, groups, one, root / way, start=start))
    ours()
    return _result(seconds, len(adapters), specs)


def _result(seconds: Mapping[str, Sequence[float]], rungs: int, specs: Sequence[EvalSpec]) -> Result:
    """Return the table: ours as the median of its runs, the others as their sum over the measured checkpoints."""
    ours, measured = median(seconds["one_engine"]), len(seconds["per_checkpoint"])
    scaled = "" if measured == rungs else f"; measured on {measured} of {rungs}, scaled"
    merging = "merge_and_unload, save_pretrained, an engine's start"

    def rival(way: str, side: str, includes: str, target: str = "") -> Line:
        total = sum(seconds[way]) * rungs / measured
        return Line(side, total, f"{includes}{scaled}", total / ours, "Holdfast", target)

    lines = (
        Line(
            "one engine, all adapters (Holdfast)",
            ours,
            f"start, proof of each adapter, replies written; median of {len(seconds['one_engine'])}, among the others",
        ),
        rival("per_checkpoint", "one engine per checkpoint", f"for each: {merging}, replies", ">= 8"),
        rival(
            "per_checkpoint_with_our_start",
            "one engine per checkpoint, our shorter start granted",
            "the same, each engine started by `pipeline.interpreter`",
        ),
        rival(
            "per_checkpoint_and_eval",
            "one engine per checkpoint and eval",
            f"for each: {merging} per eval, replies",
            ">= 20",
        ),
    )
    requests = sum(len(spec.eval.samples()) for spec in specs)
    raw = {**{way: list(each) for way, each in seconds.items()}, "rungs": rungs, "requests_a_rung": requests}
    return Result("a", f"{rungs} rungs x {len(specs)} evals, from nothing to the last reply", lines, raw)


def one_engine(
    subject: Subject, config: ServeConfig, specs: Sequence[EvalSpec], adapters: Mapping[str, Path], root: Path
) -> float:
    """Return Holdfast's wall seconds: one server, each adapter asked for its canaries, then all requests."""
    began = time.perf_counter()
    rungs = adapter_rungs(adapters)
    cells = matrix(rungs, specs, subject)
    canaries = [cell.prompt_ids for cell in cells[:CANARIES]]
    ranks, log = [RANK] * len(adapters), root / "server.log"
    with Server(subject, adapters, ranks, config, log, load=asked(specs)) as server:
        with server.client() as client:
            for rung in rungs:
                served_logprobs(client, rung.id, canaries)
        write_replies(server, config, subject, root, rungs, cells)
        return time.perf_counter() - began


def asked(specs: Sequence[EvalSpec]) -> Load:
    """Return what each adapter is asked, which the generate stage tells its engine too."""
    replies = [(len(spec.eval.samples()), spec.max_tokens) for spec in specs]
    return Load(sum(count for count, _ in replies), sum(count * most for count, most in replies))


def engine_per_checkpoint(
    subject: Subject,
    config: ServeConfig,
    groups: Sequence[Sequence[EvalSpec]],
    adapters: Mapping[str, Path],
    root: Path,
    device: str = "cpu",
    start: type[Server] = PlainServer,
) -> float:
    """Return the wall seconds of merging each adapter and starting a server for each of `groups` of evals.

    The rival is spared what it would pay besides: no new Python process for each merge, no loading of libraries, the
    base weights read from a warm disk, requests in the same batches.
    """
    began = time.perf_counter()
    for name, adapter in adapters.items():
        merged = merge(subject, adapter, root / name / "merged", device)
        rung = base_only(name)
        for number, specs in enumerate(groups):
            cells = matrix([rung], specs, merged)
            with start(merged, {}, [], config, root / name / f"server-{number}.log") as server:
                write_replies(server, config, merged, root / name / str(number), [rung], cells)
    return time.perf_counter() - began


def merge(subject: Subject, adapter: Path, folder: Path, device: str = "cpu") -> Subject:
    """Write the adapter merged into the base's weights as a model folder; return it as a subject."""
    from peft import PeftModel

    PeftModel.from_pretrained(subject.load_model(device), adapter).merge_and_unload().save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    if device != "cpu":
        free(device)  # an engine in another process comes next
    return replace(subject, path=folder)
