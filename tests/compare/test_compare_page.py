"""The comparison's page and summary: what stands in them, that text is escaped, and how they look in a browser."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from browsing import needs_browser, show
from pairs import PASSED, REFUSED, demo_pair, falls_at, finished
from rich.console import Console
from test_report_browser import LOCAL, browser, drawn_traces, requested  # noqa: F401

from pipeline.compare import view
from pipeline.compare.figures import COLOURS, comparison_figures, ratio_figure
from pipeline.compare.page import render, write_page
from pipeline.compare.runs import FinishedRun
from pipeline.compare.stage import comparison
from pipeline.compare.terminal import print_comparison

HELD = {"compliance": {0: [REFUSED] * 7, 1: [REFUSED] * 7}}
FELL = {"compliance": {0: falls_at(8), 1: falls_at(8)}}


@cache
def _demo() -> dict[str, Any]:
    return comparison(*demo_pair())


@pytest.fixture
def made() -> dict[str, Any]:
    """The demo's comparison, free to be changed by a test."""
    return copy.deepcopy(_demo())


def compared(shapes_a: Mapping[str, Any], shapes_b: Mapping[str, Any], **of_b: Any) -> dict[str, Any]:
    return comparison(finished("A", "x", shapes_a), finished("B", "y", shapes_b, **of_b))


def test_the_sentence_stands_before_all_else_and_the_page_is_small(made: dict[str, Any]) -> None:
    a, b = demo_pair()
    page = render(a.report, b.report, made)
    assert len(page.encode()) < 6_000_000
    body = page[page.index("<body>") :]
    places = [body.index(text) for text in (made["sentence"], "What it costs to strip", "Side by side", "B less A")]
    assert places == sorted(places)
    assert "no finding of safety" in page  # mixed held in one seed of B
    assert page.count('data-figure="') == 5


def test_limits_name_censoring_only_where_there_is_some() -> None:
    a, b = finished("A", "x", FELL), finished("B", "y", FELL)
    assert "no finding of safety" not in render(a.report, b.report, comparison(a, b))


@pytest.mark.parametrize(
    ("shapes_a", "shapes_b", "big", "word"),
    [
        (FELL, HELD, "At least 4.0 times", "holds"),
        (HELD, FELL, "At most 0.25 times", "collapses"),
        (HELD, HELD, "No ratio", "inconclusive"),
        (FELL, FELL, "1.0 times", "inconclusive"),
    ],
)
def test_the_large_words_for_each_case(shapes_a: Any, shapes_b: Any, big: str, word: str) -> None:
    assert view.headline(compared(shapes_a, shapes_b)) == (big, word)


def test_nothing_large_is_said_of_runs_whose_controls_failed() -> None:
    found = compared(FELL, HELD, controls={**PASSED, "adapter_parity": "fail"})
    assert view.headline(found) == ("No ratio", "inconclusive")
    assert found["sentence"].startswith("No ratio: the controls of B (y) did not pass")


def test_prices_are_given_as_what_is_known_of_them(made: dict[str, Any]) -> None:
    rows = {row.unit: row for row in view.cost_rows(made["cost"]["cheapest"])}
    assert (rows["steps"].a, rows["steps"].b) == ("5 to 8", "9 to 32")
    mixed = {row.unit: row for row in view.cost_rows(made["cost"]["arms"]["mixed"])}
    assert mixed["steps"].b == "17 to 32; above 32 in 1 of 3 seeds"
    assert mixed["steps"].ratio == "–"
    assert mixed["steps"].limits.startswith("at least ")
    benign = view.cost_rows(made["cost"]["arms"]["benign"])
    assert (benign[0].a, benign[0].limits) == ("above 32", "")
    assert view.collapsed(made, "mixed") == "A: 3 of 3 seeds; B: 2 of 3 seeds"


def test_seconds_and_money_between_machines_are_no_rows() -> None:
    a, b = demo_pair()
    elsewhere = {**b.plan, "environment": {**b.plan["environment"], "device": "cuda"}}
    found = comparison(a, replace(b, plan=elsewhere))
    assert [row.unit for row in view.cost_rows(found["cost"]["cheapest"])] == ["steps", "examples", "tokens", "FLOPs"]


def test_the_key_rows_are_rung_0_each_collapse_and_each_end(made: dict[str, Any]) -> None:
    names = view.columns(made)
    assert [view.heading(name) for name in names] == [
        "refusal",
        "recovered",
        "capability",
        "capability kept",
        "over refusal",
    ]
    rows = [(arm, step, mark) for arm, step, mark, _ in view.key_rows(made, names)]
    assert rows[0] == ("rung 0", "0", "")
    assert ("compliance", "8", "A collapses") in rows
    assert ("compliance", "32", "B collapses") in rows
    assert rows[-1] == ("benign", "32", "")
    assert len(view.difference_rows(made, names)) == 1 + 3 * 6
    cell = next(cells[0] for arm, step, _, cells in view.key_rows(made, names) if (arm, step) == ("compliance", "8"))
    assert cell.apart
    assert cell.difference.startswith("+0.")


def test_a_difference_over_one_seed_says_so_and_is_never_bold(made: dict[str, Any]) -> None:
    def cell_of(seeds: list[int]) -> view.Cell:
        for row in made["differences"]:
            row["seeds"] = seeds if row["arm"] else []
        names = view.columns(made)
        return next(c[0] for arm, step, _, c in view.difference_rows(made, names) if (arm, step) == ("compliance", "8"))

    assert (cell_of([0, 1, 2]).seeds, cell_of([0, 1, 2]).apart) == ("3 seeds", True)
    assert (cell_of([0]).seeds, cell_of([0]).apart) == ("1 seed", False)
    assert view.difference_rows(made, view.columns(made))[0][3][0].seeds == ""  # rung 0 has none


@pytest.mark.parametrize(("value", "text"), [(0.12, "+0.12"), (-0.4, "−0.40"), (0.0, "0.00"), (None, "no data")])
def test_signed(value: object, text: str) -> None:
    assert view.signed(value) == text


def test_a_and_b_have_one_colour_each_and_an_arm_one_dash(made: dict[str, Any]) -> None:
    drawn = comparison_figures(*(run.report for run in demo_pair()), made)
    assert set(drawn) == {"ratio", "refusal", "recovered", "capability", "over_refusal"}
    lines = {trace.name: trace for trace in drawn["refusal"].data if trace.name}
    assert set(lines) == {f"{letter}: {arm}" for letter in "AB" for arm in ("compliance", "mixed", "benign")}
    for name, trace in lines.items():
        assert trace.line.color == COLOURS[name[0]]
        assert trace.line.dash == lines[f"A{name[1:]}"].line.dash
        assert trace.marker.symbol.endswith("-open") == (name[0] == "B")
    assert list(lines["A: compliance"].x) != list(lines["B: compliance"].x)


def test_an_open_end_of_the_ratio_has_an_arrow_and_no_ratio_is_said() -> None:
    figure = ratio_figure(compared(FELL, HELD))
    assert any("triangle-right" in (trace.marker.symbol or ()) for trace in figure.data)
    empty = ratio_figure(compared(HELD, HELD))
    assert [note.text for note in empty.layout.annotations][-1] == "no data"


def nasty_pair() -> tuple[FinishedRun, FinishedRun]:
    nasty = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    return finished("A", nasty, FELL), finished("B", "y", FELL)


def test_names_are_escaped() -> None:
    a, b = nasty_pair()
    page = render(a.report, b.report, comparison(a, b))
    assert "<img src=x" not in page
    assert page.count("<script>document.title") == 0


def test_the_terminal_says_it_in_80_columns_too(made: dict[str, Any]) -> None:
    for width in (80, 140):
        out = io.StringIO()
        print_comparison(made, Console(file=out, width=width))
        said = out.getvalue()
        assert max(map(len, said.splitlines())) <= width
        assert " ".join(made["sentence"].split()) in " ".join(said.split())
        assert "A collapses" in said


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Callable[..., Any]:  # noqa: F811
    def open_page(a: FinishedRun, b: FinishedRun, *, width: int = 1400, scheme: str = "light") -> Any:
        path = tmp_path / "comparison.html"
        write_page(a.report, b.report, comparison(a, b), path)
        return show(browser, path, width=width, scheme=scheme)

    return open_page


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_page_opens_without_errors_or_requests_draws_all_and_spills_nothing(
    opened: Callable[..., Any], width: int, scheme: str
) -> None:
    driver = opened(*demo_pair(), width=width, scheme=scheme)
    time.sleep(0.3)  # the figures are drawn again 80 ms after their width is known
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert len(drawn_traces(driver)) == 5
    assert min(drawn_traces(driver)) > 0
    assert driver.find_element("css selector", "#verdict .word").text == "3.0 times"
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.get_log("browser") == []
    urls = requested(driver)
    assert any(url.startswith("file:") for url in urls)
    assert [url for url in urls if not url.startswith(LOCAL)] == []


@needs_browser
def test_script_in_a_name_does_not_run(opened: Callable[..., Any]) -> None:
    driver = opened(*nasty_pair())
    assert driver.title.startswith("1.0 times")
    assert driver.get_log("browser") == []


@needs_browser
def test_a_pair_without_any_ratio_opens_too(opened: Callable[..., Any]) -> None:
    driver = opened(finished("A", "x", HELD), finished("B", "y", HELD))
    assert driver.find_element("css selector", "#verdict .word").text == "No ratio"
    assert driver.get_log("browser") == []
