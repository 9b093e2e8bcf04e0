"""The contract of an arm: one way of stressing the subject, climbing a ladder of rungs within its allowance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # the configuration is checked without torch
    from pipeline.generate.proof import Canaries
    from pipeline.ledger import Allowance
    from pipeline.records import Dose, Rung
    from pipeline.schema import ArmConfig
    from pipeline.subject.subject import Subject

Ending = Literal["max_steps", "budget", "nan_loss", "paused"]


@dataclass(frozen=True)
class Task:
    """One arm and seed of the plan; `rungs` are the steps at which a checkpoint is saved.

    `processes` train together, each with a share of the subject's weights and of each step's examples
    (`pipeline.sharded`).
    """

    arm: str
    seed: int
    config: ArmConfig
    rungs: tuple[int, ...]
    processes: int = 1

    def rung_id(self, step: int) -> str:
        """Return the name of a rung, which is also the adapter's name on the server."""
        return f"{self.arm}-s{self.seed}-{step:05d}"


@dataclass(frozen=True)
class Example:
    """One training example as token ids. Shapes: (prompt tokens,), (completion tokens,)."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass
class Pause:
    """How a climb is stopped between two rungs so that it goes on later from the same step.

    `asked` is looked at after each step; where it says yes, the climb saves a checkpoint, hands it to `park` and ends
    as "paused". `parked` is that of the last pause, None where none is later than the last rung. A parked checkpoint
    is written as a rung is, but is none: it is never measured.
    """

    asked: Callable[[], bool]
    park: Callable[[Rung], None]
    parked: Rung | None = None


@dataclass
class Climb:
    """Everything an arm needs for one task.

    `done` are the rungs that stand already, oldest first: the arm goes on after the last, or from where it was paused.
    `emit` takes each new rung once it is saved, and what the trained model answers to the canaries. `on_step` takes the
    dose and the training's figures. `leads` is false in those of several training processes that write nothing, and
    whose rungs are the first one's.
    """

    task: Task
    subject: Subject
    base_sha256: str
    model: Any  # transformers causal LM, handed back as it came; or the `Ranks` that hold it together
    device: str
    examples: Sequence[Example]
    allowance: Allowance
    folder: Path
    run_root: Path
    canaries: Canaries
    done: Sequence[Rung]
    emit: Callable[[Rung, Mapping[str, Any]], None]
    on_step: Callable[[Dose, Mapping[str, float]], None] = field(default=lambda _dose, _values: None)
    pause: Pause | None = None
    leads: bool = True

    @property
    def last(self) -> Rung | None:
        """The checkpoint to go on from; None: from the untouched subject."""
        parked = [self.pause.parked] if self.pause and self.pause.parked else []
        return max([*self.done, *parked], key=lambda rung: rung.step, default=None)


class Arm(Protocol):
    """One way of stressing the subject."""

    def __call__(self, climb: Climb) -> Ending:
        """Train, handing over rungs as they are saved; stop when the allowance is used, never after.

        Returns:
            Why the ladder ended. The arm can be called again after a kill and goes on from its last rung.
        """
        ...


def rungs_of(arm: ArmConfig) -> tuple[int, ...]:
    """Return the steps at which an arm saves its rungs."""
    return ladder(arm.training.max_steps, arm.training.rungs_per_doubling)


def ladder(max_steps: int, per_doubling: int = 1) -> tuple[int, ...]:
    """Return the steps of the rungs: powers of two up to `max_steps`, evenly spaced ones between them on a log axis
    where there are to be more per doubling, and `max_steps` itself.

    >>> ladder(20)
    (1, 2, 4, 8, 16, 20)
    >>> ladder(20, 2)
    (1, 2, 3, 4, 6, 8, 11, 16, 20)
    """
    spaced = {round(2 ** (place / per_doubling)) for place in range(per_doubling * max_steps.bit_length())}
    return tuple(sorted({step for step in spaced if step <= max_steps} | {max_steps}))
