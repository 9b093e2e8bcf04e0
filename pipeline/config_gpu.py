"""Which choices about devices and memory make no sense."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig


def gpu_faults(raw: DictConfig) -> Iterator[str]:
    """Yield what is wrong in `serve`, `budget.devices` and the arms' `fsdp` and `liger`, one line each."""
    serve = raw.serve
    if not 0 < serve.gpu_memory_utilization <= 1:
        yield f"serve.gpu_memory_utilization: {serve.gpu_memory_utilization} must be above 0 and at most 1"
    held = serve.tensor_parallel_size * serve.data_parallel_size
    if held > raw.budget.devices:
        yield (
            f"budget.devices: {raw.budget.devices}, but serving holds {held} (serve.tensor_parallel_size x "
            "data_parallel_size): the ledger would count too few device-seconds"
        )
    for name, arm in raw.arms.items():
        training = arm.get("training") or {}
        if training.get("fsdp_config") and not training.get("fsdp"):
            yield f"arms.{name}.training.fsdp_config: only fsdp=true reads it"
    # Its kernels take the place of the architecture's own for the whole process, and stay for the next arm.
    if len({bool((arm.get("training") or {}).get("liger")) for arm in raw.arms.values()}) > 1:
        yield "arms: liger=true in some and not in others; set arms.NAME.training.liger alike in all"
