"""Lets vLLM's CPU build serve a mixture of experts beside adapters.

With adapters on, vLLM computes experts by a Triton kernel, on every device, since an adapter might change them; on a
CPU there is no Triton, and the first request ends the engine (`triton.language has no attribute float32`, 0.32). Ours
change no experts (`pipeline.arms.targets`), so that the kernels of a CPU will do. Installed by `vllm_server.py` in the
server's process only; the proof compares every served adapter with PEFT in each run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.serve.replaced import replace

METHOD = "vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method"
CHOICE = "select_unquantized_moe_backend"


def install() -> bool:
    """Let vLLM choose the experts' kernels as without adapters; False where this vLLM chooses otherwise."""
    return replace(METHOD, CHOICE, _without_adapters)


def _without_adapters(own: Callable[..., Any]) -> Callable[..., Any]:
    def select(moe_config: Any, *args: Any, **options: Any) -> Any:
        moe_config.is_lora_enabled = False
        return own(moe_config, *args, **options)

    return select
