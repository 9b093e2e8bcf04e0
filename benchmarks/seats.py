"""`python -m benchmarks.seats`: how many of an engine's seats hold a reply, simulated without a GPU.

An engine has `max_num_seqs` seats. Each step adds a token to every reply that has one; a prompt takes the first free
seat, in the order of arrival, unless as many other adapters as there are slots hold seats (vLLM's scheduler passes it
over then). A request keeps its place among those under way until its longest reply is done, and then the next one is
sent, as `pipeline.generate.matrix` sends them. What is left out: the steps that read prompts, the time between a reply
and the next request, and the cache of keys and values, taken to hold all seats' replies.

Lengths are geometric (every token is the last one with the same probability), and cut at the eval's `max_tokens`. On a
GPU a step of few replies takes nearly the time of one of many, so steps are what is paid; they are counted here, and
no speed is.
"""

from __future__ import annotations

import argparse
import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.generate.matrix import Cell, batches
from pipeline.schema import ServeConfig
from pipeline.serve.width import Load, requests_at_once, slots

MOST_TOKENS: Final = (256, 256, 512)  # of the evals of `release_review`: refusal, over-refusal, capability
PROMPTS: Final = (60, 100, 300)  # of each eval
MEAN: Final = 130  # tokens of a reply that nothing cuts off
SEED: Final = 20261123


@dataclass(frozen=True)
class Filled:
    """What an engine took. `share` of the seats held a reply, over all steps."""

    steps: int
    share: float


def seated(requests: Iterable[tuple[str, Sequence[int]]], seats: int, adapters: int, under_way: int) -> Filled:
    """Return how an engine goes through some requests.

    Args:
        requests: (adapter, tokens of each of its replies), in the order in which they are sent.
        seats: replies that grow in one step.
        adapters: that may hold seats at once.
        under_way: requests that are sent before one of them is done.
    """
    coming, left = deque(requests), Counter[int]()
    waiting: deque[tuple[str, int, int]] = deque()
    growing: list[tuple[int, str, int]] = []  # a heap: the step in which a reply is done, its adapter, its request
    holding: Counter[str] = Counter()
    now = tokens = sent = 0
    while True:
        while coming and len(left) < under_way:
            adapter, lengths = coming.popleft()
            left[sent] = len(lengths)
            waiting.extend((adapter, length, sent) for length in lengths)
            sent += 1
        passed: deque[tuple[str, int, int]] = deque()
        while waiting and len(growing) < seats:
            adapter, length, request = waiting.popleft()
            if adapter not in holding and len(holding) == adapters:
                passed.append((adapter, length, request))
                continue
            holding[adapter] += 1
            heapq.heappush(growing, (now + length, adapter, request))
            tokens += length
        waiting = passed + waiting
        if not growing:
            return Filled(now, tokens / (now * seats))
        now = growing[0][0]
        while growing and growing[0][0] == now:
            _, adapter, request = heapq.heappop(growing)
            holding[adapter] -= 1
            left[request] -= 1
        holding, left = +holding, +left  # without those that have none any more


def review(rungs: int, prompts: int, size: int) -> Iterator[tuple[str, list[int]]]:
    """Yield the requests of a review: every rung asks each eval as many prompts, `size` in a request."""
    cells = [
        Cell(f"rung-{rung}", f"eval-{place}", str(number), 0, (), "", most, 0.0)
        for rung in range(rungs)
        for place, most in enumerate(MOST_TOKENS)
        for number in range(prompts)
    ]
    random = np.random.default_rng(SEED)
    for batch in batches(cells, size):
        lengths = np.minimum(random.geometric(1 / MEAN, len(batch)), [cell.max_tokens for cell in batch])
        yield batch[0].rung, lengths.tolist()


def filled(config: ServeConfig, rungs: int, prompts: int) -> Filled:
    """Return how an engine of this configuration goes through a review, `prompts` of each eval."""
    shared = slots(config, rungs, Load(prompts * len(MOST_TOKENS)))
    seats = config.max_num_seqs
    return seated(review(rungs, prompts, config.batch_size), seats, shared, requests_at_once(config))


def table(rungs: int) -> Table:
    """Return the share of seats that hold a reply, by prompts of each eval, and what was chosen."""
    chosen = ServeConfig(max_loras=None, in_flight=None)
    ways = {"null, null": chosen, "8, 8": ServeConfig(), "16, 16": ServeConfig(in_flight=16, max_loras=16)}
    ways |= {f"16, {count}": ServeConfig(in_flight=16, max_loras=count) for count in (2, 4)}
    made = Table(
        title=f"{rungs} rungs, 3 evals, 256 seats: share of the seats that hold a reply (steps)",
        caption="by serve.in_flight (requests of 64 prompts) and serve.max_loras",
    )
    for name in ("prompts an eval", *ways):
        made.add_column(name, justify="right")
    for prompts in PROMPTS:
        found = [filled(config, rungs, prompts) for config in ways.values()]
        made.add_row(str(prompts), *(f"{each.share:.2f} ({each.steps:,})" for each in found))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rungs", type=int, default=24)
    Console().print(table(parser.parse_args().rungs))


if __name__ == "__main__":
    main()
