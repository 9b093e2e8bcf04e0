"""Many arms, long names and every reader's eyes: colours, marks, legends, labels, and the table of prices. Pure."""

from __future__ import annotations

import math
import re
from itertools import combinations

import pytest
from many_arms import many, named
from report_runs import make_run
from report_statistics import with_statistics

from pipeline.report import figures, render
from pipeline.report.canvas import DASHES as STROKES
from pipeline.report.figures import DoseAxis
from pipeline.report.ink import DASHES, ON_DARK, PALETTE, SPREAD, SYMBOLS
from pipeline.report.legend import legend, mark
from pipeline.report.path_labels import LETTER, LETTER_TIGHT, OFF, place_labels

LIGHT_PAGE, DARK_PAGE = "#fdfcfa", "#15171a"  # --paper of style.css
# Dichromats' colours from linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1).
EYES = {
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "any": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}
LEAST_APART = 15.0  # CIE 1976, between any two of the seven; Okabe and Ito's blue and a mid violet: 3.5


def linear(colour: str) -> tuple[float, ...]:
    parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)


def times(rows: tuple[tuple[float, ...], ...], values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, values, strict=True)) for row in rows)


def contrast(one: str, other: str) -> float:
    low, high = sorted(times(((0.2126, 0.7152, 0.0722),), linear(colour))[0] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, eyes: str) -> tuple[float, float, float]:
    seen = tuple(min(1.0, max(0.0, c)) for c in times(EYES[eyes], linear(colour)))
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    parts = (c / white for c, white in zip(times(to_xyz, seen), (0.95047, 1.0, 1.08883), strict=True))
    x, y, z = (math.cbrt(c) if c > 0.008856 else 7.787 * c + 16 / 116 for c in parts)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize(("page", "colours"), [(LIGHT_PAGE, PALETTE), (DARK_PAGE, tuple(ON_DARK.values()))])
def test_every_arms_colour_has_contrast_with_the_page_and_is_told_apart(page: str, colours: tuple[str, ...]) -> None:
    assert min(contrast(colour, page) for colour in colours) >= 3  # WCAG 2.2, 1.4.11
    for eyes in EYES:
        apart = {(a, b): math.dist(lab(a, eyes), lab(b, eyes)) for a, b in combinations(colours, 2)}
        assert min(apart.values()) >= LEAST_APART, (eyes, sorted(apart, key=apart.__getitem__)[0])


def test_the_first_arms_that_look_alike_are_far_apart() -> None:
    assert math.lcm(len(PALETTE), len(SYMBOLS), len(DASHES)) >= 100
    assert len(STROKES) == len(DASHES)
    assert len({mark(symbol) for symbol in SYMBOLS}) == len(SYMBOLS)
    first, eighth = (legend(figures(many(8))["refusal"])[n] for n in (0, 7))
    assert (first.mark, first.dash) != (eighth.mark, eighth.dash)


@pytest.mark.parametrize("arms", [1, 3, 12])
def test_arms_stand_beside_each_other_and_still_at_their_rung(arms: int) -> None:
    axis = DoseAxis(many(arms))
    places = [math.log2(axis.place(8, n) / 8) for n in range(arms)]
    assert max(places) - min(places) <= SPREAD + 1e-9
    assert len(set(places)) == arms


def test_every_arm_stands_in_each_figures_legend_on_the_page() -> None:
    run = many(12)
    page = render(run)
    found = re.findall(r'<p class="legend">(?:(?!</p>).)*</p>\s*<div class="plot"', page, flags=re.S)
    assert len(found) == 5
    for text in found:
        words = text.replace("<wbr>", "")
        assert all(arm in words for arm in run.arms())
    assert ["collapse" in text for text in found] == [True] * 4 + [False]


def test_names_in_a_legend_are_plain_text() -> None:
    (key,) = (k for k in legend(figures(named(["<a>&b"]))["refusal"]) if k.name != "collapse")
    assert key.name == "<a>&b"
    assert "&lt;a&gt;&amp;b" in render(named(["<a>&b"]))


@pytest.mark.parametrize("letter", [LETTER, LETTER_TIGHT])
def test_labels_of_paths_do_not_overlap_and_name_their_arm(letter: float) -> None:
    run = many(12)
    paths = {}
    for arm in run.arms():
        pairs = zip(run.curve(arm, "refusal"), run.curve(arm, "capability"), strict=True)
        paths[arm] = [(r["step"], (r["value"], c["value"])) for r, c in pairs]
    labels = place_labels(paths, 0.3, letter)
    ends: dict[int, list[tuple[float, float]]] = {}
    for label in labels:
        x = label.place[0]
        ends.setdefault(label.row, []).append(tuple(sorted((x, x + label.side * (OFF + letter * len(label.text))))))
    for row in ends.values():
        assert all(a[1] < b[0] or b[1] < a[0] for a, b in combinations(row, 2))
    assert next(label.text for label in labels if label.arm == "arm 2").startswith("arm 2: 0 to")
    firsts = {label.arm: label.text for label in reversed(labels)}
    assert all(text.startswith(f"{arm}: ") for arm, text in firsts.items())


def test_the_path_figure_grows_with_its_labels_and_keeps_its_plot() -> None:
    few, lots = (figures(many(n))["path"].layout for n in (1, 12))
    assert lots.height > few.height
    shares = [(1 - at.yaxis.range[0]) / (at.yaxis.range[1] - at.yaxis.range[0]) for at in (few, lots)]
    fields = [share * (at.height - at.margin.t - at.margin.b) for share, at in zip(shares, (few, lots), strict=True)]
    assert fields[0] == pytest.approx(fields[1], abs=2)
    assert len(lots.meta["tight"]["ay"]) == len(lots.annotations) - 1  # the last is the corner's


@pytest.mark.parametrize("arms", [1, 8])
def test_the_table_of_prices_is_as_wide_for_many_arms_as_for_one(arms: int) -> None:
    table = re.search(r'<table class="prices">.*?</table>', render(many(arms, shape="compliance")), flags=re.S)
    assert table is not None
    rows = re.findall(r"<tr.*?</tr>", table[0], flags=re.S)
    assert len(rows) == 1 + 4 * arms
    assert max(row.count("</td>") + row.count("</th>") for row in rows) == 7
    assert "\u00a0×\u00a0" in table[0]  # a power of ten is never broken


def test_each_region_that_scrolls_has_a_name_of_its_own() -> None:
    page = render(with_statistics(make_run()))
    labels = re.findall(r'role="region" aria-label="([^"]*)"', page)
    assert len(labels) == page.count('<div class="scroll"') > 10
    assert len(set(labels)) == len(labels)
