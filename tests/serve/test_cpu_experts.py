"""vLLM's own choice of the experts' kernels, with adapters on, where there is no Triton."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.schema import ServeConfig
from pipeline.serve import cpu_experts, vllm_server
from pipeline.serve.device import environment


def test_the_choice_is_made_as_without_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    def select(moe_config: Any) -> str:
        return "triton" if moe_config.is_lora_enabled else "cpu"

    method = ModuleType(cpu_experts.METHOD)
    setattr(method, cpu_experts.CHOICE, select)
    monkeypatch.setitem(sys.modules, cpu_experts.METHOD, method)
    assert cpu_experts.install()
    assert getattr(method, cpu_experts.CHOICE)(SimpleNamespace(is_lora_enabled=True)) == "cpu"


def test_another_vllm_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, cpu_experts.METHOD, ModuleType(cpu_experts.METHOD))
    assert not cpu_experts.install()
    monkeypatch.setitem(sys.modules, cpu_experts.METHOD, None)  # no such module
    assert not cpu_experts.install()


@pytest.mark.parametrize(("device", "experts", "told"), [("cpu", 8, "1"), ("cpu", 0, None), ("cuda", 8, None)])
def test_it_is_for_mixtures_on_a_cpu_alone(device: str, experts: int, told: str | None, tmp_path: Path) -> None:
    stated = {"num_experts": experts, "num_experts_per_tok": 2} if experts else {}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    subject: Any = SimpleNamespace(path=tmp_path, dtype="float32")
    assert environment(subject, ServeConfig(), device).get(vllm_server.EXPERTS) == told
