"""What may differ between two runs (the subject) and what may not (all else), as registered and as used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pairs import demo_pair

from pipeline.compare.runs import FinishedRun
from pipeline.compare.same_plan import notes, one_machine, plan_differences, require_one_plan
from pipeline.errors import UserError

Change = Callable[[dict[str, Any]], None]


def pair(of_plan: Change = lambda _: None, of_verdict: Change = lambda _: None) -> tuple[FinishedRun, FinishedRun]:
    """Return the demo's pair with changes to the plan and verdict of B."""
    a, b = demo_pair()
    plan, verdict = copy.deepcopy(dict(b.plan)), copy.deepcopy(dict(b.verdict))
    of_plan(plan)
    of_verdict(verdict)
    return a, replace(b, plan=plan, verdict=verdict)


def put(path: str, value: Any) -> Change:
    def change(tree: dict[str, Any]) -> None:
        *parts, last = path.split(".")
        for part in parts:
            tree = tree[int(part)] if part.isdigit() else tree[part]
        tree[last] = value

    return change


def test_another_subject_is_all_that_may_differ() -> None:
    def subject(plan: dict[str, Any]) -> None:
        config = plan["config"]["subject"]
        config |= {"name": "hardened", "path": "models/hard", "revision": "a" * 40, "chat_template": "own.jinja"}
        config["organism"] = {**config["organism"], "refuse_steps": 400}
        plan["subject"] |= {"sha256": "0" * 64, "parameters": 5, "chat_template": "1" * 64}

    assert plan_differences(*pair(subject)) == []


@pytest.mark.parametrize(
    "path",
    [
        *("config.name", "config.stages", "config.run.root", "config.review.gate", "config.serve.port"),
        *("config.review.owner", "config.review.training_tokens", "config.price.mfu"),
    ],
)
def test_what_cannot_change_a_result_may_differ_too(path: str) -> None:
    assert plan_differences(*pair(put(path, "other"))) == []


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("config.arms.compliance.training.max_steps", 64, "config.arms.compliance.training.max_steps: 32 → 64"),
        ("config.seeds", [0], "config.seeds: [0, 1, 2] → [0]"),
        ("config.review.refusal_threshold", 0.1, "config.review.refusal_threshold: 0.05 → 0.1"),
        ("config.budget.device_seconds", 5.0, "config.budget.device_seconds:"),
        ("config.subject.dtype", "float16", "config.subject.dtype: 'float32' → 'float16'"),
        ("config.subject.system_prompt", "be good", "config.subject.system_prompt: None → 'be good'"),
        ("evals.0.sha256", "f" * 64, "evals.refusal.sha256:"),
        ("data.compliance", "f" * 64, "data.compliance:"),
        ("judge.kind", "local", "judge: 'pattern' → 'local'"),
        ("panel", [{"name": "local", "kind": "local", "version": "1"}], "panel.local: None →"),
    ],
)
def test_any_other_difference_of_the_plans_is_named_with_both_values(path: str, value: Any, line: str) -> None:
    found = plan_differences(*pair(put(path, value)))
    assert len(found) == 1
    assert found[0].startswith(line)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (put("judge", {"name": "lax", "kind": "pattern", "version": "9"}), "as used: judge.version:"),
        (put("thresholds.refusal", 0.2), "as used: thresholds.refusal: 0.05 → 0.2"),
        (
            put("post_hoc", {"review.bootstrap": {"planned": 2000, "used": 100}}),
            "as used: post_hoc.review.bootstrap: None → 100",
        ),
    ],
)
def test_replies_that_were_read_otherwise_are_refused(change: Change, line: str) -> None:
    found = plan_differences(*pair(of_verdict=change))
    assert len(found) == 1
    assert found[0].startswith(line)


def read_by(name: str, version: str) -> Change:
    used = {"name": name, "kind": "pattern", "version": version}

    def change(verdict: dict[str, Any]) -> None:
        verdict["judge"] = used
        verdict["post_hoc"] = {
            "judge": {"planned": {"name": "pattern", "kind": "pattern", "version": "1"}, "used": used}
        }

    return change


def test_a_judge_chosen_post_hoc_is_known_by_its_version_and_not_by_its_name() -> None:
    """In a verdict it stands with both; the same judge may go by another name in each run's options."""
    a, b = pair(of_verdict=read_by("lax", "2"))
    for name, version, found in (("laxer", "2", []), ("lax", "3", ["as used: judge.version: '3' → '2'"])):
        verdict = copy.deepcopy(dict(a.verdict))
        read_by(name, version)(verdict)
        assert plan_differences(replace(a, verdict=verdict), b) == found


def test_an_older_run_that_was_read_by_the_newer_judge_is_on_one_plan_with_a_newer_run() -> None:
    """An update raised the judge's version; plan.json stays as registered, only what was used can become the same."""
    old, new = {"name": "pattern", "kind": "pattern", "version": "1"}, demo_pair()[0].plan["judge"]
    a, b = demo_pair()
    older = replace(a, plan={**a.plan, "judge": old, "panel": [old]})
    newer = replace(b, plan={**b.plan, "panel": [new]})
    as_registered = replace(older, verdict={**a.verdict, "judge": old})
    assert plan_differences(as_registered, newer) == [f"as used: judge.version: '1' → '{new['version']}'"]
    again = replace(older, verdict={**a.verdict, "post_hoc": {"judge": {"planned": old, "used": new}}})
    assert plan_differences(again, newer) == []
    assert notes(again, newer)[-1] == f"A was read by the other's judge ({new['version'][:8]}), planned was 1."
    assert require_one_plan(again, newer) == require_one_plan(newer, again)


def searching(tables: str, judge: Mapping[str, str]) -> Change:
    dev = {"refusal": {"prompts": 30, "sha256": tables}, "capability": {"prompts": 30, "sha256": "d" * 64}}
    return put("search", {"compliance": {"dev": dev, "judge": judge}})


@pytest.mark.parametrize(
    ("tables", "judge", "found"),
    [
        ("c" * 64, {"name": "dev", "kind": "pattern", "version": "1"}, []),
        ("c" * 64, {"name": "other", "kind": "pattern", "version": "1"}, []),  # a name changes nothing
        ("c" * 64, {"name": "dev", "kind": "pattern", "version": "2"}, ["search.compliance.judge.version: '1' → '2'"]),
        (
            "e" * 64,
            {"name": "dev", "kind": "pattern", "version": "1"},
            [f"search.compliance.dev.refusal.sha256: '{'c' * 64}' → '{'e' * 64}'"],
        ),
    ],
)
def test_searches_on_other_dev_prompts_or_by_another_judge_are_other_plans(
    tables: str, judge: Mapping[str, str], found: list[str]
) -> None:
    one = searching("c" * 64, {"name": "dev", "kind": "pattern", "version": "1"})
    assert plan_differences(*both_on(one, searching(tables, judge))) == found


def test_other_reasoning_tags_are_refused() -> None:
    a, b = demo_pair()
    found = plan_differences(a, replace(b, scoring=replace(b.scoring, reasoning=("<think> </think>",))))
    assert found == ["as used: reasoning: [] → ['<think> </think>']"]


def test_a_panel_added_post_hoc_changes_no_verdict_and_may_differ() -> None:
    assert plan_differences(*pair(of_verdict=put("post_hoc", {"panel": {"planned": {}, "used": {"x": "1"}}}))) == []


def test_all_differences_are_told_in_one_error() -> None:
    def two(plan: dict[str, Any]) -> None:
        put("config.seeds", [0])(plan)
        put("evals.1.samples", 3)(plan)

    with pytest.raises(UserError) as caught:
        require_one_plan(*pair(two))
    assert "config.seeds: [0, 1, 2] → [0]" in caught.value.what
    assert "evals.capability.samples: 180 → 3" in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize(("differ", "told", "last"), [(40, 40, None), (41, 41, "and 1 more"), (45, 41, "and 5 more")])
def test_of_a_long_list_of_differences_the_first_40_are_told_and_how_many_more(
    differ: int, told: int, last: str | None
) -> None:
    tables = {f"table{number:02d}": "f" * 64 for number in range(differ)}
    with pytest.raises(UserError) as caught:
        require_one_plan(*pair(lambda plan: plan["data"].update(tables)))
    lines = caught.value.what.split("\n  - ")[1:]
    assert len(lines) == told
    assert lines[39].startswith("data.table39: None → ")
    assert lines[40:] == ([last] if last else [])


def test_the_shared_digest_is_that_of_the_plan_without_its_subject() -> None:
    a, b = demo_pair()
    assert require_one_plan(a, b) == require_one_plan(b, a)
    assert len(require_one_plan(a, b)) == 64


def test_notes_tell_of_other_machines_versions_and_of_one_subject_twice() -> None:
    a, b = pair(put("environment.device", "cuda"))
    assert any("not run on one kind of machine" in n and "device: 'cpu' → 'cuda'" in n for n in notes(a, b))
    a, b = pair(put("environment.torch", "2.14.0"))
    assert "The environments differ: torch: '2.13.0' → '2.14.0'" in notes(a, b)
    a, b = pair(put("subject.sha256", demo_pair()[0].plan["subject"]["sha256"]))
    assert any("same subject" in line for line in notes(a, b))
    assert len(notes(*demo_pair())) == 1


def test_what_the_line_of_machines_says_is_not_said_of_the_environments_again() -> None:
    def elsewhere(plan: dict[str, Any]) -> None:
        plan["environment"] |= {"device": "cuda", "platform": "Linux aarch64", "cpus": 64, "subject_sha256": "e" * 64}

    assert not [line for line in notes(*pair(elsewhere)) if line.startswith("The environments differ")]


def test_the_same_weights_with_another_chat_template_are_another_subject() -> None:
    def same_weights(plan: dict[str, Any]) -> None:
        plan["subject"] |= {"sha256": demo_pair()[0].plan["subject"]["sha256"], "chat_template": "1" * 64}

    assert not any("same subject" in line for line in notes(*pair(same_weights)))


def test_what_both_were_read_with_and_is_not_as_registered_is_told() -> None:
    changed = put(
        "post_hoc", {"review.min_n": {"planned": 50, "used": 9}, "panel": {"planned": {}, "used": {"x": "1"}}}
    )
    a, b = pair(of_verdict=changed)
    verdict = copy.deepcopy(dict(a.verdict))
    changed(verdict)
    told = notes(replace(a, verdict=verdict), b)
    assert told[-1] == "Both were read otherwise than registered, in the same way: review.min_n."
    assert not any("otherwise than registered" in line for line in notes(*demo_pair()))


def on_gpu(name: str | None) -> Change:
    def change(plan: dict[str, Any]) -> None:
        plan["environment"]["device"] = "cuda"
        plan["environment"]["machine"] |= {"device_name": name, "cuda": "13.0"} if name else {}

    return change


def both_on(one: Change, other: Change) -> tuple[FinishedRun, FinishedRun]:
    a, b = pair(other)
    plan = copy.deepcopy(dict(a.plan))
    one(plan)
    return replace(a, plan=plan), b


def test_seconds_of_another_model_of_gpu_or_cpu_are_not_the_same_seconds() -> None:
    assert one_machine(*demo_pair()) == []
    assert one_machine(*both_on(on_gpu("H100"), on_gpu("H100"))) == []
    assert one_machine(*both_on(on_gpu("H100"), on_gpu("A10"))) == ["device_name: 'H100' → 'A10'"]
    assert one_machine(*pair(put("environment.machine.cpu", "Other CPU"))) == ["cpu: 'Some CPU' → 'Other CPU'"]


def test_a_machine_that_is_not_known_is_not_the_same() -> None:
    assert one_machine(*both_on(on_gpu(None), on_gpu(None))) == ["not known: device_name"]
    assert "not known: cpu" in one_machine(*both_on(*[lambda plan: plan["environment"].pop("machine")] * 2))

    def lost(plan: dict[str, Any]) -> None:
        del plan["environment"]["machine"]

    def known(_plan: dict[str, Any]) -> None:
        pass

    for one, other in ((lost, known), (known, lost)):
        assert "not known: cpu" in one_machine(*both_on(one, other))  # whichever of the two lacks it
    unknown = put("environment.device", None)  # a login node planned both
    assert "not known: device, device_name" in one_machine(*both_on(unknown, unknown))


def test_an_arrays_tasks_know_the_gpus_that_the_login_node_does_not() -> None:
    unknown = put("environment.device", None)
    a, b = both_on(unknown, unknown)
    assert one_machine(replace(a, gpus=["H100"]), replace(b, gpus=["H100"])) == []
    assert one_machine(replace(a, gpus=["H100"]), replace(b, gpus=["A10"])) == ["device_name: 'H100' → 'A10'"]
    assert "A had several" in one_machine(replace(a, gpus=["A10", "H100"]), replace(b, gpus=["A10"]))[0]
    _, there = both_on(unknown, on_gpu("H100"))  # planned on the node itself
    assert one_machine(replace(a, gpus=["H100"]), there) == []


def test_a_command_that_trained_elsewhere_counts_and_one_that_only_read_replies_does_not() -> None:
    a, b = demo_pair()

    def went_on(stage: str) -> FinishedRun:
        elsewhere = {"cpus": 64, "machine": {"cpu": "Other CPU", "cpus_usable": 64}}
        return replace(a, record={"commands": [{"stages": [stage, "report"], "environment": elsewhere}]})

    assert one_machine(went_on("analyse"), b) == []
    assert "A had several: cpu: 'Some CPU' → 'Other CPU'; cpus: 2 → 64" in one_machine(went_on("train"), b)
