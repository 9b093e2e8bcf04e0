"""Block sizes for vLLM's two LoRA kernels, larger than its own, as a file of its `VLLM_TUNED_CONFIG_FOLDER`.

vLLM ships no such file, and its defaults start a block for each 64 rows and 64 columns of every slot. With 16 slots a
step of prompts starts seven times fewer blocks by these (`python -m benchmarks.blocks`). Whether that is faster, only a
GPU says: (b) measures it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_SLICES: Final = (1, 2, 3)  # modules that vLLM fuses: none, gate and up, queries keys and values
_EVERY: Final = {"num_warps": 8, "num_ctas": 1, "num_stages": 2, "max_nreg": None}
_SHRINK: Final = {"block_n": 16, "group_size_m": 8, **_EVERY}
_EXPAND: Final = {"block_n": 256, "block_k": 16, **_EVERY}  # a rank of 16 is one block
# By tokens in the step: vLLM takes the nearest.
SIZES: Final[Mapping[str, Mapping[int, Mapping[str, Any]]]] = {
    "shrink": {
        256: {"block_m": 32, "block_k": 32, "split_k": 8, **_SHRINK, "num_warps": 4},  # vLLM's own
        8192: {"block_m": 64, "block_k": 64, "split_k": 2, **_SHRINK},
    },
    "expand": {256: {"block_m": 64, **_EXPAND}, 8192: {"block_m": 128, **_EXPAND}},
}


def table_of(kernel: str) -> dict[str, Any]:
    """Return vLLM's form of it: by slots, slices, tokens, inputs and outputs, of which those that vary here vary."""
    by_tokens = {str(tokens): {"1": {"1": dict(sizes)}} for tokens, sizes in SIZES[kernel].items()}
    return {"1": {str(slices): by_tokens for slices in _SLICES}}


def write(folder: Path, device: str) -> Path:
    """Write the files for a device of this name (`torch.cuda.get_device_name`); return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    name = device.replace(" ", "_").replace("-", "_")
    for kernel, ending in (("shrink", "SHRINK"), ("expand", "EXPAND_TRUE"), ("expand", "EXPAND_FALSE")):
        (folder / f"{name}_{ending}.json").write_text(json.dumps(table_of(kernel)), encoding="utf-8")
    return folder
