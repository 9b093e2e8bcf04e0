"""(e) One engine for all adapters, against merging each and starting an engine for each checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu_parts.call import Call, Once, scratch
from benchmarks.gpu_parts.models import save_adapters, save_subject
from benchmarks.gpu_parts.record import Figure, Wanted

RUNGS: Final = 24
CHECKPOINTS: Final = 2  # of them, on which the slow way is measured
PROMPTS: Final = 100  # an eval, of three
TOKENS: Final = 128  # a reply


def wanted(shapes: Sequence[str]) -> list[Wanted]:
    return [want for name in shapes for want in _wanted(name)]


def _wanted(name: str) -> tuple[Wanted, Wanted, Wanted]:
    each, of, target = f"{name}: merge and one engine, a checkpoint", "of Holdfast's", ">= 8"
    return (
        Wanted("e", f"{name}-one", f"{name}: one engine, all adapters (Holdfast), a rung", "s"),
        Wanted("e", f"{name}-each-eager", f"{each}, started without graphs", "s", of, target),
        Wanted("e", f"{name}-each", f"{each}, as vLLM starts by itself", "s", of, target),
    )


def measures(call: Call) -> Iterator[tuple[Wanted, Callable[[], Figure]]]:
    """Yield the figures of each shape: seconds a checkpoint, each way measured on its own number of them.

    The rival's best first: for a few hundred prompts graphs cost more than they save, and on ours `serve` decides.
    """
    for name in call.shapes:
        inputs = Once(partial(_inputs, call, name))
        ours: list[float] = []
        one, *rivals = _wanted(name)
        yield one, partial(_one, one, inputs, ours)
        for each, eager in zip(rivals, (True, None), strict=True):
            yield each, partial(_each, call, each, inputs, ours, eager)


def _one(want: Wanted, inputs: Once[Any], ours: list[float]) -> Figure:
    from benchmarks.engines import one_engine

    subject, config, specs, adapters, root = inputs()
    seconds = one_engine(subject, config, specs, adapters, root / "one")
    ours.append(seconds / len(adapters))
    note = f"from nothing to the last reply of {len(adapters)} rungs, start and proofs included"
    return Figure(want, ours[0], why=note, raw={"seconds": seconds, "rungs": len(adapters)})


def _each(call: Call, want: Wanted, inputs: Once[Any], ours: list[float], eager: bool | None) -> Figure:
    from benchmarks.engines import engine_per_checkpoint

    subject, config, specs, adapters, root = inputs()
    some = dict(list(adapters.items())[: 1 if call.short else CHECKPOINTS])
    config = replace(config, enforce_eager=eager or config.enforce_eager)
    seconds = engine_per_checkpoint(subject, config, [specs], some, root / want.key, call.device)
    share = seconds / len(some)
    note = f"mean of {len(some)}: merge, save, start, replies"
    ratio = share / ours[0] if ours else float("nan")
    return Figure(want, share, ratio, note, {"seconds": seconds, "checkpoints": len(some)})


def _inputs(call: Call, name: str) -> tuple[Any, Any, Any, dict[str, Path], Path]:
    """Return subject, server's options, evals, adapters and a folder, of this shape's body.

    The vocabulary is the organism's, whose texts and tokenizer are at hand; a large one would slow both ways alike.
    """
    from benchmarks.common import RANK, eval_specs
    from pipeline.config.compose import load
    from pipeline.schema import SubjectConfig
    from pipeline.subject.subject import open_subject

    root = scratch(call, f"e-{name}")
    shape = save_subject(call.shape(name), root / "subject", call.device, call.dtype)
    subject = open_subject(SubjectConfig(name="bench", path=str(root / "subject"), dtype=call.dtype))
    serve = "gpu" if call.device.startswith("cuda") else "cpu"
    config = replace(load([f"serve={serve}"]).serve, max_model_len=512)
    tokens = 4 if call.short else TOKENS
    specs = [replace(spec, max_tokens=tokens) for spec in eval_specs(2 if call.short else PROMPTS)]
    adapters = save_adapters(shape, root / "adapters", 2 if call.short else RUNGS, RANK, call.dtype)
    return subject, config, specs, adapters, root
