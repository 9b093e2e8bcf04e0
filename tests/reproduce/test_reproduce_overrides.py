"""What reproduce.json holds of a command line: choices and numbers, no path, text or secret. And the line to print."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.reproduce import reproduction_line
from pipeline.reproduce.line import command
from pipeline.reproduce.overrides import shown


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("experiment=smoke", "experiment=smoke"),
        ("arm=[compliance,benign]", "arm=[compliance,benign]"),
        ("seeds=[0,1]", "seeds=[0,1]"),
        ("stages=[score,report]", "stages=[score,report]"),
        ("arms.compliance.training.learning_rate=2e-3", "arms.compliance.training.learning_rate=0.002"),
        ("review.gate=true", "review.gate=true"),
        ("budget.usd=null", "budget.usd=null"),
        ("judge=local", "judge=local"),
        ("judge=/home/me/own", "judge=redacted"),
        ("run.root=/home/me/runs", "run.root=redacted"),
        ("subject.path=/models/secret-model", "subject.path=redacted"),
        ("subject.system_prompt='You are zqsystem'", "subject.system_prompt=redacted"),
        ("judge.llm.base_url=http://me:pass@inside:8000/v1", "judge.llm.base_url=redacted"),
        ("review.reviewer='R. Viewer'", "review.reviewer=redacted"),
        ("~data.benign", "~data.benign"),
        ("+data.extra.path=x.jsonl", "data.extra.path=redacted"),
        ("+reproduce.change.subject.path=/models/m", "reproduce.change.subject.path=redacted"),
        ("+data.member_ids.path=x.jsonl", "data.member_ids.path=redacted"),
    ],
)
def test_known_words(word: str, wanted: str) -> None:
    assert shown([word]) == [wanted]


def test_what_hydra_cannot_read_is_not_shown() -> None:
    assert shown(["seeds=[0", "token=hunter2"]) == ["redacted", "redacted"]


@settings(deadline=None)  # Hydra's parser takes its time where other work runs beside it
@given(st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=4).map(lambda text: f"zq{text}"))
def test_no_text_of_a_prompt_is_shown(text: str) -> None:
    for key in ("subject.system_prompt", "evals.refusal.prompt.template", "judge.llm.api_key_env", "run.dir"):
        assert shown([f"{key}='{text}'"]) == [f"{key}=redacted"]


def plan(**run: Any) -> dict[str, Any]:
    return {"name": "demo", "run_sha256": "0123456789abcdef", "config": {"run": {"dir": None, **run}}}


def test_the_line_of_a_report_names_the_folder_without_its_path() -> None:
    assert reproduction_line(plan()) == "holdfast stages=[reproduce] reproduce.run=demo-01234567"
    assert reproduction_line(plan(dir="/home/me/mine")) == "holdfast stages=[reproduce] reproduce.run=mine"


@settings(deadline=None)  # Hydra's parser takes its time where other work runs beside it
@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1))
def test_hydra_reads_the_folder_that_the_line_names(name: str) -> None:
    words = shlex.split(command(name))
    assert words[:2] == ["holdfast", "stages=[reproduce]"]
    (override,) = OverridesParser.create().parse_overrides(words[2:])
    assert (override.key_or_group, str(override.value())) == ("reproduce.run", name)
