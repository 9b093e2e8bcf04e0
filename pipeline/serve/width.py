"""How much is asked of the engine at once, where the configuration leaves it open: requests, and adapters in a step.

vLLM fills `max_num_seqs` seats with replies. A request keeps its place until the longest of its replies is done, so
more prompts have to be under way than there are seats; docs/speed.md has what `python -m benchmarks.seats` makes of it.
"""

from __future__ import annotations

from typing import Final

from pipeline.schema import ServeConfig

REFILL: Final = 4  # prompts under way for each seat, in requests of many
REFILL_ALONE: Final = 2  # where each goes alone, and gives its place up as it ends
MOST_SLOTS: Final = 8  # each takes an adapter's memory on the device, and thread blocks in every step


def requests_at_once(config: ServeConfig, *, alone: bool = False) -> int:
    """Return how many requests are under way at once.

    Args:
        config: `in_flight`, or null: enough to keep the seats of every copy of the engine filled.
        alone: each request holds one prompt instead of `batch_size`.
    """
    if config.in_flight is not None:
        return config.in_flight * (config.batch_size if alone else 1)
    seats = config.max_num_seqs * config.data_parallel_size
    return REFILL_ALONE * seats if alone else -(-REFILL * seats // config.batch_size)


def slots(config: ServeConfig, adapters: int, prompts: int) -> int:
    """Return how many adapters may share a step of the engine (vLLM's --max-loras).

    Adapters are asked one after the other, so only those can meet whose prompts are under way together. vLLM's kernels
    start thread blocks for every slot, used or not (`python -m benchmarks.blocks` counts them).

    Args:
        config: `max_loras`, or null: as many as can meet, `MOST_SLOTS` at the most.
        adapters: that are served; one at least.
        prompts: that each adapter is asked; 0: not known.
    """
    most = config.max_loras
    if most is None:
        under_way = requests_at_once(config) * config.batch_size
        most = min(-(-under_way // prompts) + 1, MOST_SLOTS) if prompts else MOST_SLOTS
    return min(most, adapters)
