"""On which devices a model is loaded: one where it fits, else spread over those that are visible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.errors import UserError
from pipeline.subject.weights import weight_bytes

SHARE: Final = 0.95  # of a device's free memory that weights may take
GIB: Final = 2**30


def device_map(needed: int, free: Sequence[int]) -> dict[str, int] | str:
    """Return transformers' `device_map`: the first device, or "auto" (layers spread over all) where it is too small.

    Args:
        needed: bytes of the weights.
        free: free bytes of each visible device, at least one.

    Raises:
        UserError: not even all devices together hold them.
    """
    if needed <= SHARE * free[0]:
        return {"": 0}
    if needed <= SHARE * sum(free):
        return "auto"
    has = " + ".join(f"{each / GIB:.1f}" for each in free)
    raise UserError(
        f"subject.path: its weights take {needed / GIB:.1f} GiB, and the CUDA devices that can be used here have "
        f"{has} GiB free",
        "use more or larger devices, or end what else runs on them",
    )


def placement(folder: Path, dtype: str) -> dict[str, Any]:
    """Return what `from_pretrained` is told so that the weights go straight to this machine's CUDA devices.

    To ask a device for its free memory takes some of it, so that others than the first are asked where they are needed.

    Raises:
        UserError: as `device_map`.
    """
    import torch

    needed, count = weight_bytes(folder, dtype), torch.cuda.device_count()
    free = [int(torch.cuda.mem_get_info(0)[0])]
    if needed > SHARE * free[0]:
        free += [int(torch.cuda.mem_get_info(number)[0]) for number in range(1, count)]
    placed = device_map(needed, free)
    if placed != "auto":
        return {"device_map": placed}
    # Devices alone: transformers would put the rest into main memory, where it cannot be trained.
    return {"device_map": placed, "max_memory": dict(enumerate(free))}


def require_on_devices(model: Any) -> None:
    """Make sure that a model which is spread over devices lies on devices alone.

    Raises:
        UserError: whole layers did not fit as they come.
    """
    left = {"cpu", "disk"} & set(map(str, (getattr(model, "hf_device_map", None) or {}).values()))
    if left:
        raise UserError(
            f"subject.path: its layers do not all fit into the CUDA devices that can be used here: some are on "
            f"{' and '.join(sorted(left))}",
            "use more or larger devices, or end what else runs on them",
        )
