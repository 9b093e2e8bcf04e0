"""The comparison's summary in the terminal: the sentence, the prices, the differences that matter most, the notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.compare import view
from pipeline.report.terminal import STYLES


def print_comparison(made: Mapping[str, Any], console: Console) -> None:
    """Print what comparison.json holds on one screen."""
    big, word = view.headline(made)
    console.print()
    console.print(Text(big, style=STYLES[word]))
    console.print(made["sentence"], markup=False, highlight=False)
    console.print()
    for letter, run in made["runs"].items():
        console.print(Text.assemble((f"  {letter}  ", "bold"), f"{run['subject']['name']}: {run['verdict']}"))
    console.print()
    console.print(_costs("price of collapse", made["cost"]["cheapest"]))
    console.print(Text(f"  collapsed by any arm: {view.collapsed(made)}", style="dim"))
    if made["cost"]["with_search"]:
        console.print(_costs("with the search", made["cost"]["with_search"]["cheapest"]))
    console.print()
    console.print(_differences(made, console.width))
    console.print(Text("  B − A on the same prompts; the steps in between are in the page", style="dim"))
    for note in made["notes"]:
        console.print(Padding(Text(f"· {note}"), (0, 0, 0, 2)))


def _costs(title: str, costs: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=True, header_style="dim")
    for name in (title, "A", "B", "B / A", "limits", "rungs alone"):
        table.add_column(name)
    for row in view.cost_rows(costs):
        table.add_row(row.unit, row.a, row.b, Text(row.ratio, style="bold"), row.limits, row.rungs)
    return table


def _differences(made: Mapping[str, Any], width: int) -> Table:
    """Return the table of differences; as many metrics as fit."""
    names = view.columns(made)[: max(1, (width - 40) // 16)]
    table = Table(box=None, pad_edge=True, header_style="dim")
    for name in ("arm", "step", "", *(view.heading(name) for name in names)):
        table.add_column(name)
    for arm, step, mark, cells in view.key_rows(made, names):
        shown = [
            Text("\n".join((cell.difference, cell.interval, cell.seeds)).rstrip(), style="bold" if cell.apart else "")
            for cell in cells
        ]
        table.add_row(Text(arm), step, Text(mark), *shown)
    return table
