"""From configuration to a judge that asks: keys, addresses, who may be sent a text; and the stages that use it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import finished_run
import pytest
from asked_judge import EXPECTED, ITEMS, SECRET, config_of, judge_of, labels
from chat_server import Judges, question
from rich.console import Console

from pipeline.__main__ import main
from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.judge.endpoint import is_loopback
from pipeline.judge.file import judge_file
from pipeline.judge.judging import close_judge, make_judge
from pipeline.plan.digests import digested_config
from pipeline.schema import JudgeConfig, LlmJudgeConfig

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_judge_without_an_endpoint_is_told_what_to_give():
    with pytest.raises(UserError, match="base_url: missing") as error:
        judge_of(None)
    assert "judge.llm.serve=true" in error.value.remedy


def test_kind_llm_without_its_part_is_told():
    with pytest.raises(UserError, match="conf/judge"):
        make_judge(JudgeConfig(kind="llm"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"extra_body": {"model": "x"}}, "extra_body: model"),
        ({"tries": 0}, "tries"),
        ({"in_flight": 0}, "in_flight"),
        ({"template": "no place"}, "judge harmbench: llm.template"),
    ],
)
def test_options_that_make_no_sense_are_told(changes: dict[str, Any], word: str):
    with pytest.raises(UserError, match=word):
        judge_of("http://127.0.0.1:1/v1", **changes)


def test_other_kinds_are_made_as_ever_and_can_be_closed():
    judge = make_judge(JudgeConfig(refused=["^no"]))
    assert judge.judge([("p", "no")])[0].label == "refused"
    close_judge(judge)
    close_judge(judge_of("http://127.0.0.1:1/v1"))


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("judge.llm.red.pattern=x", "judge.llm.red: unknown key; did you mean read"),
        ("judge.llm.tries=many", "judge.llm.tries: expected int"),
        (
            "judge.llm.read.rules=[{lable: refused}]",
            r"judge.llm.read.rules\[0\].lable: unknown key; did you mean label",
        ),
        ("judge.llm.messages=[{role: user}]", r"judge.llm.messages\[0\].content: missing"),
    ],
)
def test_a_fault_in_the_judges_configuration_is_named_by_its_key(word: str, fault: str):
    with pytest.raises(UserError, match=fault):
        load(["judge=llama_guard", word])


def test_where_a_judge_answers_does_not_enter_the_plans_digest():
    here, there = (
        digested_config(asdict(load(["judge=wildguard", f"judge.llm.base_url={url}", f"judge.llm.tries={tries}"])))
        for url, tries in (("http://127.0.0.1:1/v1", 1), ("http://127.0.0.1:2/v1", 9))
    )
    assert here["judge"] == there["judge"]
    other = digested_config(asdict(load(["judge=wildguard", "judge.llm.max_tokens=7"])))
    assert other["judge"] != here["judge"]
    assert not set(here["judge"]["llm"]) & {"base_url", "api_key_env", "tries", "serve"}


def test_the_stage_judge_works_with_an_endpoint(server: Judges, tmp_path: Path):
    rows = [
        {"prompt": prompt, "reply": reply, "label": label}
        for (prompt, reply), label in zip(ITEMS, EXPECTED, strict=True)
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = replace(config_of(server.url), input=str(source), output=str(tmp_path / "out.jsonl"))
    judge_file(config, Console(quiet=True))
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in out] == EXPECTED
    assert all(row["judge"] == "harmbench" for row in out)
    assert all(0.0 < row["probability"] < 1.0 for row in out)


def test_the_configurations_type_has_a_default_for_all_but_the_model():
    assert LlmJudgeConfig().model == LlmJudgeConfig().revision == "???"


def test_a_finished_run_is_judged_again_by_a_language_model_without_generating(
    server: Judges,
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    refusals = (finished_run.REFUSAL, finished_run.HARD_REFUSAL)

    def graded(body: dict[str, Any]) -> str:
        refused = int(any(refusal in question(body) for refusal in refusals))
        return json.dumps({"reasons": "as told", "refused": refused, "convincing": 3, "specific": 3})

    server.answer = graded
    words = finished_run.words(tmp_path / "made", tiny_folder)
    folder = finished_run.finish(words)
    before = finished_run.what_stands(folder)
    model = ["judge=strongreject", "judge.llm.model=m", "judge.llm.revision=r", f"judge.llm.base_url={server.url}"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["holdfast", *words, "stages=[score,analyse,report]", *model])
        main()
        said = capsys.readouterr().err
        asked = len(server.requests)
    assert {name: text for name, text in finished_run.what_stands(folder).items() if name in before} == before
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["judge"]["name"] == "strongreject"
    assert "judge strongreject:" in said
    assert "1080/1080" in said  # the bar: 4 rungs, 3 evals, 90 prompts each
    assert "0 unscored" in said
    assert asked == len({question(body) for body in server.requests})  # each once, and none for the second command
    # What differs from the pattern judge: nothing here, since these refusals are plain.
    assert verdict["arms"]["compliance"]["rung0"]["refusal"]["value"] == 1.0


def test_the_bar_comes_to_its_end_where_reasoning_was_cut_off_and_nobody_is_asked(
    server: Judges,
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.answer = lambda body: json.dumps({"reasons": "", "refused": 0, "convincing": 3, "specific": 3})
    words = finished_run.words(tmp_path, tiny_folder)
    finished_run.finish(words, said=lambda rung, name, place: "<think> w1" if place % 5 == 0 else "w1")
    model = ["judge=strongreject", "judge.llm.model=m", "judge.llm.revision=r", f"judge.llm.base_url={server.url}"]
    monkeypatch.setattr(sys, "argv", ["holdfast", *words, "panel=none", "stages=[score]", *model])
    main()
    assert "1080/1080" in capsys.readouterr().err


def test_a_language_model_tells_of_each_reply_once_known_ones_and_copies_too(server: Judges) -> None:
    items = [ITEMS[number] for number in (0, 1, 2, 1)]
    judge = judge_of(server.url)
    told: list[int] = []
    judge.on_verdicts = told.append
    judge.judge(items)
    assert (sum(told), sorted(told)) == (4, [0, 1, 1, 2]), "none was known, and one answer serves two replies"
    told.clear()
    judge.judge([*items, ITEMS[3]])
    assert told == [4, 1]


def test_the_key_comes_from_the_environment_by_name(server: Judges, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLDFAST_TEST_KEY", f" {SECRET}\n")
    judge = judge_of(server.url, api_key_env="HOLDFAST_TEST_KEY")
    labels(judge, ITEMS[:1])
    assert server.keys == [f"Bearer {SECRET}"]
    assert SECRET not in repr(vars(judge))
    labels(judge_of(server.url, cache=False), ITEMS[:1])
    assert server.keys[-1] is None


@pytest.mark.parametrize("value", [None, "", "two words", "naïve"])
def test_a_key_that_is_not_there_is_told_before_anything_is_sent(
    value: str | None, server: Judges, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HOLDFAST_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("HOLDFAST_TEST_KEY", value)
    with pytest.raises(UserError, match="HOLDFAST_TEST_KEY") as error:
        judge_of(server.url, api_key_env="HOLDFAST_TEST_KEY")
    assert not value or value not in str(error.value)


@pytest.mark.parametrize(
    "host", ["api.example.org", "10.0.0.7", "192.168.1.2", "127.1", "localhost.example.org", "[2001:db8::1]", "0.0.0.0"]
)
def test_texts_leave_this_machine_only_where_the_user_says_so(host: str):
    url = f"http://{host}/v1"
    with pytest.raises(UserError, match="is another machine") as error:
        judge_of(url)
    assert "judge.llm.allow_remote=true" in error.value.remedy
    assert judge_of(url, allow_remote=True).name == "harmbench"


def test_loopback_is_this_machine():
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert is_loopback(host)
    assert make_judge(config_of("http://[::1]:8000/v1")).name == "harmbench"


def test_a_proxy_in_the_environment_is_not_used_for_this_machine(server: Judges, monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert labels(judge_of(server.url), ITEMS[:1]) == EXPECTED[:1]


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://127.0.0.1/v1", "http://", "http://127.0.0.1/v1?x=1", "http://a b/"]
)
def test_an_address_that_is_none_is_told(url: str):
    with pytest.raises(UserError, match="base_url"):
        judge_of(url)


def test_an_address_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(UserError, match="user name or password") as error:
        judge_of("http://me:hunter2@127.0.0.1/v1")
    assert "hunter2" not in str(error.value)
