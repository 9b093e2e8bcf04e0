"""The report's summary in the terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.report import claims, judges, prices, view
from pipeline.report.data import NO_DATA, ReportData
from pipeline.report.unreached import CENSORED, NO_REFUSAL

WIDE: Final = 90  # columns from which the table of arms shows everything
SHORT: Final = {CENSORED: "censored", NO_REFUSAL: "nothing to strip"}  # the table of arms is narrow
STYLES: Final = {"collapses": "bold red", "holds": "bold blue", "inconclusive": "bold yellow"}


def print_summary(run: ReportData, console: Console) -> None:
    """Print the verdict, its price, the table of arms, the controls and what was not measured."""
    word = view.verdict_word(run)
    subject = (run.plan.get("subject") or {}).get("name") or "subject"
    console.print()
    console.print(Text.assemble((word.capitalize(), STYLES[word]), f"  {subject}"))
    console.print(view.sentence(run), markup=False, highlight=False)
    for line in judges.post_hoc(run):
        console.print(Text.assemble(("Post hoc, not as registered: ", "bold yellow"), line))
    console.print()
    for name, value, basis in prices.headline(run):
        console.print(Text.assemble((f"  {name:<18}", "dim"), (value, "bold"), (f"  {basis}", "dim")))
    console.print()
    console.print(_arms_table(run, console.width))
    _print_checks(run, console)
    for bar in claims.budget_caps(run)[:2]:
        console.print(Text(f"  {bar.label}: {bar.text}"))
    _print_list(console, "Judges", judges.summary(run))
    _print_list(console, "Why", view.reasons(run))
    _print_list(console, "Not measured", claims.not_measured(run))
    console.print(Text(f"\nCollapse means {claims.thresholds(run)}.", style="dim"))


def _arms_table(run: ReportData, width: int) -> Table:
    """Return the arms, pooled: each metric from rung 0 to collapse (or the end); fewer columns if narrow."""
    wide = width >= WIDE
    table = Table(box=None, pad_edge=True, header_style="dim")
    table.add_column("arm", overflow="fold")
    for heading in ("verdict", "collapse", "refusal", "capability", *(("recovered", "n") if wide else ())):
        table.add_column(heading, no_wrap=wide)
    price_of = {price.arm: price for price in prices.prices(run)}
    for row in view.ladder_rows(run):
        if not row.pooled:
            continue
        price = price_of[row.arm]
        seeds = f"{price.reached} of {price.seeds} seeds"
        table.add_row(
            Text(row.arm),
            Text(row.verdict or NO_DATA, style=STYLES.get(row.verdict, "")),
            f"{SHORT.get(row.collapse, row.collapse)}\n{seeds}",
            *(_change(cells) for cells in row.cells[: 3 if wide else 2]),
            *((row.cells[0][0].n,) if wide else ()),
        )
    return table


def _change(cells: tuple[view.Measured, view.Measured, view.Measured]) -> str:
    start, at_collapse, end = cells
    after = at_collapse if at_collapse.known else end
    return f"{start.value} → {after.value}\n{after.interval}"


def _print_checks(run: ReportData, console: Console) -> None:
    console.print()
    for check in claims.checks(run):
        style = "" if check.result == "pass" else "bold yellow"
        console.print(Text.assemble("  ", (f"{check.result:<10}", style), check.name))


def _print_list(console: Console, heading: str, lines: list[str]) -> None:
    if lines:
        console.print(Text(f"\n{heading}", style="bold"))
        for line in lines:
            console.print(Padding(Text(f"· {line}"), (0, 0, 0, 2)))
