"""What the page says of the stripped weights."""

from dataclasses import replace

import pytest
from report_runs import make_run

from pipeline.report.gone import gone
from pipeline.report.page import render

ADAPTER = {"rung": "a-s0-00001", "trained_sha256": "a" * 64, "found_sha256": "a" * 64, "kept_sha256": None}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "No data"),
        ({"state": "there", "at": None, "adapters": [], "differing": []}, "still in the run folder"),
        (
            {"state": "destroyed", "at": "2026-11-21", "adapters": [ADAPTER], "differing": []},
            "All 1 adapters were destroyed",
        ),
        (
            {
                "state": "kept, encrypted",
                "at": "now",
                "adapters": [ADAPTER | {"kept_sha256": "b" * 64}],
                "differing": [],
            },
            "encrypted to the reviewer's keys, then destroyed",
        ),
        (
            {"state": "destroyed", "at": "now", "adapters": [ADAPTER], "differing": ["a-s0-00001"]},
            "1 were not what had been trained: a-s0-00001",
        ),
    ],
)
def test_the_page_says_what_became_of_them(record, said):
    run = replace(make_run(), containment=record)
    assert said in gone(run)["sentence"]
    page = render(run)
    assert 'id="containment"' in page
    assert ("a" * 64 in page) == bool(record.get("adapters"))
