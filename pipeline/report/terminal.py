"""The report's summary in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.report import claims, judges, prices, view
from pipeline.report.data import NO_DATA, ReportData, change
from pipeline.report.unreached import CENSORED, NO_ABILITY, NO_REFUSAL, why_not

WIDE: Final = 90  # columns from which the table of arms shows everything
# The table of arms is narrow.
SHORT: Final = {CENSORED: "censored", NO_REFUSAL: "nothing to strip", NO_ABILITY: "not known"}
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
    facts = prices.headline(run)
    longest = max((len(name) for name, _, _ in facts), default=0)
    for name, value, basis in facts:
        console.print(Text.assemble((f"  {name:<{longest}}  ", "dim"), (value, "bold"), (f"  {basis}", "dim")))
    console.print()
    console.print(_arms_table(run, console.width))
    _print_checks(run, console)
    for bar in claims.budget_caps(run)[:2]:
        console.print(Text(f"  {bar.label}: {bar.text}"))
    _print_list(console, "Judges", judges.summary(run))
    _print_list(console, "Why", [line for group in view.reasons(run) for line in group.shortened()])
    _print_list(console, "Not measured", claims.not_measured(run))
    console.print(Text(f"\nCollapse means {claims.thresholds(run)}.", style="dim"))


def _arms_table(run: ReportData, width: int) -> Table:
    """Return the arms, pooled: each metric from rung 0 to collapse (or the end); fewer columns if narrow."""
    wide = width >= WIDE
    table = Table(box=None, pad_edge=True, header_style="dim")
    table.add_column("arm", overflow="fold")
    table.add_column("verdict", no_wrap=wide)
    table.add_column("collapse", no_wrap=wide)
    for heading in ("refusal", "capability", *(("recovered",) if wide else ())):
        table.add_column(f"{heading}\n{run.level} interval".strip() if run.level else heading, no_wrap=wide)
    if wide:
        table.add_column("n of\nrefusal", no_wrap=True)
    price_of = {price.arm: price for price in prices.prices(run)}
    for row in view.ladder_rows(run):
        if not row.pooled:
            continue
        price = price_of[row.arm]
        missing = why_not(run, row.arm)
        table.add_row(
            Text(row.arm),
            Text(row.verdict or NO_DATA, style=STYLES.get(row.verdict, "")),
            f"{row.collapse if price.rows else SHORT.get(missing, missing)}\n{price.of_seeds}",
            *(_change(cells, run.against) for cells in row.cells[: 3 if wide else 2]),
            *((_after(row.cells[0]).n,) if wide else ()),
        )
    return table


def _after(cells: tuple[view.Measured, view.Measured, view.Measured]) -> view.Measured:
    """Return what the table shows beside rung 0: at collapse, else at the end."""
    return cells[1] if cells[1].known else cells[2]


def _change(cells: tuple[view.Measured, view.Measured, view.Measured], against: Sequence[float]) -> str:
    after = _after(cells)
    return f"{change(cells[0].share, after.share, against)}\n{after.interval}"


def _print_checks(run: ReportData, console: Console) -> None:
    console.print()
    for check in claims.checks(run):
        style = "" if check.result == "pass" else "bold yellow"
        console.print(Text.assemble("  ", (f"{check.result:<12}", style), check.name))


def _print_list(console: Console, heading: str, lines: list[str]) -> None:
    if lines:
        console.print(Text(f"\n{heading}", style="bold"))
        for line in lines:
            console.print(Padding(Text(f"· {line}"), (0, 0, 0, 2)))
