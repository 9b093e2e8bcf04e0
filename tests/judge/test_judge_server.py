"""What a judge that Holdfast serves itself takes of the subject's server: the machine's settings, not the model's."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from asked_judge import config_of

from evals.judges.llm_text import Template
from pipeline.judge import server as judge_server
from pipeline.judge.endpoint import MODEST
from pipeline.judge.server import JudgeServer
from pipeline.schema import ServeConfig

pytestmark = pytest.mark.usefixtures("own_cache")

# How the subject's weights are served, which says nothing of another model's.
SUBJECTS = {
    "attention_backend": "FLASHINFER",
    "max_num_batched_tokens": 4096,
    "extra_args": ["--quantization=fp8"],
    "port": 8123,
    "max_model_len": 77,
}
MACHINES = {
    **{"device": "cpu", "tensor_parallel_size": 2, "data_parallel_size": 3, "gpu_memory_utilization": 0.5},
    **{"kv_cache_gib": 3, "max_num_seqs": 17, "enforce_eager": True, "start_timeout_s": 9.0, "hung_after_s": 8.0},
}


def test_a_judge_is_not_served_by_what_was_chosen_for_the_subject(tiny_folder: Path) -> None:
    llm = config_of(None, serve=True, path=str(tiny_folder), max_model_len=512).llm
    assert llm is not None
    given = replace(ServeConfig(), **SUBJECTS, **MACHINES)
    served = JudgeServer(llm, given, Template(llm))._serve
    default = ServeConfig()
    assert {name: getattr(served, name) for name in SUBJECTS} == {
        **{name: getattr(default, name) for name in SUBJECTS},
        "max_model_len": 512,
    }
    assert {name: getattr(served, name) for name in MACHINES} == MACHINES
    assert given.extra_args == ["--quantization=fp8"], "the subject keeps its own"
    rest = {field.name for field in fields(ServeConfig)} - {*SUBJECTS, *MACHINES}
    # Of adapters, which a judge has none of, of requests, which `judge.llm` has its own of, and of what is trained.
    assert rest == {"max_loras", "cpu_lora_by_adapter", "request_timeout_s", "batch_size", "in_flight", "rehearse"}


@pytest.mark.parametrize(("device", "wanted"), [("cuda", 51), ("cpu", MODEST)])
def test_on_a_gpu_each_seat_of_the_judges_engine_has_a_request(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, wanted: int
) -> None:
    monkeypatch.setattr(judge_server, "resolve_device", lambda _: device)
    llm = config_of(None, serve=True, path=str(tiny_folder)).llm
    assert llm is not None
    assert JudgeServer(llm, replace(ServeConfig(), **MACHINES), Template(llm)).at_once() == wanted
