"""Fits a climb into the device's memory: fewer examples at once, more accumulation, the same training step.

Where `gradient_checkpointing` is null, a layer's activations are kept for the way back as long as one example fits so,
and only then computed twice (arXiv:1604.06174), with as many examples as fit then: it is the same arithmetic, and
half as much again of it. Several training processes begin with the second, since each failed try loads the subject
anew there.

How many examples fit at once depends on the device, the model and the longest examples, and what does not fit may show
itself late. The plan's step of `batch_size` examples must not change with it: that would be another attack. So the
examples that pass at once go down to the next divisor of `batch_size`, and accumulation makes up for it: the same
examples in the same steps, sums in another order. What a climb finds stands in `memory.jsonl`, and the climbs after it
start there: other seeds, and the same command after a kill. Accelerate's `find_executable_batch_size` is not used,
which knows but some of the words in which memory's end is told, nor transformers' `auto_find_batch_size`, which leaves
the accumulation as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from pipeline.arms.base import Climb, Ending
from pipeline.errors import UserError
from pipeline.journal import TASKS, Journal
from pipeline.records import Rung
from pipeline.schema import TrainingConfig

FILE = "memory.jsonl"  # in the run's or the task's folder: one row for each time that less was kept at once
# What says in a text of torch, Triton, cuBLAS, cuDNN or the CPU's allocator that memory ended.
_TEXTS: Final = ("out of memory", "alloc_failed", "allocation_failed", "can't allocate")
# What of an arm decides how many examples fit; a search changes some of it from trial to trial.
_ROOM: Final = ("max_length", "packing", "gradient_checkpointing", "liger", "optimizer", "precision")


@dataclass(frozen=True)
class Fit:
    """What a device's memory holds of a step: so many examples, their activations whole or only between layers."""

    examples: int
    checkpointing: bool


class NoRoomError(UserError, MemoryError):
    """Not one example fits: a fault to mend for the user, a failed trial to a search."""


class _ElsewhereError(Exception):
    """Memory ended while a rung was handed over, not in training."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def out_of_memory(error: BaseException) -> bool:
    """Say whether torch (on any device) or Python ran out of memory; all else is a fault of the instrument."""
    if isinstance(error, RuntimeError):  # torch's own kinds of it are, too
        return any(text in str(error).lower() for text in _TEXTS)
    return isinstance(error, MemoryError)


def within_memory(work: Climb, attempt: Callable[[Climb, Fit], Ending]) -> Ending:
    """Return what `attempt(work, fit)` returns, tried with less in memory where it ends.

    Each try goes on after the last rung that stands, as it would after a kill; the steps that were lost were paid for.

    Raises:
        NoRoomError: not even one example fits.
    """
    from accelerate.utils.memory import clear_device_cache

    done = list(work.done)
    left = _left(work)

    def emit(rung: Rung, answers: Mapping[str, Any]) -> None:
        try:
            work.emit(rung, answers)
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):  # not of training: a search asks the rung its dev prompts here
                raise _ElsewhereError(error) from error
            raise
        done.append(rung)

    for fit, smaller in zip(left, [*left[1:], None], strict=True):
        clear_device_cache(garbage_collection=True)  # by now the error, which held a failed try's tensors, is gone
        try:
            return attempt(replace(work, done=tuple(done), emit=emit), fit)
        except _ElsewhereError as error:
            raise error.error from None
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if smaller is not None:
            _note(work, done[-1].step if done else 0, fit, smaller)
    raise _no_room(work)


def _left(work: Climb) -> list[Fit]:
    """Return what is to be tried, in order; what climbs with the same needs found not to fit is not tried again."""
    training = work.task.config.training
    tried = fits(training, work.task.processes)
    rows = list(_rows(work, _room(work)))
    return [fit for fit in tried if not any(_rules_out(row, fit, training) for row in rows)] or tried[-1:]


def _rules_out(row: Mapping[str, Any], fit: Fit, training: TrainingConfig) -> bool:
    """Say whether a climb found that so much does not fit. What it went on with says less where its step had other
    examples, as in a search: one that does not fit whole leaves open how many do that are computed twice.

    A row of before 2026-11-23 tells only what it went on with, and of checkpointing nothing, which was as asked.
    """
    if "too_much" in row:
        return _need(fit) <= _need(Fit(**row["too_much"]))
    return _need(fit) < _need(Fit(row["examples_at_once"], bool(training.gradient_checkpointing)))


def _need(fit: Fit) -> tuple[bool, int]:
    """Return what orders them, the most memory first."""
    return fit.checkpointing, -fit.examples


def fits(training: TrainingConfig, processes: int = 1) -> list[Fit]:
    """Return the ways to pass a step's examples, those that need the most memory and the least time first.

    >>> found = fits(TrainingConfig(batch_size=4, gradient_accumulation=2, gradient_checkpointing=None))
    >>> [(fit.examples, fit.checkpointing) for fit in found]
    [(2, False), (1, False), (2, True), (1, True)]
    """
    asked = training.gradient_checkpointing
    checkpointing = [asked] if asked is not None else [True] if processes > 1 else [False, True]
    sizes = list(at_once(training.batch_size, training.gradient_accumulation, processes))
    return [Fit(size, twice) for twice in checkpointing for size in sizes]


def _note(work: Climb, after: int, too_much: Fit, fit: Fit) -> None:
    found = {"after_step": after, "examples_at_once": fit.examples, "checkpointing": fit.checkpointing}
    about = {"arm": work.task.arm, "seed": work.task.seed, "too_much": asdict(too_much), "room": _room(work)}
    _journal(work).append([found | about])


def _no_room(work: Climb) -> NoRoomError:
    key, training = f"arms.{work.task.arm}.training", work.task.config.training
    checkpoint = f"set {key}.gradient_checkpointing=true, " if training.gradient_checkpointing is False else ""
    return NoRoomError(
        f"arms.{work.task.arm}: one example of up to {training.max_length} tokens does not fit into the device's "
        "memory",
        f"{checkpoint}lower {key}.max_length, or take another device",
    )


def at_once(batch_size: int, accumulation: int, processes: int = 1) -> Iterator[int]:
    """Yield the divisors of `batch_size` from `batch_size` / `accumulation` down to 1, that `processes` can share.

    >>> list(at_once(12, 2))
    [6, 4, 3, 2, 1]
    >>> list(at_once(12, 2, processes=2))
    [6, 4, 2]
    """
    largest = batch_size // accumulation
    return (size for size in range(largest, 0, -1) if batch_size % size == 0 and size % processes == 0)


def _journal(work: Climb) -> Journal:
    """Return this command's own file, which has no other writer: it lies beside its ledger."""
    return Journal(work.allowance.attempt.ledger.journal.path.with_name(FILE), made_again=True)


def _rows(work: Climb, room: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what climbs of this arm found, other seeds' and other nodes' too, with the same needs and as much room.

    Raises:
        UserError: a file of them is damaged.
    """
    for path in (*sorted(work.run_root.glob(f"{TASKS}/*/{FILE}")), work.run_root / FILE):
        for row in Journal(path, made_again=True).rows():
            if row["arm"] == work.task.arm and row.get("room") == room:
                yield row


def _room(work: Climb) -> dict[str, Any]:
    """Return what decides how many examples fit, beside the subject and the arm's data: options, the devices' size."""
    config = work.task.config
    options = {name: getattr(config.training, name) for name in _ROOM}
    targets = list(config.lora.target_modules)
    return {**options, "rank": config.lora.rank, "target_modules": targets, "device_gib": _device_gib(work.device)}


def _device_gib(device: str) -> list[int] | None:
    """Return the whole GiB of each visible device, over which a subject may be spread; None on a CPU.

    Two devices of one kind differ by some bytes.
    """
    import torch

    if not device.startswith("cuda"):
        return None
    each = (torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count()))
    return [round(of.total_memory / 2**30) for of in each]
