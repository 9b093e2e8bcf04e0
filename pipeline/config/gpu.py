"""Which choices about devices and memory make no sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from pipeline.schema.serve import devices_held


def gpu_faults(raw: DictConfig) -> Iterator[str]:
    """Yield what is wrong in `serve`, `budget`'s devices and the arms' `liger`, one line each."""
    serve = raw.serve
    held = devices_held(serve)
    if held > raw.budget.devices:
        yield (
            f"budget.devices: {raw.budget.devices}, but serving holds {held} (serve.tensor_parallel_size x "
            "data_parallel_size): the ledger would count too few device-seconds"
        )
    # Its kernels take the place of the architecture's own for the whole process, and stay for the next arm.
    if len({bool((arm.get("training") or {}).get("liger")) for arm in raw.arms.values()}) > 1:
        yield "arms: liger=true in some and not in others; set arms.NAME.training.liger alike in all"
    if raw.subject.get("fsdp"):
        yield from _fsdp_faults(raw)


def _fsdp_faults(raw: DictConfig) -> Iterator[str]:
    """Yield what does not fit training in several processes: each takes a share of every batch that passes at once."""
    processes = raw.budget.get("training_devices") or 1
    if processes < 2:
        yield "subject.fsdp: true, but one device trains; set budget.training_devices to how many, or fsdp=false"
        return
    for name, arm in raw.arms.items():
        training = arm.get("training") or {}
        accumulation = training.get("gradient_accumulation")
        if not isinstance(accumulation, int) or accumulation < 1:
            continue  # a fault of its own
        for key, batch in _batches(f"arms.{name}", arm):
            at_once = batch // accumulation
            if batch % processes or at_once < processes:
                yield (
                    f"{key}: {batch} examples a step, {at_once} at once, cannot be shared by "
                    f"{processes} processes (subject.fsdp): batch_size must be a multiple of "
                    "budget.training_devices, and batch_size / gradient_accumulation no less"
                )
        if (searched := _searched(arm)) and not searched.get("choices"):
            yield (
                f"arms.{name}.sweep.space.training.batch_size: give choices that are multiples of "
                f"budget.training_devices={processes} (subject.fsdp)"
            )


def _batches(key: str, arm: Any) -> Iterator[tuple[str, int]]:
    """Yield the sizes of a step that an arm may train with, the searched ones too, and where each stands."""
    asked = {f"{key}.training": [(arm.get("training") or {}).get("batch_size")]}
    asked[f"{key}.sweep.space.training.batch_size"] = (_searched(arm) or {}).get("choices") or []
    return ((place, size) for place, sizes in asked.items() for size in sizes if isinstance(size, int))


def _searched(arm: Any) -> Any:
    space = (arm.get("sweep") or {}).get("space") or {}
    return (space.get("training") or {}).get("batch_size")
