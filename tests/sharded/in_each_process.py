"""What tests have training processes call: of a module, since they know functions by name."""

import os
import signal
from typing import Any

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
