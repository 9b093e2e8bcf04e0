"""The progress bar of long work, with the budget that is left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.budget import UNITS, caps
from pipeline.ledger import Ledger
from pipeline.schema import BudgetConfig


def bar_for(console: Console) -> Progress:
    """Return a progress bar; its tasks need the fields `what` and `left`."""
    return Progress(
        TextColumn("{task.description:<9}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}  {task.fields[left]}", style="dim", markup=False),
        console=console,
    )


def left(config: BudgetConfig, ledger: Ledger) -> str:
    """Return the budget that is left in words, each cap in its unit."""
    cap, spent = caps(config), ledger.spent()
    parts = [
        f"{max(0.0, getattr(cap, name) - getattr(spent, name)):,.4g} {unit}"
        for name, unit in UNITS.items()
        if getattr(cap, name) != float("inf")
    ]
    return " / ".join(parts) + " left" if parts else "no cap"
