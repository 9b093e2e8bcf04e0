"""What follows from how much an engine is asked, where the configuration leaves it open.

That is how many requests are under way, how many adapters share a step, and whether CUDA graphs are worth their start.

vLLM fills `max_num_seqs` seats with replies. A request keeps its place until the longest of its replies is done, so
more prompts have to be under way than there are seats; docs/speed.md has what `python -m benchmarks.seats` makes of it.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

from pipeline.schema import ServeConfig

REFILL: Final = 4  # prompts under way for each seat, in requests of many
REFILL_ALONE: Final = 2  # where each goes alone, and gives its place up as it ends
FILES_BESIDE: Final = 256  # open files of a process beside its requests' connections
MOST_SLOTS: Final = 8  # each takes an adapter's memory on the device, and thread blocks in every step
# Steps from which graphs are captured and kernels compiled. Assumed, not measured: half a minute more for the start,
# some 5 ms less for each step. Part (c) of `python -m benchmarks.gpu` measures both.
GRAPHS_PAY: Final = 5000


@dataclass(frozen=True)
class Load:
    """What each adapter is asked: prompts, and tokens of replies that are all as long as may be; 0: not known."""

    prompts: int = 0
    tokens: int = 0


def seats(config: ServeConfig) -> int:
    """Return how many replies grow at once, in all copies of the engine."""
    return config.max_num_seqs * config.data_parallel_size


def requests_at_once(config: ServeConfig, *, alone: bool = False) -> int:
    """Return how many requests are under way at once.

    Args:
        config: `in_flight`, or null: enough to keep the seats of every copy of the engine filled.
        alone: each request holds one prompt instead of `batch_size`.
    """
    if config.in_flight is not None:
        return config.in_flight * (config.batch_size if alone else 1)
    return REFILL_ALONE * seats(config) if alone else -(-REFILL * seats(config) // config.batch_size)


def prompts_at_once(config: ServeConfig) -> int:
    """Return how many prompts are under way at once, at the most."""
    return requests_at_once(config) * config.batch_size


def allow_files(requests: int) -> None:
    """Raise this process's own limit of open files where so many requests at once would pass it, as vLLM does its.

    Each has a connection, and a process mostly begins with 1,024: two copies of an engine of 256 seats would pass it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = requests + FILES_BESIDE if hard == resource.RLIM_INFINITY else min(requests + FILES_BESIDE, hard)
    if soft not in (resource.RLIM_INFINITY, hard) and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def slots(config: ServeConfig, adapters: int, load: Load) -> int:
    """Return how many adapters may share a step of the engine (vLLM's --max-loras).

    Adapters are asked one after the other, so only those can meet whose prompts are under way together. vLLM's kernels
    start thread blocks for every slot, used or not (`python -m benchmarks.blocks` counts them).

    Args:
        config: `max_loras`, or null: as many as can meet, `MOST_SLOTS` at the most.
        adapters: that are served; one at least.
        load: of each adapter.
    """
    most = config.max_loras
    if most is None:
        most = min(-(-prompts_at_once(config) // load.prompts) + 1, MOST_SLOTS) if load.prompts else MOST_SLOTS
    return min(most, adapters)


def is_eager(config: ServeConfig, adapters: int, load: Load) -> bool:
    """Say whether the engine starts without graphs and compiled kernels (vLLM's --enforce-eager).

    Args:
        config: `enforce_eager`, or null: where all replies take fewer than `GRAPHS_PAY` steps with every seat filled.
        adapters: that are served.
        load: of each adapter.
    """
    if config.enforce_eager is not None:
        return config.enforce_eager
    return 0 < adapters * load.tokens < GRAPHS_PAY * seats(config)
