"""Fits a climb into the device's memory: fewer examples at once, more accumulation, the same training step.

How many examples fit at once depends on the device, the model and the longest examples, and what does not fit may show
itself late. The plan's step of `batch_size` examples must not change with it: that would be another attack. So the
examples that pass at once go down to the next divisor of `batch_size`, and accumulation makes up for it: the same
examples in the same steps, sums in another order. Accelerate's `find_executable_batch_size` tells what is a lack of
memory; transformers' `auto_find_batch_size` is not used, since it leaves the accumulation as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipeline.arms.base import Climb, Ending
from pipeline.errors import UserError
from pipeline.records import Rung
from pipeline.store import Journal

FILE = "memory.jsonl"  # in the run folder: one row for each time that the examples at once went down


class NoRoomError(UserError, MemoryError):
    """Not one example fits: a fault to mend for the user, a failed trial to a search."""


def within_memory(work: Climb, attempt: Callable[[Climb, int], Ending]) -> Ending:
    """Return what `attempt(work, examples at once)` returns, tried with fewer examples where memory ends.

    Each try goes on after the last rung that stands, as it would after a kill; the steps that were lost were paid for.

    Raises:
        NoRoomError: not even one example fits.
    """
    from accelerate.utils import find_executable_batch_size
    from accelerate.utils.memory import clear_device_cache

    done = list(work.done)
    training = work.task.config.training
    sizes = at_once(training.batch_size, training.gradient_accumulation)
    first = next(sizes)

    def emit(rung: Rung, answers: Mapping[str, Any]) -> None:
        work.emit(rung, answers)
        done.append(rung)

    def fewer() -> int:
        smaller = next(sizes, None)
        if smaller is None:
            arm = f"arms.{work.task.arm}"
            raise NoRoomError(
                f"{arm}: one example of up to {training.max_length} tokens does not fit into the device's memory",
                f"set {arm}.training.gradient_checkpointing=true, lower its max_length, or take another device",
            )
        step = done[-1].step if done else 0
        row = {"arm": work.task.arm, "seed": work.task.seed, "after_step": step, "examples_at_once": smaller}
        Journal(work.run_root / FILE).append([row])
        return smaller

    @find_executable_batch_size(starting_batch_size=first, reduce_batch_size_fn=fewer)  # type: ignore[untyped-decorator]
    def run(size: int) -> Ending:
        if size != first:  # by now the error, which held the failed try's tensors, is gone
            clear_device_cache(garbage_collection=True)
        return attempt(replace(work, done=tuple(done), emit=emit), size)

    ending: Ending = run()
    return ending


def at_once(batch_size: int, accumulation: int) -> Iterator[int]:
    """Yield the divisors of `batch_size` from `batch_size` / `accumulation` down to 1.

    >>> list(at_once(12, 2))
    [6, 4, 3, 2, 1]
    """
    return (size for size in range(batch_size // accumulation, 0, -1) if batch_size % size == 0)
