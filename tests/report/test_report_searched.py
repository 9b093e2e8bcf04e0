"""What the page says of a search for the best attack."""

from report_runs import make_run

from pipeline.report.page import render
from pipeline.report.searched import rows

FOUND = {
    "chosen": {"lora.rank": 2, "training.learning_rate": 0.01645},
    "counts": {"trials": 6, "pruned": 2, "failed": 1, "collapsed": 4},
    "wanted": 6,
    "cost": {"flops": 5.7e10, "device_seconds": 8.8, "usd": None},
    "collapse_alone": None,
    "with_collapse": None,
    "reason": "",
}


def test_a_searched_arm_has_its_options_its_trials_and_both_costs():
    run = make_run()
    run.verdict["search"] = {"mixed": FOUND}
    (row,) = rows(run)
    assert (row.arm, row.chosen) == ("mixed", "rank 2, learning_rate 0.0164")
    assert row.trials == "6 of 6, 2 of them stopped early; 1 more failed; 4 collapsed on dev prompts"
    assert "5.7 × 10¹⁰ FLOPs" in row.cost
    assert row.with_search == "no certain collapse"
    assert 'id="searched"' in render(run)


def test_an_arm_whose_search_failed_says_why_it_trained_as_configured():
    run = make_run()
    run.verdict["search"] = {"mixed": FOUND | {"chosen": {}, "reason": "every trial failed"}}
    assert rows(run)[0].chosen == "as configured: every trial failed"


def test_without_a_search_the_page_has_no_such_part():
    assert 'id="searched"' not in render(make_run())
