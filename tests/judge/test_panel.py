"""The panel: agreement of every pair, where judges part, what the unscored could change; and no row counted twice."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.base import LABELS
from pipeline.config.compose import conf_folder, load
from pipeline.errors import UserError
from pipeline.judge.panel import EXAMPLES, JudgeView, as_if, compare, unscored
from pipeline.outcomes import SCHEMA, Scoring, named, read_outcomes, same_replies, write_outcomes

EVALS = ("refusal", "over_refusal")


def outcomes(labels: list[str], *, role: str = "rung", name: str = "refusal", judge: str = "j") -> pl.DataFrame:
    rows = [
        {
            **{"rung": f"{role}-1", "arm": "a", "seed": 0, "step": 1, "role": role, "eval": name, "sample": f"{i:04d}"},
            **{"draw": 0, "reply_sha256": f"{i:064d}", "kind": "", "label": label, "value": None, "probability": None},
            **{"truncated": False, "judge": judge, "judge_version": "1"},
        }
        for i, label in enumerate(labels)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def view(name: str, table: pl.DataFrame, word: str = "holds", **more: Any) -> JudgeView:
    arm = {"verdict": word, "collapse": None, "rung0": {}, "lowest_refusal": None, "reasons": ["long"]}
    verdict = {"verdict": word, "sentence": "…", "worst_arm": "a", "arms": {"a": arm}}
    given_ = {"version": "1" * 12, "part": "panel", "planned": False, "if_unscored": {}, "evals": EVALS, **more}
    return JudgeView(name=name, outcomes=table, verdict=verdict, **given_)


def test_each_pair_is_compared_over_all_and_by_eval() -> None:
    one = pl.concat([outcomes(["refused", "complied"]), outcomes(["refused"] * 2, name="over_refusal")])
    two = pl.concat([outcomes(["refused", "refused"]), outcomes(["refused"] * 2, name="over_refusal")])
    three = pl.concat([outcomes(["refused", "unscored"]), outcomes(["partial"] * 2, name="over_refusal")])
    found = compare([view("a", one), view("b", two), view("c", three)], EVALS)
    rows = {(row["one"], row["other"], row["eval"]): row for row in found["pairs"]}
    assert len(rows) == 3 * 3
    assert (rows["a", "b", None]["n"], rows["a", "b", None]["agreement"]) == (4, 0.75)
    assert (rows["a", "c", "refusal"]["n"], rows["a", "c", "refusal"]["unscored"]) == (1, 1)
    assert rows["b", "c", "over_refusal"]["agreement"] == 1.0
    assert rows["b", "c", "over_refusal"]["agreement_labels"] == 0.0
    assert rows["b", "c", "over_refusal"]["kappa"] is None  # both refused throughout: not defined, and not 0 or 1
    assert {row["eval"]: row["judges"] for row in found["alpha"]} == {None: 3, "refusal": 3, "over_refusal": 3}


def test_alpha_of_a_panel_is_that_by_hand() -> None:
    one = outcomes(["refused", "refused", "complied", "complied", "refused"])
    two = outcomes(["refused", "partial", "complied", "refused", "unscored"])
    (found,) = compare([view("a", one), view("b", two)], ["refusal"])["alpha"]
    # Krippendorff 2004: 1 - observed / expected disagreement over the 8 labels of the 4 replies that both scored.
    # Refused or not: one of 4 replies parted, 5 yes and 3 no: 1 - (2 / 8) / (2 x 5 x 3 / 56).
    # Labels: two of 4 parted; refused 4, complied 3, partial 1: 1 - (4 / 8) / ((64 - 16 - 9 - 1) / 56).
    assert found["n"] == 4
    assert found["alpha"] == pytest.approx(1 - 14 / 30, abs=1e-5)
    assert found["alpha_labels"] == pytest.approx(1 - 28 / 38, abs=1e-5)


def test_one_judge_alone_has_no_pairs_and_still_its_counts() -> None:
    found = compare([view("a", outcomes(["refused", "unscored"]), if_unscored={"refused": "holds"})], ["refusal"])
    (judge,) = found["judges"]
    assert (found["pairs"], found["alpha"], found["disagreements"], found["same_verdict"]) == ([], [], [], True)
    assert judge["labels"]["refusal"]["unscored"] == 1
    assert (judge["refusal"]["refusal"]["low"], judge["refusal"]["refusal"]["high"]) == (0.5, 1.0)
    assert "reasons" not in judge["arms"]["a"]


def test_the_verdict_hangs_on_the_judge_where_only_one_arm_differs() -> None:
    one, two = view("a", outcomes(["refused"])), view("b", outcomes(["refused"]))
    assert compare([one, two], ["refusal"])["same_verdict"] is True
    two.verdict["arms"]["a"]["verdict"] = "collapses"
    assert compare([one, two], ["refusal"])["same_verdict"] is False
    assert [judge["arms"]["a"]["verdict"] for judge in compare([one, two], ["refusal"])["judges"]] == [
        "holds",
        "collapses",
    ]
    other = view("b", outcomes(["refused"]), "inconclusive")
    other.verdict["arms"]["a"]["verdict"] = "holds"  # as where the controls, not an arm, leave it open
    found = compare([one, other], ["refusal"])
    assert (found["same_verdict"], [judge["verdict"] for judge in found["judges"]]) == (
        False,
        ["holds", "inconclusive"],
    )


def test_disagreements_are_counted_by_labels_with_keys_and_are_no_more_than_they_are() -> None:
    n = EXAMPLES + 5
    one = outcomes(["refused"] * n + ["unscored", "partial", "complied"])
    two = outcomes(["complied"] * n + ["refused", "refused", "complied"])
    first, second = compare([view("a", one), view("b", two)], ["refusal"])["disagreements"]
    assert (first["one_label"], first["other_label"], first["count"]) == ("refused", "complied", n)
    assert len(first["examples"]) == EXAMPLES
    assert first["examples"][0] == {"rung": "rung-1", "sample": "0000", "draw": 0, "reply_sha256": f"{0:064d}"}
    assert (second["one_label"], second["other_label"], second["count"]) == ("partial", "refused", 1)
    both = [pl.concat([outcomes(["refused"], name="over_refusal"), table]) for table in (one, two)]
    both[1] = both[1].with_columns(
        label=pl.when(pl.col("eval") == "over_refusal").then(pl.lit("partial")).otherwise("label")
    )
    found = compare([view("a", both[0]), view("b", both[1])], EVALS)["disagreements"]
    assert [(row["eval"], row["count"]) for row in found] == [("over_refusal", 1), ("refusal", n), ("refusal", 1)]


def test_controls_are_left_out() -> None:
    one = pl.concat([outcomes(["refused"]), outcomes(["refused"], role="control"), outcomes(["refused"], role="base")])
    two = pl.concat([outcomes(["refused"]), outcomes(["complied"], role="control"), outcomes(["refused"], role="base")])
    found = compare([view("a", one), view("b", two)], ["refusal"])
    assert [(row["n"], row["agreement"]) for row in found["pairs"]] == [(2, 1.0)]
    assert unscored(pl.concat([outcomes(["unscored"]), outcomes(["unscored"], role="control")])) == 1


def test_a_judge_takes_part_only_where_it_says_something() -> None:
    both = pl.concat([outcomes(["refused"] * 4), outcomes(["complied"] * 6, name="over_refusal")])
    harm = view("harm", both, evals=("refusal",), measures="harm")
    found = compare([view("a", both), view("b", both), harm], EVALS)
    n = {(row["one"], row["other"], row["eval"]): row["n"] for row in found["pairs"]}
    assert (n["a", "b", None], n["a", "harm", None], n["a", "harm", "refusal"]) == (10, 4, 4)
    assert ("a", "harm", "over_refusal") not in n
    assert [set(judge["labels"]) for judge in found["judges"]] == [set(EVALS), set(EVALS), {"refusal"}]
    assert {row["eval"]: row["n"] for row in found["alpha"]} == {None: 10, "refusal": 4, "over_refusal": 6}
    assert found["disagreements"] == []


def test_judges_of_other_replies_are_refused() -> None:
    with pytest.raises(ValueError, match="other replies"):
        compare([view("a", outcomes(["refused"])), view("b", outcomes(["refused"] * 2))], ["refusal"])
    with pytest.raises(ValueError, match="different names"):
        compare([view("a", outcomes(["refused"])), view("a", outcomes(["refused"]))], ["refusal"])


def test_a_judge_may_be_called_like_a_column() -> None:
    one, two = outcomes(["refused", "complied"]), outcomes(["refused", "refused"])
    assert compare([view("rung", one), view("eval", two)], ["refusal"])["pairs"][0]["agreement"] == 0.5


def test_imputing_changes_the_unscored_of_the_named_evals_alone() -> None:
    table = pl.concat([outcomes(["unscored", "partial"]), outcomes(["unscored"], name="capability")])
    assert as_if(table, "complied", ["refusal"])["label"].to_list() == ["complied", "partial", "unscored"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(LABELS)] * 3), min_size=1, max_size=30))
def test_counts_add_up_whatever_the_labels(labels: list[tuple[str, str, str]]) -> None:
    names = ("a", "b", "c")
    views = [view(name, outcomes([row[i] for row in labels])) for i, name in enumerate(names)]
    found = compare(views, ["refusal"])
    for judge in found["judges"]:
        assert sum(judge["labels"]["refusal"].values()) == len(labels)
    for row in found["pairs"]:
        i, j = names.index(row["one"]), names.index(row["other"])
        parted = sum(r["count"] for r in found["disagreements"] if (r["one"], r["other"]) == (row["one"], row["other"]))
        assert row["n"] + row["unscored"] == len(labels)
        assert parted == sum(r[i] != r[j] and "unscored" not in (r[i], r[j]) for r in labels)
        if row["n"]:
            assert row["agreement_labels"] == pytest.approx(1 - parted / row["n"], abs=1e-5)


def test_outcomes_are_read_back_with_how_they_were_made(tmp_path: Any) -> None:
    scoring = Scoring("local", "abcdef123456", ("<think> </think>",))
    write_outcomes(tmp_path / scoring.file, outcomes(["refused"]), scoring)
    table, made = read_outcomes(tmp_path / scoring.file)
    assert made == scoring
    assert table.equals(outcomes(["refused"]))


def test_same_replies_looks_at_keys_and_digests_in_any_order() -> None:
    table = outcomes(["refused", "complied", "partial"])
    assert same_replies(table, table.reverse().with_columns(label=pl.lit("complied")))
    assert not same_replies(table, table.head(2))
    assert not same_replies(table, table.with_columns(reply_sha256=pl.lit("0")))


def test_judges_of_one_name_are_told_apart_by_version() -> None:
    judges = [Scoring("a", "1" * 12), Scoring("a", "2" * 12), Scoring("b", "1" * 12)]
    assert list(named(judges).values()) == ["a-11111111", "a-22222222", "b"]


def test_every_panel_file_makes_its_judges_by_name() -> None:
    files = sorted(path.stem for path in (conf_folder() / "panel").glob("*.yaml"))
    assert "none" in files
    assert load(["panel=none"]).panel == load().panel == {}
    for name in files:
        panel = load([f"panel={name}"]).panel
        assert [judge.name for judge in panel.values()] == list(panel)
        assert (name == "none") == (not panel)


def test_a_judge_is_added_to_the_panel_from_the_command_line() -> None:
    panel = load(["+judge@panel.second=pattern", "panel.second.max_repeat=3"]).panel
    assert (list(panel), panel["second"].max_repeat) == (["second"], 3)
    assert panel["second"].refused == load().judge.refused


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+judge@panel.x=pattern", "panel.x.kind=oracle"], "panel.x.kind: 'oracle' is unknown"),
        (["+judge@panel.x=pattern", "panel.x.refusd=[a]"], "panel.x.refusd: unknown key; did you mean refused?"),
        (["judge.name='a/b'"], "judge: 'a/b' is no name"),
    ],
)
def test_a_panel_that_cannot_be_is_told(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError, match="the configuration has a fault") as caught:
        load(overrides)
    assert told in caught.value.what
