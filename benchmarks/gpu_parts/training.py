"""(a) LoRA training: a bare PyTorch loop and Holdfast's own trainer, one option changed at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from statistics import median
from typing import Any, Final

from benchmarks.gpu_parts.call import Call
from benchmarks.gpu_parts.device import free, synchronise
from benchmarks.gpu_parts.flops import lora_flops, mean_context, utilisation
from benchmarks.gpu_parts.models import make_model
from benchmarks.gpu_parts.record import Figure, Wanted
from benchmarks.gpu_parts.way import MIXED, PACKED, RANK, STEPS, WHOLE, Way
from benchmarks.shapes import Shape

WARM: Final = 4  # steps left out: kernels are chosen and memory is taken in them
TOKENS_AT_ONCE: Final = 16384  # of one pass, halved where memory ends
# In this order, since a call's minutes may end: the two with a target, then what their figures turn on.
WAYS: Final = (
    Way("holdfast"),
    Way("bare"),
    Way("holdfast", kernels="liger"),
    Way("bare", kernels="copies"),
    Way("holdfast", checkpointing=True),
    Way("holdfast", MIXED),
    Way("holdfast", PACKED),
    Way("bare", checkpointing=True),
    Way("bare", attention="flash_attention_2"),
    Way("bare", PACKED, "flash_attention_2"),
    Way("bare", MIXED),
    Way("bare", PACKED),
    Way("bare", kernels="liger"),
    Way("bare", attention="eager"),
    Way("bare", kernels="compile"),
)
TARGETS: Final = {("7B", 2048, Way("holdfast").key): ">= 0.45", ("7B", 2048, Way("bare").key): ">= 0.45"}


def wanted(shapes: Sequence[str], lengths: Sequence[int]) -> list[Wanted]:
    return [_wanted(name, length, way) for name in shapes for length in lengths for way in WAYS]


def _wanted(name: str, length: int, way: Way) -> Wanted:
    target = TARGETS.get((name, length, way.key), "")
    what = f"{name}, {length} tokens: {way.key.replace('-', ', ')}"
    return Wanted("a", f"{name}-{length}-{way.key}", what, "tokens/s", "MFU", target)


def measures(call: Call) -> Iterator[tuple[Wanted, Callable[[], Figure]]]:
    """Yield every figure with what measures it."""
    for name in call.shapes:
        for length in call.lengths:
            for way in WAYS:
                want = _wanted(name, length, way)
                yield want, partial(one, call, want, name, length, way)


def one(call: Call, want: Wanted, name: str, length: int, way: Way) -> Figure:
    """Measure one way: median of the steps after the warm-up, examples at once halved until they fit."""
    shape, length = call.shape(name), min(length, 32) if call.short else length
    rows = max(1, TOKENS_AT_ONCE // length) if not call.short else 2

    def steps_of(at_once: int) -> list[tuple[int, float]]:
        model = prepared(make_model(shape, call.device, call.dtype, way.attention), way)
        lengths = lengths_of(way.data, length, at_once)
        train = bare if way.trainer == "bare" else holdfast
        return train(call, model, shape, way, lengths, length, at_once)

    with unpatched_after():
        at_once, all_steps = fitting(call.device, rows, steps_of)
    steps = all_steps[WARM:]
    rate = median(tokens / seconds for tokens, seconds in steps)
    flops = lora_flops(shape, RANK, mean_context(lengths_of(way.data, length, at_once)))
    raw = {
        "examples_at_once": at_once,
        "steps": [[tokens, seconds] for tokens, seconds in steps],
        "flops_a_token": flops,
        "gib": _most_memory(call.device),
    }
    note = f"{at_once} rows of {length} at once"
    return Figure(want, rate, utilisation(rate, flops, call.ceilings.flops), note, raw)


def fitting(
    device: str, rows: int, run: Callable[[int], list[tuple[int, float]]]
) -> tuple[int, list[tuple[int, float]]]:
    """Return the first of `rows`, its half, … that fits into memory, and what `run` made of it.

    Raises:
        RuntimeError: as torch says it, where not one row fits.
    """
    from pipeline.arms.memory import out_of_memory

    while True:
        free(device)  # of the try before, where memory ended
        try:
            return rows, run(rows)
        except RuntimeError as error:
            if rows == 1 or not out_of_memory(error):
                raise
        rows //= 2


@contextmanager
def unpatched_after() -> Iterator[None]:
    """Set the names of transformers' Qwen2 module back on leaving.

    Liger, told to change one model, also replaces the module's rotary embedding, norm and MLP, of which every later
    model is made.
    """
    from transformers.models.qwen2 import modeling_qwen2

    before = dict(vars(modeling_qwen2))
    try:
        yield
    finally:
        vars(modeling_qwen2).update(before)


def lengths_of(data: str, length: int, at_once: int) -> list[int]:
    """Return the examples' lengths in tokens: all full, or spread evenly over an eighth of it to the whole.

    They are enough for all steps; of mixed ones, of which two may share a packed row, twice as many.
    """
    if data == WHOLE:
        return [length] * at_once * STEPS
    count = 2 * at_once * STEPS
    least = max(2, length // 8)
    return [least + (length - least) * (number * 7 % 16) // 15 for number in range(count)]


def prepared(model: Any, way: Way) -> Any:
    """Return the model with the kernels of this way.

    Raises:
        ImportError: they are not installed.
    """
    if way.kernels == "liger" and way.trainer == "bare":
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        # As SFTTrainer asks for it, whose own head every way has.
        _apply_liger_kernel_to_instance(model=model, fused_linear_cross_entropy=False)
    if way.checkpointing and way.trainer == "bare":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def bare(
    call: Call, model: Any, shape: Shape, way: Way, lengths: Sequence[int], length: int, at_once: int
) -> list[tuple[int, float]]:
    """Train an adapter in the shortest loop; return (tokens without padding, seconds) of each step.

    What is the same as in Holdfast's trainer: the model and its kernels, the adapter, the batches' shape, autocast, the
    optimiser, the clipping, and the loss with what is taken from the logits beside it (TRL's fused head, in tiles, of
    the labelled tokens alone). So the two differ in the trainer's own work.
    """
    import torch
    from trl.trainer.utils import add_fused_lm_head

    from benchmarks.gpu_parts.batches import batches
    from pipeline.arms.copies import without_copies
    from pipeline.arms.lora import adapter_on
    from pipeline.schema import LoraConfig

    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))  # as SFTTrainer takes them
    adapted = adapter_on(model, LoraConfig(rank=RANK, alpha=2 * RANK))
    adapted.train()
    forward = torch.compile(adapted) if way.kernels == "compile" else adapted
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=call.device.startswith("cuda"))
    kind = call.device.partition(":")[0]

    def step(batch: Any) -> Any:
        with torch.autocast(kind, torch.bfloat16, enabled=call.dtype == "bfloat16"):
            loss = forward(**batch, fused_lm_head=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    steps = []
    _forget_memory(call.device)
    made = batches(lengths, length, at_once, shape.vocabulary, call.device, packed=way.data == PACKED)
    with nullcontext() if way.kernels == "copies" else without_copies(adapted):
        for batch, tokens in islice(made, STEPS):
            synchronise(call.device)
            began = time.perf_counter()
            if not torch.isfinite(step(batch)):  # waits for the device as well
                raise RuntimeError("the loss is no number")
            synchronise(call.device)
            steps.append((tokens, time.perf_counter() - began))
    return steps


def holdfast(
    call: Call, model: Any, shape: Shape, way: Way, lengths: Sequence[int], length: int, at_once: int
) -> list[tuple[int, float]]:
    """Climb as the train stage does; return (tokens without padding, seconds) of each step, saving left out."""
    from benchmarks.gpu_parts.climbing import climbed  # TRL, where it is needed

    _forget_memory(call.device)
    return climbed(call, model, shape, way, lengths, length, at_once)


def _forget_memory(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def _most_memory(device: str) -> float | None:
    """Return the GiB that were in use at most, None on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None
