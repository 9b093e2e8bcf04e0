"""Every experiment goes with every choice of arms and evals: what it sets for the others makes none of them."""

from __future__ import annotations

from itertools import chain, combinations
from pathlib import Path

import pytest
from spoken import REVIEW, told

from pipeline.config.compose import conf_folder, load

ARMS = sorted(path.stem for path in (conf_folder() / "arm").glob("[!_]*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))
SHOWN = ["over_refusal", "refusal_draws", "prefill"]


def subsets(names: list[str], least: int) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, count) for count in range(least, len(names) + 1)))


def words(experiment: str) -> list[str]:
    if experiment != "release_review":
        return [f"experiment={experiment}"]
    return [word for word in REVIEW if not word.startswith("evals.")]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("arms", subsets(ARMS, 1), ids=",".join)
def test_any_arms_go_with_any_experiment(experiment: str, arms: tuple[str, ...]) -> None:
    evals = ["eval=[refusal,capability]"] if experiment == "release_review" else []
    assert sorted(load([*words(experiment), *evals, f"arm=[{','.join(arms)}]"]).arms) == list(arms)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("shown", subsets(SHOWN, 0), ids=",".join)
def test_any_evals_go_with_any_experiment(experiment: str, shown: tuple[str, ...]) -> None:
    chosen = ["refusal", "capability", *shown]
    assert sorted(load([*words(experiment), f"eval=[{','.join(chosen)}]"]).evals) == sorted(chosen)
    public = load([*words(experiment), "eval=[harmbench,xstest_safe,gsm8k]", "run.benchmarks=/b"])  # docs/evals.md
    assert sorted(public.evals) == ["gsm8k", "harmbench", "xstest_safe"]


def test_with_a_word_that_hydra_looks_at_it_is_the_same() -> None:
    made = load(["experiment=smoke", "arm=[benign]", "+subject.template_kwargs.a=1"])
    assert list(made.arms) == ["benign"]


@pytest.mark.parametrize(
    ("chosen", "word"),
    [("arm=[benign]", "arms.compliance.lora.rank=4"), ("eval=[refusal,capability]", "evals.over_refusal.draws=2")],
)
def test_an_option_of_what_is_not_chosen_is_told(chosen: str, word: str) -> None:
    key = word.partition("=")[0]
    for experiment in ("smoke", "demo"):
        message = told(f"experiment={experiment}", chosen, word)
        assert message.startswith("the configuration has a fault:")
        assert f"{key}: {key.rsplit('.', 2 if 'lora' in key else 1)[0]} is not chosen" in message


def test_what_no_file_could_make_is_told_not_dropped(conf_copy: Path) -> None:
    assert "arms.mine.threat: missing" in told("experiment=smoke", "+arms.mine.share=2")
    file = conf_copy / "arm" / "compliance.yaml"
    file.write_text(file.read_text().replace("threat:", "way: lora #"))
    assert "arms.compliance.threat: missing" in told("experiment=smoke")
