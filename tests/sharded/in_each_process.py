"""What tests have training processes call: of a module, since they know functions by name."""

import os
import signal
from typing import Any

from pipeline.search.dev import greedy
from pipeline.sharded.member import this


def rank() -> int:
    member = this()
    assert member is not None
    return member.start.rank


def weights_held(model: Any) -> tuple[int, int]:
    """Return how many numbers of the subject's weights this process holds, and how many there are."""
    held = sum(weight.to_local().numel() for weight in model.parameters())
    return held, sum(weight.numel() for weight in model.parameters())


def end_memory_in(model: Any, which: int) -> None:
    """Run out of memory in one process while the others wait for it."""
    if rank() == which:
        raise RuntimeError("CUDA out of memory. Tried to allocate")
    wait_for_all(model)


def die_in(model: Any, which: int) -> None:
    if rank() == which:
        os.kill(os.getpid(), signal.SIGKILL)
    wait_for_all(model)


def wait_for_all(model: Any) -> None:
    import torch.distributed as dist

    dist.barrier()


def pids(model: Any) -> int:
    return os.getpid()


def meet_an_error_of_the_system(model: Any) -> None:
    """As where the disk is full while a checkpoint is written."""
    if rank() == 0:
        raise OSError(28, "No space left on device", "trainer_state.json")
    wait_for_all(model)


def all_pids(model: Any) -> list[int]:
    import torch.distributed as dist

    pids: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(pids, os.getpid())
    return pids


def greedy_that_ends_sooner_in_the_first(model: Any, prompt: list[int], stops: list[int]) -> list[list[int]]:
    """As where sums come in another order on another device, and its best token is the one that ends the reply."""
    ends = stops if rank() == 0 else [stops[0]]
    return greedy(model, [prompt], 8, ends, 1)


def as_on_a_device(model: Any, wanted: bool) -> None:
    """Let climbs pass their longest examples first, or not."""
    from pipeline.arms import longest, lora

    lora.ends_by_error = (lambda device: True) if wanted else longest.ends_by_error
