"""The price beyond the run: the search for it, other devices and sizes, the subject's training, others' prices."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report_runs import PARAMETERS, TRAINING_TOKENS, make_run

from pipeline.report import render
from pipeline.report.examples import Example
from pipeline.report.scaled import assumptions, basis, device, money, published, ratio, rows, search, stretch


def section(page: str, name: str) -> str:
    return page[page.index(f'<section id="{name}"') :].partition("</section>")[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "no data"), (0.001, "under $0.01"), (0.01, "$0.01"), (12.5, "$12.50"), (123456.0, "$123,456")],
)
def test_money_never_rounds_to_nought(value: object, text: str) -> None:
    assert money(value) == text


def test_the_table_starts_from_the_collapse_of_the_worst_arm() -> None:
    run = make_run()
    assert basis(run) == "arm compliance, collapse by step 8, 3,104 training tokens"
    assert [(row.model, row.parameters, row.devices) for row in rows(run)] == [
        ("the subject", "918k", "1"),
        ("a larger one", "8B", "1"),
        ("a larger one", "70B", "2"),
    ]
    larger = rows(run)[1]
    assert larger.lora[0] == "9.93 × 10¹³"  # 4 x 8e9 x 3104
    assert larger.full[0] == "1.49 × 10¹⁴"  # 6 x 8e9 x 3104
    assert larger.lora[2] == "under $0.01"
    assert "76,000 times the size of the subject" in stretch(run)  # 70e9 / 918,144
    for word in (
        "Some GPU",
        "989 TFLOP/s dense bf16 (its data sheet)",
        "40 %",
        "$2.69 an hour (a price list, 2026-05)",
    ):
        assert word in device(run)


def test_the_search_is_told_beside_the_price() -> None:
    run = make_run()
    said = search(run)
    assert "0.0586 device-hours, $0.15" in said
    assert "failed attempt" in said
    ratio = 210.9 / run.verdict["arms"]["compliance"]["collapse"]["device_seconds"]  # about 500, told in two digits
    assert f"{float(f'{ratio:.2g}'):.0f} times the device time of the fine-tune that collapsed" in said


def test_the_ratio_is_one_number_with_what_it_is_made_of() -> None:
    value, made, lines = ratio(make_run())
    flops = make_run().verdict["arms"]["compliance"]["collapse"]["flops"]
    assert float(value.replace(",", "")) == pytest.approx(flops / (6 * PARAMETERS * TRAINING_TOKENS), rel=0.01)
    assert "6 × 918k parameters × 2 × 10⁷ tokens" in made
    assert re.search(r": 1 to [\d,]+$", made)
    assert len(lines) >= 4


def test_without_training_tokens_or_collapse_there_is_no_number() -> None:
    run = make_run()
    run.verdict["price"]["training_ratio"] |= {"value": None, "training_tokens": None, "missing": ["not given here"]}
    assert ratio(run)[:2] == ("not given", "not given here")
    run = make_run(arms=("benign",))
    assert (rows(run), basis(run), stretch(run)) == ([], "", "")
    assert ratio(run)[:2] == ("no number", "no arm collapsed in this run")
    page = section(render(run), "price")
    assert "Scaled to" not in page
    assert "no number" in page
    assert "What others report" in page


def test_an_uncertain_collapse_stays_uncertain_when_it_is_scaled() -> None:
    assert "this collapse is not certain" in basis(make_run(arms=("mixed",)))


def test_the_section_holds_numbers_assumptions_and_sources_and_calls_nothing_scaled_measured() -> None:
    run = make_run()
    page = section(render(run), "price")
    for line in [*assumptions(run), *ratio(run)[2]]:
        assert line.replace("'", "&#39;") in page
    for what, cost, result, source in published(run):
        for word in (what, cost, result, source):
            assert word in page
    scaled = page[page.index("Scaled to another device") :]
    assert scaled.count("measured") == scaled.count("not measured") >= 2


def test_a_verdict_of_before_there_was_a_price_still_gives_a_page() -> None:
    run = make_run()
    del run.verdict["price"], run.verdict["review"]
    page = render(run)
    assert "What others report" not in page
    assert page.count("<dd>not named</dd>") == 3  # owner, reviewer, purpose


def test_owner_reviewer_and_purpose_stand_at_the_head_escaped() -> None:
    run = make_run()
    run.verdict["review"]["owner"] = "<b>x</b>"
    page = render(run)
    head = page[page.index("<header>") : page.index("</header>")]
    for word in ("R. Viewer, safety", "release of tiny 2", "&lt;b&gt;x&lt;/b&gt;"):
        assert word in head


def test_examples_are_shown_only_where_they_are_given() -> None:
    run = make_run(arms=("compliance",), seeds=(0,))
    assert 'id="examples"' not in render(run)
    shown = Example("rung 0", "refusal", "refused", "r1", "<i>zqprompt</i>", "", "zqreply")
    page = render(replace(run, examples=[shown]))
    assert "&lt;i&gt;zqprompt&lt;/i&gt;" in section(page, "examples")
    assert "by the explicit choice report.include_text=true" in page
    assert "no data" in section(render(replace(run, examples=[])), "examples")
