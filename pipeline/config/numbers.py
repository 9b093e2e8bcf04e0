"""Numbers that are well typed and no run can work with: found before anything is spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from omegaconf import DictConfig

# The least value of each key; those under `_ABOVE` must be larger. Null stands for "not given" and is passed over.
_LEAST: Final[dict[str, Mapping[str, float]]] = {
    "review": {"bootstrap": 1, "min_n": 1},
    "budget": {"usd_per_device_hour": 0, "devices": 1},
    "serve": {
        **{"max_model_len": 1, "max_num_seqs": 1, "max_num_batched_tokens": 1, "batch_size": 1, "in_flight": 1},
        **{"max_loras": 1, "tensor_parallel_size": 1, "data_parallel_size": 1},
    },
}
_ABOVE: Final[dict[str, Mapping[str, float]]] = {
    "review": {"logit_tolerance": 0},
    "budget": {"assumed_flops_per_second": 0},
    "serve": {"start_timeout_s": 0, "request_timeout_s": 0, "hung_after_s": 0},
}
_EVAL: Final = {"draws": 1, "max_tokens": 1, "temperature": 0}
_ARM: Final = {"examples": 1}
_LORA: Final = {"rank": 1, "alpha": 1, "dropout": 0}
_TRAINING: Final = {
    **{"batch_size": 1, "gradient_accumulation": 1, "max_steps": 1, "max_length": 1},
    **{"learning_rate": 0, "warmup_steps": 0, "weight_decay": 0, "max_grad_norm": 0},
}


def number_faults(raw: DictConfig) -> Iterator[str]:
    """Yield a line for each number that lies below the least that makes sense."""
    for part, least in _LEAST.items():
        yield from _below(part, raw[part], least)
    for part, bound in _ABOVE.items():
        yield from _below(part, raw[part], bound, above=True)
    for name, node in (raw.get("evals") or {}).items():
        yield from _below(f"evals.{name}", node, _EVAL)
    for name, arm in (raw.get("arms") or {}).items():
        yield from _below(f"arms.{name}", arm, _ARM)
        yield from _below(f"arms.{name}", arm, {"share": 0}, above=True)
        yield from _below(f"arms.{name}.lora", arm.get("lora") or {}, _LORA)
        yield from _below(f"arms.{name}.training", arm.get("training") or {}, _TRAINING)


def _below(key: str, node: Mapping[str, Any], least: Mapping[str, float], *, above: bool = False) -> Iterator[str]:
    for name, bound in least.items():
        value = node.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue  # of another type, which is told elsewhere; or null
        if not (value > bound if above else value >= bound):
            yield f"{key}.{name}: {value} must be {f'above {bound}' if above else f'{bound} or more'}"
