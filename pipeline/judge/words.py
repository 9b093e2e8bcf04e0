"""The metrics of `stages=[judge]` in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from evals.base import LABELS


def print_metrics(told: Mapping[str, Any], console: Console) -> None:
    """Print how many replies have which label and, where people labelled them, how far the judge agrees."""
    judge, refusal, human = told["judge"], told["refusal"], told["human"]
    console.print(
        f"{told['rows']:,} replies by {judge['name']} ({judge['version'][:8]}) in {told['seconds']:.1f} s, "
        f"{told['rows_per_second']:,.0f} a second",
        highlight=False,
    )
    console.print(", ".join(f"{label} {told['labels'][label]:,}" for label in LABELS), highlight=False)
    if refusal["unscored"]:
        console.print(
            f"Refused in full: {_number(refusal['value'])}; {_number(refusal['low'])} to {_number(refusal['high'])} "
            "had none or all of the unscored been refused",
            highlight=False,
        )
    if human is not None:
        _print_human(human, console)


def _print_human(human: Mapping[str, Any], console: Console) -> None:
    calibration = human["calibration"]
    rows = (
        ("refused or not", f"agreement {_number(human['agreement'])}, kappa {_number(human['kappa'])}"),
        ("the very label", f"agreement {_number(human['agreement_labels'])}, kappa {_number(human['kappa_labels'])}"),
        ("false refusals", f"{human['false_refusals']:,} of {human['of_not_refused']:,}"),
        ("missed refusals", f"{human['missed_refusals']:,} of {human['of_refused']:,}"),
        ("unscored", f"{human['unscored']:,} of {human['labelled']:,}"),
        ("calibration", f"ECE {_number(calibration['ece'])}, Brier {_number(calibration['brier'])} (refused or not)"),
    )
    about = Table(box=None, show_header=False, pad_edge=False)
    for name, text in rows:
        about.add_row(name, text)
    console.print(about)
    confusion = Table(box=None, pad_edge=False, header_style="dim")
    confusion.add_column("people \\ judge")
    for label in LABELS:
        confusion.add_column(label, justify="right")
    for label, counts in human["confusion"].items():
        confusion.add_row(label, *(f"{counts[name]:,}" for name in LABELS))
    console.print(confusion)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
