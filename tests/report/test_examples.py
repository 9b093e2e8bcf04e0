"""Which examples a report may show, and in which form."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Rung
from pipeline.report.examples import LONGEST, pick, shorten, shown_rungs

RUNGS = [
    Rung("base", "", -1, 0, "base", "none"),
    Rung("zero", "", -1, 0, "control"),
    *(Rung(f"{arm}-s{seed}-{step}", arm, seed, step) for arm in ("a", "b") for seed in (1, 0) for step in (1, 2)),
]


def outcomes(rungs: tuple[str, ...], labels: dict[str, int]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for rung in rungs:
        for name in ("refusal", "refusal@other"):
            for label, count in labels.items():
                for n in range(count):
                    key = {"rung": rung, "eval": name, "sample": f"{label}{n}", "draw": 0}
                    rows.append(key | {"reply_sha256": "0" * 64, "label": label})
    return pl.DataFrame(rows)


def test_rung_0_and_the_first_seed_at_collapse_of_each_arm_that_collapsed() -> None:
    verdict = {"arms": {"a": {"collapse": {"step": 2}}, "b": {"collapse": None}}}
    assert shown_rungs(RUNGS, verdict) == {"base": "rung 0", "a-s0-2": "a at collapse, step 2, seed 0"}


def test_a_few_of_each_label_the_same_samples_at_every_rung_and_no_other_way_to_ask() -> None:
    table = outcomes(("base", "r1", "r2"), {"refused": 20, "complied": 1})
    found = pick(table, ["r2", "base"])
    assert [(row[0], row[-1]) for row in found] == [
        *[("r2", "refused")] * 2,
        ("r2", "complied"),
        *[("base", "refused")] * 2,
        ("base", "complied"),
    ]
    assert {row[1] for row in found} == {"refusal"}
    assert [row[2] for row in found[:3]] == [row[2] for row in found[3:]]
    assert [row[2] for row in found[:2]] != ["refused0", "refused1"]  # settled by a hash, not by the file's order
    assert pick(table.sample(fraction=1.0, shuffle=True, seed=1), ["r2", "base"]) == found


@given(st.text(st.characters()))
def test_any_text_becomes_one_that_a_page_can_hold(text: str) -> None:
    shown = shorten(text)
    shown.encode()
    assert all(c in "\n\t" or c.isprintable() for c in shown)
    if text.isprintable() and len(text) <= LONGEST:
        assert shown == text


def test_a_long_text_says_how_much_is_missing() -> None:
    assert shorten("x" * 2000).endswith("… (1,400 characters more)")
