"""What an earlier Holdfast left: who wrote it, in which words it is refused, and what a new run says of it."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished_run import finish, words
from rich.console import Console

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.outcomes import Scoring, table_of, write_outcomes
from pipeline.plan.digests import VERSION
from pipeline.plan.earlier import going_on, judges_of_labels, planned_otherwise, refuse, writer
from pipeline.plan.facts import JudgeFacts, SubjectFacts, TableFacts
from pipeline.plan.intact import digests
from pipeline.plan.kept import keep_plan
from pipeline.plan.make import make_plan
from pipeline.workspace import Workspace

FACTS = TableFacts(100, "c" * 64, 20.0, 5.0)
WORDS = ["experiment=smoke", "seeds=[0,1]"]
HERE = {"revision": "4" * 40, "source_sha256": "a" * 64}
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    config = load(["budget.device_seconds=1e9"])
    tables, evals = dict.fromkeys(config.data, FACTS), dict.fromkeys(config.evals, FACTS)
    subject = SubjectFacts({"organism": "d" * 64}, 1000, "f" * 64)
    return make_plan(config, subject, tables, evals, JudgeFacts("pattern", "pattern", "a" * 12))


def left(root: Path, plan: dict[str, Any], words: list[str], change: Change = lambda _: None) -> Path:
    """Write what a run leaves of its plan and commands; return its folder."""
    there = copy.deepcopy(plan) | {"environment": {"revision": "3a311df2345a" + "0" * 28}}
    change(there)
    write_json(root / "plan.json", there)
    write_json(root / "reproduce.json", {"commands": [{"overrides": words}]})
    return root


def rank(there: dict[str, Any]) -> None:
    there["config"]["arms"]["compliance"]["lora"]["rank"] = 4


def options(there: dict[str, Any], count: int) -> None:
    """Let a plan have this many options of which the other one knows nothing."""
    there["config"]["arms"]["compliance"]["lora"].update({f"option_{number}": 0 for number in range(count)})


@pytest.mark.parametrize(
    ("plan_of", "said"),
    [
        ({"version": 2, "environment": {"revision": "3a311df2345a" + "0" * 28}}, "revision 3a311df2345a"),
        ({"version": 2, "environment": {"revision": None}}, "plan version 2"),
        ({"version": 1}, "plan version 1"),
        ({"version": 1, "environment": "of another shape"}, "plan version 1"),
    ],
)
def test_who_wrote_a_plan_is_named_as_far_as_it_says(plan_of: dict[str, Any], said: str) -> None:
    assert writer(plan_of) == f"the Holdfast that wrote it ({said})"


def test_a_folder_of_another_version_is_refused_with_who_can_read_it(plan: dict[str, Any], tmp_path: Path) -> None:
    there = {"version": 2, "run_sha256": "e" * 64, "environment": {"revision": "3a311df2345a" + "0" * 28}}
    with pytest.raises(UserError) as caught:
        refuse(tmp_path, there, plan)
    was_and_now = f"belongs to another plan (eeeeeeee, now {plan['run_sha256'][:8]}):"
    version = f"version: 2 → {VERSION} (written by another Holdfast)"
    assert caught.value.what == f"{tmp_path} {was_and_now}\n  - {version}"
    assert "with the Holdfast that wrote it (revision 3a311df2345a)" in caught.value.remedy
    assert "take the changes back" not in caught.value.remedy  # no change of the command's would help


def test_a_folder_of_another_plan_is_refused_with_what_differs(plan: dict[str, Any], tmp_path: Path) -> None:
    there = copy.deepcopy(plan)
    rank(there)
    with pytest.raises(UserError, match=r"config\.arms\.compliance\.lora\.rank: 4 → 8") as caught:
        refuse(tmp_path, there, plan)
    assert f"({there['run_sha256'][:8]}, now {plan['run_sha256'][:8]}):" in caught.value.what
    assert "take the changes back" in caught.value.remedy


@pytest.mark.parametrize(("count", "last"), [(20, "lora.option_9: 0 → None"), (25, "and 5 more")])
def test_twenty_of_many_differences_of_a_folder_are_listed_and_the_rest_counted(
    plan: dict[str, Any], tmp_path: Path, count: int, last: str
) -> None:
    there = copy.deepcopy(plan)
    options(there, count)
    with pytest.raises(UserError) as caught:
        refuse(tmp_path, there, plan)
    _, *lines = caught.value.what.split("\n  - ")
    assert len([line for line in lines if "option_" in line]) == 20
    assert lines[-1].endswith(last)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda there: there.update(version=2), f"version: 2 → {VERSION}"),
        (lambda there: there.update(version=2, config={}, evals=[]), f"otherwise (version: 2 → {VERSION})"),
        (rank, "config.arms.compliance.lora.rank: 4 → 8"),  # another default
    ],
)
def test_a_run_that_the_same_words_made_is_told_with_what_is_planned_otherwise(
    plan: dict[str, Any], tmp_path: Path, change: Change, said: str
) -> None:
    old = left(
        tmp_path / "demo-11111111",
        plan,
        ["run.root=redacted", *WORDS[::-1], "stages=[train]", "++run.dir=x", "~track"],
        change,
    )
    (line,) = planned_otherwise(tmp_path / "demo-22222222", "demo", plan, WORDS, HERE)
    assert "demo-11111111, beside it, was made by the same options when they planned otherwise" in line
    assert said in line
    assert "use the Holdfast that wrote it (revision 3a311df2345a)" in line
    assert "weights" not in line
    (old / "weights").mkdir()
    (line,) = planned_otherwise(tmp_path / "demo-22222222", "demo", plan, WORDS, HERE)
    assert f"to end the stripped weights in it: stages=[purge] contain.run={old} contain.now=true" in line


def test_a_run_that_the_same_code_planned_otherwise_is_not_to_be_gone_on_with_by_another(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    """A file of options was changed, one of the user's own perhaps."""
    left(tmp_path / "demo-11111111", plan, WORDS, lambda there: (rank(there), there.update(environment=HERE)))
    (line,) = planned_otherwise(tmp_path / "demo-22222222", "demo", plan, WORDS, HERE)
    assert "lora.rank: 4 → 8" in line
    assert line.endswith("to go on in it, take that back")


@pytest.mark.parametrize(("count", "more"), [(3, ""), (5, "; and 2 more")])
def test_three_of_many_differences_are_named_and_the_rest_counted(
    plan: dict[str, Any], tmp_path: Path, count: int, more: str
) -> None:
    left(tmp_path / "demo-11111111", plan, WORDS, lambda there: options(there, count))
    (line,) = planned_otherwise(tmp_path / "demo-22222222", "demo", plan, WORDS, HERE)
    lines = "; ".join(f"config.arms.compliance.lora.option_{number}: 0 → None" for number in range(3))
    assert f"planned otherwise ({lines}{more}). It is left as it is" in line


def test_every_run_that_the_same_words_made_is_told_in_the_order_of_their_names(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    """Whichever command of the run had these words, and on whichever side of the new run it lies."""
    for name in ("demo-33333333", "demo-22222222", "demo-11111111"):
        left(tmp_path / name, plan, WORDS, rank)
    commands = [{"overrides": words} for words in (["experiment=demo"], WORDS)]
    write_json(tmp_path / "demo-33333333" / "reproduce.json", {"commands": commands})
    lines = planned_otherwise(tmp_path / "demo-22222222", "demo", plan, WORDS, HERE)
    assert [line.partition(", beside it")[0] for line in lines] == [
        f"A new run begins: demo-{digit * 8}" for digit in "13"
    ]


@pytest.mark.parametrize(
    ("name", "words", "change"),
    [
        ("demo-11111111", ["experiment=smoke", "seeds=[0]"], rank),  # other options were typed
        ("demo-11111111", WORDS, lambda there: None),  # the same plan: no other run
        ("other-11111111", WORDS, rank),
        ("demo-22222222", WORDS, rank),  # the new run's own folder
        ("demo-11111111", WORDS, lambda there: (rank(there), there["data"].update(compliance="0" * 64))),
        ("demo-11111111", WORDS, lambda there: (rank(there), there["evals"][0].update(sha256="0" * 64))),
        ("demo-11111111", WORDS, lambda there: (rank(there), there["subject"].update(organism="0" * 64))),
        ("demo-11111111", WORDS, lambda there: there.update(config={}, data={})),
    ],
)
def test_nothing_is_said_of_what_other_words_or_other_inputs_made(
    plan: dict[str, Any], tmp_path: Path, name: str, words: list[str], change: Change
) -> None:
    left(tmp_path / name, plan, words, change)
    assert planned_otherwise(tmp_path / "demo-22222222", "demo", plan, WORDS, HERE) == []


def prompt(there: dict[str, Any]) -> None:
    there["config"]["subject"]["system_prompt"] = "Answer briefly."


@pytest.mark.parametrize("change", [prompt, lambda there: (prompt(there), there.update(version=2))])
def test_words_that_were_redacted_may_have_been_others(plan: dict[str, Any], tmp_path: Path, change: Change) -> None:
    words = [*WORDS, "subject.system_prompt=redacted", "subject.path=redacted", "+evals.refusal.x={a:redacted}"]
    left(tmp_path / "demo-11111111", plan, words, change)
    assert planned_otherwise(tmp_path / "demo-22222222", "demo", plan, words, HERE) == []
    left(tmp_path / "demo-33333333", plan, words, rank)  # they were the same
    assert len(planned_otherwise(tmp_path / "demo-22222222", "demo", plan, words, HERE)) == 1


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"name": "other"}])
def test_nothing_is_said_of_what_the_same_words_made_of_another_model(
    plan: dict[str, Any], tmp_path: Path, change: dict[str, str]
) -> None:
    here = {**plan, "subject": {key: value for key, value in plan["subject"].items() if key != "organism"}}
    left(tmp_path / "demo-11111111", here, WORDS, rank)
    assert len(planned_otherwise(tmp_path / "demo-22222222", "demo", here, WORDS, HERE)) == 1
    left(tmp_path / "demo-11111111", here, WORDS, lambda there: (rank(there), there["subject"].update(change)))
    assert planned_otherwise(tmp_path / "demo-22222222", "demo", here, WORDS, HERE) == []


def test_what_cannot_be_read_beside_a_new_run_keeps_it_from_nothing(plan: dict[str, Any], tmp_path: Path) -> None:
    (left(tmp_path / "demo-11111111", plan, WORDS, rank) / "reproduce.json").unlink()  # as the first versions left it
    (left(tmp_path / "demo-33333333", plan, WORDS, rank) / "plan.json").write_text("{")
    (left(tmp_path / "demo-44444444", plan, WORDS, rank) / "plan.json").write_text("[]")
    (tmp_path / "demo-55555555" / "plan.json").mkdir(parents=True)
    for number, record in enumerate(({}, [], {"commands": [{"overrides": [0]}]})):
        write_json(left(tmp_path / f"demo-6666666{number}", plan, WORDS, rank) / "reproduce.json", record)
    assert planned_otherwise(tmp_path / "demo-22222222", "demo", plan, WORDS, HERE) == []
    left(tmp_path / "demo-77777777", plan, WORDS, rank)
    (line,) = planned_otherwise(tmp_path / "demo-22222222", "demo", plan, WORDS, HERE)
    assert "demo-77777777, beside it" in line


def judged(plan: dict[str, Any], version: str) -> dict[str, Any]:
    """Return a plan whose judge, also on the panel beside another, is of some version."""
    made = copy.deepcopy(plan)
    pattern = {"name": "pattern", "kind": "pattern", "version": version}
    made["judge"], made["panel"] = pattern, [pattern, {"name": "local", "kind": "local", "version": f"l{version}"}]
    made["config"]["panel"] = {name: made["config"]["judge"] | {"name": name} for name in ("pattern", "local")}
    return made | digests(made)


def test_where_nothing_is_labelled_the_judges_are_those_of_the_labels(plan: dict[str, Any], tmp_path: Path) -> None:
    outcomes, was, now = tmp_path / "outcomes.parquet", judged(plan, "1"), judged(plan, "2")
    write_outcomes(outcomes, table_of([]), Scoring("pattern", "1"))
    found = judges_of_labels(was, now, outcomes)
    assert found == {key: was[key] for key in ("judge", "panel", "plan_sha256")} != {key: now[key] for key in found}
    now["config"]["panel"]["local"]["max_repeat"] = 5  # one of the panel is asked otherwise: it is today's
    assert [facts["version"] for facts in judges_of_labels(was, now, outcomes)["panel"]] == ["1", "l2"]
    assert judges_of_labels(was, {**now, "panel": []}, outcomes)["panel"] == []


@pytest.mark.parametrize(
    ("labelled", "used"), [([], "l1"), (["l1"], "l1"), (["l2"], "l2"), (["l1", "l2"], "l1"), (["l3"], "l1")]
)
def test_who_labelled_for_the_panel_after_an_update_is_not_told_as_registered(
    plan: dict[str, Any], tmp_path: Path, labelled: list[str], used: str
) -> None:
    """The update raised the version of one on the panel alone, so the labels of `judge` are still the registered's."""
    was, now = judged(plan, "1"), judged(plan, "2")
    now["judge"], now["panel"][0] = was["judge"], was["panel"][0]
    outcomes = tmp_path / "outcomes.parquet"
    write_outcomes(outcomes, table_of([]), Scoring("pattern", "1"))
    (tmp_path / "panel").mkdir()
    for version in labelled:
        made = Scoring("local", version)
        write_outcomes(tmp_path / "panel" / made.file, table_of([]), made)
    assert [facts["version"] for facts in judges_of_labels(was, now, outcomes)["panel"]] == ["1", used]


@pytest.mark.parametrize(
    ("by", "change"),
    [
        ("2", lambda was, now: None),  # labelled again since
        ("1", lambda was, now: now["config"]["judge"].update(max_repeat=5)),
        ("1", lambda was, now: now["judge"].update(name="lax")),
        ("1", lambda was, now: now["judge"].update(kind="local")),
        ("1", lambda was, now: was.pop("judge")),  # damaged, which is told elsewhere
        ("1", lambda was, now: was["config"].pop("serve")),
        ("1", lambda was, now: was.update(panel=None)),
        ("1", lambda was, now: was.update(config=[])),
        (None, lambda was, now: None),
    ],
)
def test_labels_of_another_judge_than_registered_do_not_speak_for_it(
    plan: dict[str, Any], tmp_path: Path, by: str | None, change: Callable[..., object]
) -> None:
    outcomes, was, now = tmp_path / "outcomes.parquet", judged(plan, "1"), judged(plan, "2")
    if by is not None:
        write_outcomes(outcomes, table_of([]), Scoring("pattern", by))
    change(was, now)
    assert judges_of_labels(was, now, outcomes) == {}


@pytest.mark.parametrize(
    ("began", "here", "said"),
    [
        ({"source_sha256": "a" * 64, "revision": "1" * 40}, {"source_sha256": "a" * 64, "revision": "2" * 40}, None),
        (
            {"source_sha256": "a" * 64, "revision": "1" * 40},
            {"source_sha256": "b" * 64, "revision": "2" * 40},
            "(revision 111111111111, here 222222222222)",
        ),
        ({}, {"source_sha256": "b" * 64, "revision": None}, "(revision not known, here not known)"),
    ],
)
def test_a_run_that_goes_on_by_other_code_is_told_by_what_the_code_is(
    began: dict[str, Any], here: dict[str, Any], said: str | None
) -> None:
    line = going_on({"environment": began}, here)
    assert (said is None and line is None) or (said is not None and said in str(line))


def test_it_is_told_until_the_run_has_a_verdict(tmp_path: Path, tiny_folder: Path) -> None:
    run = finish(words(tmp_path, tiny_folder))
    stages = "stages=[plan,train,generate,score,analyse,report]"
    assert "other code" not in told(words(tmp_path, tiny_folder), stages)
    plan = read_json(run / "plan.json")
    (run / "reproduce.json").unlink(missing_ok=True)  # it holds the plan's digest
    write_json(run / "plan.json", {**plan, "environment": {**plan["environment"], "source_sha256": "0" * 64}})
    assert "This run was begun by other code" in told(words(tmp_path, tiny_folder), stages)
    assert "other code" not in told(words(tmp_path, tiny_folder), "stages=[score,analyse,report]"), "nothing is made"
    write_json(run / "verdict.json", {})
    assert "other code" not in told(words(tmp_path, tiny_folder), stages)


def test_what_is_not_as_registered_is_told_with_both_values(tmp_path: Path, tiny_folder: Path) -> None:
    finish(words(tmp_path, tiny_folder))
    said = told([*words(tmp_path, tiny_folder), "serve.max_loras=2"], "stages=[analyse,report]")
    assert "Post hoc, not as registered in plan.json, which stays as it is: serve.max_loras: 2, planned was 8" in said


def told(words: list[str], stages: str) -> str:
    """Return what opening a run says on the terminal."""
    said = io.StringIO()
    work = Workspace(load([*words, stages]), Console(file=said, width=200))
    with work.folder.locked():
        keep_plan(work)
    return said.getvalue()
