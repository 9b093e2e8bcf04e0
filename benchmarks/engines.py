"""(a) All rungs and evals from one engine, against an engine per merged checkpoint, and per checkpoint and eval."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.common import (
    RANK,
    Line,
    Result,
    Sizes,
    base_only,
    eval_specs,
    make_adapters,
    make_subject,
    rungs_of,
    serve_config,
    write_replies,
)
from benchmarks.gpu_parts.device import free
from evals.base import EvalSpec
from pipeline import vllm_server
from pipeline.generate import matrix
from pipeline.schema import ServeConfig
from pipeline.serve import Server, served_logprobs
from pipeline.subject import Subject

CANARIES = 8


class PlainServer(Server):
    """vLLM's server without our shorter start and end of a process (`pipeline.interpreter`), which others don't have.

    That its engine is forked on a CPU, as ours is, is granted: vLLM's own start takes longer.
    """

    def _command(self) -> list[str]:
        command = super()._command()
        return [*command[:2], *command[command.index(vllm_server.__file__) :]]


def measure(sizes: Sizes, root: Path) -> Result:
    """Measure the three ways from nothing to the last reply written; the slow two on some checkpoints, scaled."""
    subject, config, specs = make_subject(root), serve_config(), eval_specs(sizes.prompts)
    adapters = make_adapters(subject, root, sizes.rungs)
    some = dict(list(adapters.items())[: sizes.checkpoints])
    scale = len(adapters) / len(some)
    ours = one_engine(subject, config, specs, adapters, root / "one-engine")
    checkpoint = engine_per_checkpoint(subject, config, [specs], some, root / "per-checkpoint")
    granted = engine_per_checkpoint(subject, config, [specs], some, root / "our-start", start=Server)
    both = engine_per_checkpoint(subject, config, [[spec] for spec in specs], some, root / "per-checkpoint-and-eval")
    scaled = "" if scale == 1 else f"; measured on {len(some)} of {len(adapters)}, scaled"
    merging = "merge_and_unload, save_pretrained, an engine's start"
    lines = (
        Line("one engine, all adapters (Holdfast)", ours, "start, proof of each adapter, replies written"),
        Line(
            "one engine per checkpoint",
            checkpoint * scale,
            f"for each: {merging}, replies{scaled}",
            checkpoint * scale / ours,
            "Holdfast",
            ">= 8",
        ),
        Line(
            "one engine per checkpoint, our shorter start granted",
            granted * scale,
            f"the same, each engine started by `pipeline.interpreter`{scaled}",
            granted * scale / ours,
            "Holdfast",
        ),
        Line(
            "one engine per checkpoint and eval",
            both * scale,
            f"for each: {merging} per eval, replies{scaled}",
            both * scale / ours,
            "Holdfast",
            ">= 20",
        ),
    )
    raw = {
        "one_engine": ours,
        "per_checkpoint_measured": checkpoint,
        "per_checkpoint_with_our_start_measured": granted,
        "per_checkpoint_and_eval_measured": both,
        "checkpoints_measured": len(some),
        "rungs": len(adapters),
        "requests_a_rung": sum(len(spec.eval.samples()) for spec in specs),
    }
    return Result("a", f"{len(adapters)} rungs x {len(specs)} evals, from nothing to the last reply", lines, raw)


def one_engine(
    subject: Subject, config: ServeConfig, specs: Sequence[EvalSpec], adapters: Mapping[str, Path], root: Path
) -> float:
    """Return Holdfast's wall seconds: one server, each adapter asked for its canaries, then all requests."""
    began = time.perf_counter()
    rungs = rungs_of(adapters)
    cells = matrix(rungs, specs, subject)
    canaries = [cell.prompt_ids for cell in cells[:CANARIES]]
    with Server(subject, adapters, [RANK] * len(adapters), config, root / "server.log") as server:
        with server.client() as client:
            for rung in rungs:
                served_logprobs(client, rung.id, canaries)
        write_replies(server, config, subject, root, rungs, cells)
        return time.perf_counter() - began


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
