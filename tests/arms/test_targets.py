"""What an adapter changes, on models of real architectures; and climbs of a mixture of experts by real TRL."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_lora
from test_lora import KilledError, Run
from tiny import TinySubject
from tiny_kinds import save_tiny_kind

from pipeline.arms.lora import adapter_on
from pipeline.arms.targets import left_out, require_served
from pipeline.errors import InstrumentError
from pipeline.schema import LoraConfig, SubjectConfig
from pipeline.subject.subject import open_subject

SHORT = replace(test_lora.TRAINING, schedule="constant", max_steps=3)
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
DENSE = {"gate_proj", "up_proj", "down_proj"}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> TinySubject:
    folder = tmp_path_factory.mktemp("qwen3_moe")
    save_tiny_kind("qwen3_moe", folder)
    return TinySubject(folder, open_subject(SubjectConfig("mixture", str(folder), dtype="float32")))


def adapted(model: Any, config: LoraConfig) -> tuple[set[str], Any]:
    """Return the modules that an adapter changes, and its configuration."""
    on = adapter_on(model, config)
    names = {name.partition(".lora_")[0] for name, weight in on.named_parameters() if weight.requires_grad}
    settings = on.peft_config["default"]
    on.unload()
    return {name.removeprefix("base_model.model.") for name in names}, settings


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_of_a_mixture_attention_and_dense_layers_are_adapted_but_no_expert_and_no_router(
    dropout: float, mixture: TinySubject
) -> None:
    names, settings = adapted(mixture.subject.load_model("cpu"), LoraConfig(rank=4, dropout=dropout))
    assert names == {
        *(f"model.layers.{layer}.self_attn.{name}" for layer in range(3) for name in ATTENTION),
        *(f"model.layers.0.mlp.{name}" for name in DENSE),  # the first layer has no experts
    }
    assert not settings.target_parameters
    assert not settings.rank_pattern


def test_names_of_an_experts_parts_are_those_of_dense_layers_alone(mixture: TinySubject) -> None:
    names, settings = adapted(mixture.subject.load_model("cpu"), LoraConfig(target_modules=["q_proj", "up_proj"]))
    assert {name for name in names if "mlp" in name} == {"model.layers.0.mlp.up_proj"}
    assert not settings.target_parameters


def test_linear_experts_and_routers_are_left_out_by_their_names() -> None:
    import torch

    def linear() -> Any:
        return torch.nn.Linear(4, 4)

    layer = torch.nn.ModuleDict({"q_proj": linear(), "gate": linear(), "router": linear(), "shared_expert": linear()})
    layer["experts"] = torch.nn.ModuleList([torch.nn.ModuleDict({"up_proj": linear()})])
    dense = torch.nn.ModuleDict({"gate": linear()})  # no experts beside it: no router
    found = left_out(torch.nn.ModuleDict({"mixed": layer, "dense": dense}))
    assert set(found) == {"mixed.gate", "mixed.router", "mixed.experts.0.up_proj"}


def test_of_a_multimodal_model_the_text_model_alone_is_adapted(tmp_path: Path) -> None:
    save_tiny_kind("gemma3", tmp_path)
    model = open_subject(SubjectConfig("seeing", str(tmp_path), dtype="float32")).load_model("cpu")
    assert any("vision_tower" in name for name, _ in model.named_modules()), "it is loaded whole"
    names, _ = adapted(model, LoraConfig())
    assert {name.rpartition(".")[2] for name in names} == ATTENTION | DENSE
    assert all("language_model" in name for name in names)
    assert len(names) == 3 * 7


def test_an_adapter_of_single_tensors_is_refused_before_it_is_trained() -> None:
    class Settings:
        target_parameters = ("gate_up_proj",)

    with pytest.raises(InstrumentError, match=r"adapts single tensors \(gate_up_proj\)"):
        require_served(Settings())


# --- Climbs


def stated(model: Any) -> Any:
    return copy.deepcopy([vars(model.config), vars(model.generation_config)])


def test_a_mixture_climbs_again_and_again_as_each_time_in_a_fresh_process(tmp_path: Path, mixture: TinySubject) -> None:
    load: Callable[[], Any] = lambda: mixture.subject.load_model("cpu")  # noqa: E731
    fresh = [Run(tmp_path / f"fresh{seed}", mixture, load(), SHORT, seed=seed) for seed in (1, 2)]
    model = load()
    before = stated(model)
    shared = [Run(tmp_path / f"shared{seed}", mixture, model, SHORT, seed=seed) for seed in (1, 2)]
    for run in [*fresh, *shared]:
        assert run.climb() == "max_steps"
    assert [run.shas() for run in shared] == [run.shas() for run in fresh]
    assert stated(model) == before, "TRL turned the router's record on"


def test_a_mixtures_climb_goes_on_after_a_kill_with_the_same_weights(tmp_path: Path, mixture: TinySubject) -> None:
    def kill(dose: Any) -> None:
        if dose.steps == 3:
            raise KilledError

    model = mixture.subject.load_model("cpu")
    whole = Run(tmp_path / "whole", mixture, model, SHORT)
    whole.climb()
    cut = Run(tmp_path / "cut", mixture, model, SHORT, on_step=kill)
    with pytest.raises(KilledError):
        cut.climb()
    cut.on_step = lambda dose: None
    assert cut.climb() == "max_steps"
    assert cut.shas() == whole.shas()
    settings = json.loads((cut.root / cut.rungs[-1].path / "adapter_config.json").read_text())
    assert settings["rank_pattern"] == {}
    assert not settings["target_parameters"]
