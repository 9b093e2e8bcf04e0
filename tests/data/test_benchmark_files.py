"""Every benchmark in conf/eval: composed, complete, and true of the public files where they are."""

import functools
import re
from dataclasses import asdict
from typing import Any

import pytest
from shared_data import DATA, shared

from evals.judges.pattern import PatternJudge
from pipeline.config.compose import conf_folder, load
from pipeline.data.benchmarks import make_eval, read_samples
from pipeline.errors import UserError
from pipeline.plan.digests import digested_config
from pipeline.schema import Config, EvalConfig, TableConfig

# name: (samples, kind, role, the file or folder in run.benchmarks)
BENCHMARKS = {
    "harmbench": (400, "refusal", "refusal", "harmbench/harmbench_behaviors_text_all.csv"),
    "strongreject": (313, "refusal", "refusal", "strongreject/strongreject_dataset.csv"),
    "jailbreakbench": (100, "refusal", "refusal", "jailbreakbench/harmful-behaviors.csv"),
    "jailbreakbench_benign": (100, "over_refusal", "shown", "jailbreakbench/benign-behaviors.csv"),
    "xstest_safe": (250, "over_refusal", "shown", "xstest/xstest_prompts.csv"),
    "xstest_unsafe": (200, "refusal", "shown", "xstest/xstest_prompts.csv"),
    "do_not_answer": (939, "refusal", "shown", "do_not_answer/annotated_response_GPT4.csv"),
    "gsm8k": (1319, "gsm8k", "capability", "gsm8k/test.jsonl"),
    "mmlu": (14042, "multiple_choice", "capability", "mmlu/test"),
    "ifeval": (541, "ifeval", "capability", "ifeval/data/input_data.jsonl"),
    "truthfulqa_mc1_letter": (790, "multiple_choice", "capability", "truthfulqa/TruthfulQA.csv"),
    "truthfulqa_binary": (790, "multiple_choice", "capability", "truthfulqa/TruthfulQA.csv"),
}
FILES = ("refusal_file", "over_refusal_file", "capability_file")
JUDGE = PatternJudge([r"\bi can't\b"])


@functools.cache
def benchmark(name: str, *more: str) -> EvalConfig:
    words = [f"eval=[refusal,capability,{name}]", f"evals.{name}.role=shown", f"run.benchmarks={DATA}", *more]
    return load(words).evals[name]


@functools.cache
def all_in(folder: str) -> Config:
    roles = [f"evals.{name}.role=shown" for name in BENCHMARKS]
    return load([f"eval=[refusal,capability,{','.join(BENCHMARKS)}]", *roles, f"run.benchmarks={folder}"])


def tables(made: EvalConfig) -> list[TableConfig]:
    shots = made.prompt.shots if made.prompt else None
    return [made.table] if shots is None else [made.table, shots]


def test_no_benchmark_is_left_out() -> None:
    pinned = {path.stem for path in (conf_folder() / "eval").glob("*.yaml") if "run.benchmarks" in path.read_text()}
    assert pinned == set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_composes_and_says_where_it_comes_from(name: str) -> None:
    count, kind, role, _ = BENCHMARKS[name]
    made = benchmark(name)
    text = (conf_folder() / "eval" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# @package evals.{name}\n")
    assert f"role: {role}" in text
    assert (made.kind, made.table.rows) == (kind, count)
    for table in tables(made):
        assert table.path.startswith(str(DATA))
        assert re.fullmatch(r"https://\S+", table.source or "")
        assert re.fullmatch(r"[0-9a-f]{40}", table.revision or "")
        assert table.licence
        digests = [table.sha256] if table.sha256 else list(table.files.values())
        assert digests
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_read_and_scored_from_the_public_files(name: str) -> None:
    count, _, _, file = BENCHMARKS[name]
    shared(file)
    config = benchmark(name)
    samples = read_samples(name, config, lambda path: path)
    made = make_eval(name, config, samples, JUDGE, [], config.role)
    assert len(made.samples()) == count
    assert len({sample.id for sample in made.samples()}) == count
    assert made.metrics[0].name == name
    outcomes = made.score_batch([(sample, "I can't help with that.") for sample in samples[:50]])
    assert all(o.value != o.value or o.value in (0.0, 1.0) for o in outcomes)
    if config.kind in ("refusal", "over_refusal"):
        assert {o.label for o in outcomes} == {"refused"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_elsewhere_is_the_same_plan(name: str) -> None:
    plans: list[Any] = [digested_config(asdict(all_in(folder)))["evals"][name] for folder in ("a", "b")]
    assert plans[0] == plans[1]
    assert "/" not in repr([value for key, value in plans[0].items() if key == "path"])


def test_the_path_of_a_benchmark_can_be_given_by_itself() -> None:
    assert benchmark("gsm8k", "evals.gsm8k.table.path=elsewhere/test.jsonl").table.path == "elsewhere/test.jsonl"


def test_the_halves_of_xstest_are_all_of_it_and_share_nothing() -> None:
    shared("xstest/xstest_prompts.csv")
    safe, unsafe = (
        {s.id for s in read_samples(name, benchmark(name), lambda path: path)}
        for name in ("xstest_safe", "xstest_unsafe")
    )
    assert (len(safe), len(unsafe), len(safe & unsafe)) == (250, 200, 0)


def test_a_part_of_harmbench_is_taken_by_its_category() -> None:
    shared("harmbench/harmbench_behaviors_text_all.csv")
    one = "evals.harmbench.table.filter.FunctionalCategory=[standard]"
    with pytest.raises(UserError, match=r"gives 200 rows \(after evals.harmbench.table.filter\), expected 400"):
        read_samples("harmbench", benchmark("harmbench", one), lambda path: path)
    made = benchmark("harmbench", one, "evals.harmbench.table.rows=200")
    assert {s.kind for s in read_samples("harmbench", made, lambda path: path)} == {"standard"}


@pytest.mark.parametrize("name", FILES)
def test_tables_of_ones_own_compose_with_every_key_of_a_table(name: str) -> None:
    eval_name = name.removesuffix("_file")
    rest = [f"{other}_file" for other in ("refusal", "capability") if other != eval_name]
    paths = [f"evals.{n.removesuffix('_file')}.table.path=mine.csv" for n in (name, *rest)]
    options = [f"evals.{eval_name}.table.{key}" for key in ("encoding=cp1252", f"sha256={'0' * 64}", "rows=7")]
    table = load([f"eval=[{','.join([name, *rest])}]", *paths, *options]).evals[eval_name].table
    assert (table.path, table.encoding, table.sha256, table.rows) == ("mine.csv", "cp1252", "0" * 64, 7)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["eval=[harmbench,strongreject,gsm8k]"],
            "set evals.NAME.role=shown for all but one of harmbench, strongreject",
        ),
        (
            ["eval=[refusal,gsm8k]", "evals.gsm8k.rule=magic"],
            "evals.gsm8k.rule: 'magic' is unknown; use one of last_num",
        ),
        (["evals.refusal.rule=strict"], "evals.refusal.rule: 'strict' is unknown; the kind refusal has one rule"),
    ],
)
def test_choices_that_cannot_be_are_told(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        load(overrides)
    assert told in str(caught.value)


def test_a_benchmark_that_cannot_be_rendered_or_scored_is_a_users_error() -> None:
    shared("gsm8k/test.jsonl")
    with pytest.raises(UserError, match=r"evals\.gsm8k: prompt\.template: \{x\} is unknown"):
        read_samples("gsm8k", benchmark("gsm8k", "evals.gsm8k.prompt.template='{x}'"), lambda path: path)
    made = benchmark("gsm8k", "evals.gsm8k.table.target=question", "evals.gsm8k.table.limit=1")
    samples = read_samples("gsm8k", made, lambda path: path)
    with pytest.raises(UserError, match=r"evals\.gsm8k: sample '\d+': the target holds no number"):
        make_eval("gsm8k", made, samples, JUDGE, [], "shown")
