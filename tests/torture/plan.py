"""Which faults are tried, in which order: a function of the seed and a fault's number alone, so that it can go on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.torture import faults
from tests.torture.case import Case
from tests.torture.faults import STATES

EVERY = 10  # each so-manieth fault has a vLLM server of its own


@dataclass(frozen=True)
class Kind:
    """A kind of fault: its name in the table, what brings it about, where it can strike, how often it is drawn."""

    name: str
    act: Callable[[Case], None]
    places: tuple[tuple[str, str], ...]  # (stage, state)
    weight: int
    mounts: bool = False


_EVERYWHERE = tuple((stage, state) for stage, states in STATES.items() for state in states)
_FILES = tuple(("start", state) for state in ("climbing", "trained", "half", "measured"))
KINDS = (
    *(Kind(name, faults.signalled, _EVERYWHERE, 20) for name in faults.SIGNALS),
    Kind("journal torn in its last line", faults.torn, _FILES, 8),
    Kind("journal damaged in the middle", faults.damaged, _FILES, 6),
    Kind("adapter truncated, changed or lost", faults.adapter, (("generate", "trained"), ("generate", "half")), 8),
    Kind("checkpoint cut short", faults.checkpoint, (("train", "climbing"),), 4),
    Kind(
        "disk full",
        faults.full,
        tuple(("", s) for s in ("nothing", "climbing", "trained", "half", "measured")),
        8,
        True,
    ),
    Kind(
        "run folder read-only",
        faults.readonly,
        tuple(("start", s) for s in ("nothing", "trained", "finished")),
        3,
        True,
    ),
    Kind("wall clock leaps", faults.clock, (("", "nothing"), ("", "half")), 3),
    Kind("the same command twice", faults.twice, (*_EVERYWHERE[4:],), 4),
    Kind("W&B killed", faults.tracker, (("", "nothing"), ("", "half")), 3),
)
SERVED = (
    Kind("vLLM killed", faults.engine, (("generate", "trained"), ("generate", "half")), 1),
    Kind("vLLM hung", faults.engine, (("generate", "trained"), ("generate", "half")), 1),
    Kind("killed with its own vLLM", faults.killed_with_server, (("generate", "trained"), ("generate", "half")), 2),
    Kind("killed as a fresh process", faults.fresh, (("any", "nothing"), ("any", "climbing")), 1),
)


def drawn(seed: int, number: int, *, mounts: bool, own: int = EVERY) -> tuple[Kind, str, str, random.Random, bool]:
    """Return fault `number` (from 0): kind, stage, state, its chance, and whether it has a server of its own.

    Args:
        mounts: whether file systems can be mounted here; faults that need it are left out otherwise.
        own: each so-manieth fault has a vLLM of its own; 0: none.
    """
    chance = random.Random(f"{seed}/{number}")
    if own and number % own == own - 1:
        kind = SERVED[number // own % len(SERVED)]
        stage, state = chance.choice(kind.places)
        return kind, stage, state, chance, True
    kinds = [kind for kind in KINDS if mounts or not kind.mounts]
    drawn_kind = chance.choices(kinds, [kind.weight for kind in kinds])[0]
    kind = kinds[number] if number < len(kinds) else drawn_kind  # one of each first
    stages = sorted({stage for stage, _ in kind.places})
    stage = chance.choice(stages)
    state = chance.choice([state for where, state in kind.places if where == stage])
    return kind, stage, state, chance, False
