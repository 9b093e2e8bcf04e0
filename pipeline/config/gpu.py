"""Which choices about devices and memory make no sense."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig


def gpu_faults(raw: DictConfig) -> Iterator[str]:
    """Yield what is wrong in `serve`, `budget`'s devices and the arms' `fsdp` and `liger`, one line each."""
    serve = raw.serve
    if not 0 < serve.gpu_memory_utilization <= 1:
        yield f"serve.gpu_memory_utilization: {serve.gpu_memory_utilization} must be above 0 and at most 1"
    held = serve.tensor_parallel_size * serve.data_parallel_size
    if held > raw.budget.devices:
        yield (
            f"budget.devices: {raw.budget.devices}, but serving holds {held} (serve.tensor_parallel_size x "
            "data_parallel_size): the ledger would count too few device-seconds"
        )
    trains = raw.budget.get("training_devices")
    if trains is not None and trains < 1:
        yield f"budget.training_devices: {trains} must be 1 or more"
    for name, arm in raw.arms.items():
        training = arm.get("training") or {}
        for key in ("fsdp", "fsdp_config"):
            if training.get(key):
                yield (
                    f"arms.{name}.training.{key}: it needs a process for each device, and Holdfast trains in one; "
                    "leave it out: a model larger than a device is spread over those that are visible by itself"
                )
    # Its kernels take the place of the architecture's own for the whole process, and stay for the next arm.
    if len({bool((arm.get("training") or {}).get("liger")) for arm in raw.arms.values()}) > 1:
        yield "arms: liger=true in some and not in others; set arms.NAME.training.liger alike in all"
