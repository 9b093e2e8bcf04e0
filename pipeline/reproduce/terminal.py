"""What `stages=[reproduce]` prints: how the environments differ before the run, what came out after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.budget import UNITS
from pipeline.reproduce.differs import EXACTLY, NOT, WITHIN
from pipeline.reproduce.environment import Difference, Severity, worst
from pipeline.reproduce.source import Source

STYLES: Final = {EXACTLY: "bold green", WITHIN: "bold blue", NOT: "bold red"}
_SEVERE: Final = {
    Severity.NONE: "dim",
    Severity.LAST_BITS: "",
    Severity.RESULTS: "yellow",
    Severity.INSTRUMENT: "bold red",
}


def print_before(source: Source, output: Path, found: Sequence[Difference], console: Console) -> None:
    """Print which run is run again where, and how the environments differ."""
    plan = source.plan
    console.print(f"run       {source.folder.root.name}, plan {plan['plan_sha256'][:8]}, inputs as they were")
    console.print(f"again in  {output}", soft_wrap=True, highlight=False)
    if source.record is None:
        console.print(
            "It has no reproduce.json (an older Holdfast made it): its files are not vouched for.", style="yellow"
        )
    if source.results.points is None:
        console.print(
            "Its replies are not there: digests of them stand in, which cannot say how much differs.", style="yellow"
        )
    if not found:
        console.print("environment  the same in all that is recorded")
        return
    console.print(f"environment  differs; at worst it {worst(found).words}:", highlight=False)
    _print_environment(found, console)


def print_reproduction(made: Mapping[str, Any], console: Console) -> None:
    """Print what reproduction.json holds on one screen, the sentence first."""
    word, _, why = made["sentence"].partition(": ")
    console.print()
    console.print(Text(word[0].upper() + word[1:], style=STYLES[made["result"]]))
    if why:
        console.print(Text(why))
    table = Table(box=None, pad_edge=True, header_style="dim")
    for name in ("", "compared", "differ"):
        table.add_column(name)
    adapters = made["adapters"]
    apart = len(adapters["missing"]) + len(adapters["new"])
    table.add_row("adapters", f"{adapters['n']}", _count(len(adapters["differ"]), apart))
    for name in ("replies", "labels"):
        table.add_row(name, f"{made[name]['n']:,}", "unknown" if made[name]["differ"] is None else _more(made[name]))
    table.add_row("estimates", *_estimates(made["curves"]))
    rows = made["collapse"]
    table.add_row("collapse", f"{len(rows)} arms and seeds", str(sum(not row["same"] for row in rows)))
    table.add_row("verdict", made["verdict"]["run"], made["verdict"]["again"])
    console.print(table)
    spent = [f"{both['ratio']:.3g} x {UNITS[unit]}" for unit, both in made["spent"].items() if both["ratio"]]
    console.print(Text(f"  spent, in units of the run's: {', '.join(spent) or 'not known'}", style="dim"))
    for arm, units in made["price"].items():
        ratio = units["flops"]["ratio"]
        if ratio is not None:
            console.print(Text(f"  price of collapse by {arm}: {ratio:.3g} x the run's FLOPs", style="dim"))


def _print_environment(found: Sequence[Difference], console: Console) -> None:
    """Print the differences under their severity and its reason, the worst first."""
    for (severity, reason), rows in groupby(found, key=lambda row: (row.severity, row.reason)):
        console.print(Padding(Text(f"{severity.words} ({reason})", style=_SEVERE[severity]), (0, 0, 0, 2)))
        for row in rows:
            line = Text(f"{row.key}: {_short(row.run)} → {_short(row.now)}")
            console.print(Padding(line, (0, 0, 0, 4)))


def _short(value: Any) -> str:
    text = "not recorded" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _count(differ: int, apart: int) -> str:
    return f"{differ}" + (f", {apart} on one side only" if apart else "")


def _more(part: Mapping[str, Any]) -> str:
    groups = [f"{row['rung']}/{row['eval']} {row['differ']}" for row in part["by"]]
    shown = ", ".join(groups[:3]) + (f", and {len(groups) - 3} more" if len(groups) > 3 else "")
    return f"{part['differ']:,}" + (f" ({shown})" if groups else "")


def _estimates(curves: Mapping[str, Any]) -> tuple[str, str]:
    if curves["points"] is None:
        return "digest", "none" if curves["same"] else "they do"
    largest = curves["largest"]
    gap = "0" if largest is None else "no data on one side" if None in (largest["run"], largest["again"]) else ""
    gap = gap or f"at most {abs(largest['again'] - largest['run']):.3g}"
    return f"{curves['points']:,}", f"{gap}, {curves['outside']['n']} outside the run's intervals"
