"""An arm's climb in one of the training processes: the ladder is the same, ledger and rungs are the command's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipeline.arms.base import Climb, Ending, Example, Pause, Task
from pipeline.arms.memory import Fit
from pipeline.generate.proof import Canaries
from pipeline.ledger import Allowance
from pipeline.records import Dose, Rung
from pipeline.schema import BudgetConfig
from pipeline.sharded.member import Member, this
from pipeline.sharded.messages import Used

Way = Callable[[Climb, Fit], Ending]  # trains with so much in memory at once; of a module, known by its name


@dataclass(frozen=True)
class Ticket:
    """What a process is told of a climb: `pipeline.arms.base.Climb` without what stays in the command."""

    task: Task
    base_sha256: str
    device: str
    examples: Sequence[Example]
    devices: int  # that the attempt is counted on
    budget: BudgetConfig
    folder: Path
    run_root: Path
    canaries: Canaries
    done: Sequence[Rung]
    parked: Rung | None
    pauses: bool


@dataclass
class _Ledger:
    config: BudgetConfig


class _Attempt(Used):
    """The command's open attempt, as far as a ladder needs it: what it adds is told to the command."""

    def __init__(self, member: Member, ticket: Ticket) -> None:
        super().__init__()
        self.ledger = _Ledger(ticket.budget)
        self.devices = ticket.devices
        self._member = member
        member.used = self

    def beat(self, *, force: bool = False) -> None:
        self._member.tell(force=force)


class _Allowance:
    """The command's allowance: it knows what was spent."""

    def __init__(self, member: Member, ticket: Ticket) -> None:
        self.attempt = _Attempt(member, ticket)
        self._member = member

    def fits(self, device_seconds: float, flops: float) -> bool:
        return bool(self._member.ask("fits", device_seconds, flops))


def climb_here(model: Any, way: Way, ticket: Ticket, fit: Fit) -> Ending:
    """Climb by an arm's way with this process's share of the model."""
    member = this()
    assert member is not None

    def emit(rung: Rung, answers: Mapping[str, Any]) -> None:
        member.ask("emit", rung, answers)

    def on_step(dose: Dose, values: Mapping[str, float]) -> None:
        member.ask("step", dose, dict(values))

    pause = Pause(lambda: bool(member.ask("asked")), lambda rung: member.ask("park", rung), ticket.parked)
    work = Climb(
        task=ticket.task,
        subject=member.start.subject,
        base_sha256=ticket.base_sha256,
        model=model,
        device=ticket.device,
        examples=ticket.examples,
        allowance=cast(Allowance, _Allowance(member, ticket)),
        folder=ticket.folder,
        run_root=ticket.run_root,
        canaries=ticket.canaries,
        done=ticket.done,
        emit=emit,
        on_step=on_step,
        pause=pause if ticket.pauses else None,
        leads=member.leads,
    )
    return way(work, fit)
