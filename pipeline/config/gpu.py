"""Which choices about devices and memory make no sense."""

from __future__ import annotations

from collections.abc import Iterator

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
