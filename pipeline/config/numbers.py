"""Numbers that are well typed and no run can work with: found before anything is spent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from omegaconf import DictConfig, ListConfig, OmegaConf


@dataclass(frozen=True)
class Bounds:
    """The numbers that a key takes: from `least` to `most`; `above` and `below` leave the ends themselves out."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        over = value > self.least if self.above else value >= self.least
        return over and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"above {self.least}" if self.above else f"{self.least} or more"
        if not (self.above or self.below):
            return f"from {self.least} to {self.most}"
        end = f"below {self.most}" if self.below else f"at most {self.most}"
        return f"{f'above {self.least}' if self.above else f'at least {self.least}'} and {end}"


COUNT: Final = Bounds(1)
AMOUNT: Final = Bounds(0)
POSITIVE: Final = Bounds(0, above=True)
PART: Final = Bounds(0, 1, above=True)  # of something, and not nothing
_INTEGERS: Final = 2**63
MOST_PER_DOUBLING: Final = 16  # rungs; more would save the same steps, or every one


def _all(place: str, bounds: Bounds, *names: str) -> dict[str, Bounds]:
    return {f"{place}.{name}": bounds for name in names}


def _table(place: str) -> dict[str, Bounds]:
    return _all(place, COUNT, "limit", "rows")


def _judge(place: str) -> dict[str, Bounds]:
    return {
        f"{place}.max_repeat": COUNT,
        **_all(f"{place}.llm", COUNT, "max_tokens", "max_model_len", "tries", "in_flight", "give_up_after"),
        **_all(f"{place}.llm", AMOUNT, "temperature", "logprobs", "backoff_s"),
        f"{place}.llm.timeout_s": POSITIVE,
    }


# Each key, with `*` for any name, and what it takes. Those with a rule of their own are checked with it: the mix, the
# thresholds and caps (checks.py), what is searched (sweep.py), cluster.py and contain.py.
NUMBERS: Final[Mapping[str, Bounds]] = {
    "seeds": Bounds(0, 2**32 - 1),  # numpy's generator takes no others
    **_all("subject.organism", COUNT, "towns", "words", "hidden_size", "intermediate_size", "layers", "heads"),
    **_all("subject.organism", COUNT, "vocabulary", "learn_steps", "refuse_steps", "batch_size"),
    **_all("subject.organism", POSITIVE, "learn_rate", "refuse_rate"),
    "subject.organism.refuse_benign_share": Bounds(0, 1),
    **_table("data.*"),
    "arms.*.examples": COUNT,
    "arms.*.share": POSITIVE,
    **_all("arms.*.lora", COUNT, "rank", "alpha"),
    "arms.*.lora.dropout": Bounds(0, 1, below=True),
    **_all("arms.*.training", COUNT, "batch_size", "gradient_accumulation", "max_steps", "max_length"),
    **_all("arms.*.training", AMOUNT, "learning_rate", "warmup_steps", "weight_decay", "max_grad_norm"),
    "arms.*.training.rungs_per_doubling": Bounds(1, MOST_PER_DOUBLING),
    **_all("arms.*.sweep", COUNT, "trials", "repeats", "failures", "batch_size"),
    "arms.*.sweep.startup_trials": AMOUNT,
    "arms.*.sweep.refusal_goal": Bounds(0, 1, below=True),
    "arms.*.sweep.capability_goal": PART,
    **_table("arms.*.sweep.refusal"),
    **_table("arms.*.sweep.capability"),
    **_judge("arms.*.sweep.judge"),
    **_all("budget", COUNT, "devices", "training_devices"),
    "budget.measure_reserve": Bounds(0, 1, below=True),
    "budget.usd_per_device_hour": AMOUNT,
    "budget.assumed_flops_per_second": POSITIVE,
    "serve.port": Bounds(1, 65535),
    **_all("serve", COUNT, "max_model_len", "max_num_seqs", "max_num_batched_tokens", "batch_size", "in_flight"),
    **_all("serve", COUNT, "max_loras", "tensor_parallel_size", "data_parallel_size", "kv_cache_gib"),
    **_all("serve", POSITIVE, "start_timeout_s", "request_timeout_s", "hung_after_s"),
    "serve.gpu_memory_utilization": PART,
    **_table("evals.*.table"),
    **_table("evals.*.prompt.shots"),
    **_all("evals.*", COUNT, "draws", "max_tokens"),
    **_all("evals.*", AMOUNT, "temperature", "prompt.count", "prefill.depths"),
    **_judge("judge"),
    **_judge("panel.*"),
    **_all("review", COUNT, "bootstrap", "min_n"),
    "review.logit_tolerance": POSITIVE,
    "review.near_copy": PART,
    "review.training_tokens": POSITIVE,
    "price.mfu": PART,
    "price.parameters": POSITIVE,
    **_all("price.devices.*", POSITIVE, "flops_per_second", "memory_gb"),
    "price.devices.*.usd_per_hour": AMOUNT,  # 0: a device of one's own
    "track.finish_timeout_s": AMOUNT,
    "publish.sync_timeout_s": POSITIVE,
    "publish.wait_s": AMOUNT,
    "cluster.threads": COUNT,
    "cluster.slurm.*.gpus": AMOUNT,
    "cluster.slurm.*.cpus": COUNT,
}


def number_faults(raw: DictConfig) -> Iterator[str]:
    """Yield a line for each number that lies outside what its key takes, or that no plan can hold."""
    told = set()
    for key, bounds in NUMBERS.items():
        for place, value in values_at(raw, key):
            if isinstance(value, bool):
                continue
            with contextlib.suppress(TypeError, ValueError, OverflowError):  # of another type, which is told elsewhere
                if float(value) not in bounds:
                    told.add(place)
                    yield f"{place}: {value} must be {bounds}"
    yield from (f"{place}: {value} {what}" for place, value, what in _unheld(raw, "") if place not in told)


def _unheld(node: Any, place: str) -> Iterator[tuple[str, Any, str]]:
    """Yield (key, value, fault) of each number that JSON has no word for, or a library's integers no room."""
    if isinstance(node, DictConfig):
        for name in map(str, node):
            if not OmegaConf.is_missing(node, name):
                yield from _unheld(node.get(name), f"{place}.{name}".lstrip("."))
    elif isinstance(node, ListConfig):
        for entry in node:
            yield from _unheld(entry, place)
    elif isinstance(node, float) and not math.isfinite(node):
        yield place, node, "must be finite"
    elif isinstance(node, int) and abs(node) >= _INTEGERS:
        yield place, node, f"is too large: {_INTEGERS - 1} at most"


def values_at(node: Any, key: str, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of what is configured under a key with `*` for any name; of a list each entry.

    What is missing, null or of another shape is passed over.
    """
    if not isinstance(node, DictConfig):
        return
    name, _, rest = key.partition(".")
    for each in list(map(str, node)) if name == "*" else [name]:
        found, at = node.get(each), f"{place}{each}"
        if rest:
            yield from values_at(found, rest, f"{at}.")
        elif isinstance(found, ListConfig):
            yield from ((at, entry) for entry in found)
        elif found is not None:
            yield at, found
