"""`eval=inspect` on the command line, and what a task's process gets of the user's environment. Without inspect_ai."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.inspectai.process import environment, require_inspect
from pipeline.inspectai.task import inspect_tasks
from pipeline.plan.digests import digested_config
from pipeline.schema import EvalConfig

BESIDE = "eval=[refusal,capability,inspect]"


def told(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        load(words)
    return caught.value.what


def test_the_short_form_names_the_task_of_the_group() -> None:
    config = load([BESIDE, "task=inspect_evals/xstest"])
    assert config.evals["inspect"].task == "inspect_evals/xstest"
    assert (config.evals["inspect"].kind, config.evals["inspect"].role) == ("inspect", "shown")


def test_a_file_and_its_task_can_be_named_in_full() -> None:
    config = load([BESIDE, "evals.inspect.task=some/file.py@words", "+evals.inspect.task_args.count=3"])
    assert config.evals["inspect"].task == "some/file.py@words"
    assert config.evals["inspect"].task_args == {"count": 3}


def test_an_inspect_task_may_stand_alone_and_then_needs_no_role() -> None:
    assert set(load(["eval=inspect", "task=a.py@b"]).evals) == {"inspect"}
    assert "0 have role refusal" in told("eval=[capability]")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["task=a.py"], "only an eval of kind inspect reads it"),
        ([BESIDE], "evals.inspect.task: missing"),
        ([BESIDE, "task=a.py", "evals.inspect.rule=upside_down"], "evals.inspect.rule: 'upside_down' is unknown"),
        ([BESIDE, "task=a.py", "+evals.inspect.prefill.depths=[1]"], "evals.inspect.prefill: an Inspect task writes"),
        ([BESIDE, "task=a.py", "evals.inspect.kind=inspekt"], "'inspekt' is unknown; use one of"),
    ],
)
def test_what_makes_no_sense_is_told(words: list[str], fault: str) -> None:
    assert fault in told(*words)


def test_two_evals_that_claim_one_role_are_told() -> None:
    assert "2 have role refusal" in told(BESIDE, "task=a.py", "evals.inspect.role=refusal")


def test_where_a_task_lies_does_not_enter_the_digest() -> None:
    def evals(*words: str) -> object:
        from dataclasses import asdict

        return digested_config(asdict(load([BESIDE, *words])))

    assert evals("task=here/a.py@b") == evals("evals.inspect.task=there/a.py@b")
    assert evals("task=a.py@b") != evals("task=a.py@b", "evals.inspect.max_tokens=9")


def test_without_inspect_ai_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"evals.inspect needs inspect_ai") as caught:
        inspect_tasks({"inspect": EvalConfig(kind="inspect", task="a.py@b", role="shown")})
    assert "make env" in caught.value.remedy
    with pytest.raises(UserError, match=r"stages=\[export\] needs inspect_ai"):
        require_inspect("stages=[export]")


def test_without_an_inspect_eval_inspect_ai_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert inspect_tasks({"refusal": EvalConfig(kind="refusal", role="refusal")}) == {}


def test_a_file_that_is_missing_is_told_before_anything_starts(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra `inspect`)")
    config = EvalConfig(kind="inspect", task=f"{tmp_path / 'gone.py'}@b", role="shown")
    with pytest.raises(UserError, match=r"evals.mine.task: .*gone.py is missing"):
        inspect_tasks({"mine": config})


KEYS = ("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "INSPECT_TELEMETRY", "HTTPS_PROXY")


def test_a_task_gets_no_key_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.setenv(key, "canary-of-the-user")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    given = environment(tmp_path, {"HOLDFAST_API_KEY": "ours"})
    assert "canary-of-the-user" not in given.values()
    assert given["HOLDFAST_API_KEY"] == "ours"
    assert {given[key] for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")} == {"1"}
    assert {given[key] for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")} == {"http://127.0.0.1:9"}
    for key in ("INSPECT_LOG_DIR", "INSPECT_TRACE_FILE", "XDG_DATA_HOME"):
        assert Path(given[key]).is_relative_to(tmp_path)


def test_only_the_user_opens_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.setenv(key, f"value of {key}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    given = environment(tmp_path, {})
    assert not {"HF_DATASETS_OFFLINE", "OPENAI_API_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"} & set(given)
    assert given["HF_TOKEN"] == "value of HF_TOKEN"


def test_no_stage_imports_inspect_ai_on_its_way() -> None:
    names = "pipeline.__main__, pipeline.generate.stage, pipeline.score, pipeline.conclude, pipeline.inspectai.export"
    program = f"import sys; sys.modules['inspect_ai'] = None; import {names}"  # None: its import fails
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
