"""What cannot be trained, or not be served with adapters, is told of the model folder before anything is spent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.schema import SubjectConfig
from pipeline.subject.folder import model_folder
from pipeline.subject.kind import quantisation, require_served_by_name, require_trainable
from pipeline.subject.subject import open_subject

# As the config.json of real models has it, cut to what tells one kind from another.
PLAIN: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "quantization_config": None},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "sliding_window": None},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]},
    "qwen3_moe": {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 128},
    "gemma3_text": {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]},
    "gemma3": {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {"model_type": "gemma3_text"},
    },
    "mistral": {"model_type": "mistral", "architectures": ["MistralForCausalLM"]},
    "mixtral": {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]},
    "gpt_oss": {"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"]},
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
    "merged": {"model_type": "llama", "architectures": ["MistralForCausalLM"]},
    "qwen3_5_text": {"model_type": "qwen3_5_text", "architectures": ["Qwen3_5ForCausalLM"]},
    "none named": {"model_type": "llama"},
    "null": {"model_type": "llama", "architectures": None},
    "not known": {"model_type": "made_here", "architectures": ["MadeHereForConditionalGeneration"]},
}
WRAPPED: dict[str, dict[str, Any]] = {
    "qwen3_5": {
        "model_type": "qwen3_5",
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "text_config": {"model_type": "qwen3_5_text"},
    },
    "llama4": {
        "model_type": "llama4",
        "architectures": ["Llama4ForConditionalGeneration"],
        "text_config": {"model_type": "llama4_text", "num_local_experts": 16},
    },
}
NOT_CAUSAL = {
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "t5": "T5ForConditionalGeneration",
}
QUANTISED: dict[str, dict[str, Any]] = {
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    "awq": {"quantization_config": {"quant_method": "awq"}},
    "fp8": {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
    "mxfp4": {"quantization_config": {"quant_method": "mxfp4"}},
    "compressed-tensors": {"text_config": {"quantization_config": {"quant_method": "compressed-tensors"}}},
    "compression_config": {"compression_config": {"config_groups": {}}},
}


def folder_of(tmp_path: Path, config: dict[str, Any]) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("vllm", ["0.26.0", "0.33.0", None])
def test_a_plain_model_passes(name: str, vllm: str | None, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, PLAIN[name])
    require_trainable(folder)
    require_served_by_name(folder, vllm)


@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_an_architecture_without_a_causal_language_model_is_told(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"model_type": name, "architectures": [NOT_CAUSAL[name]]})
    with pytest.raises(UserError, match="no causal language model") as told:
        require_trainable(folder)
    assert f"for model_type {name!r} ({NOT_CAUSAL[name]})" in told.value.what
    assert told.value.remedy


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapper_whose_adapters_vllm_would_leave_out_is_told_unless_it_finds_them(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, WRAPPED[name])
    require_trainable(folder)
    for old in ("0.26.0", "0.32.1", "0.32.0+cpu"):
        with pytest.raises(UserError, match=rf"holds a multimodal model .* vLLM {old[:4]}\S+ would serve") as told:
            require_served_by_name(folder, old)
        assert "vLLM 0.33 or newer" in told.value.remedy
    for new in ("0.33.0", "0.33.0rc1", "1.0", "a build of our own", None):
        require_served_by_name(folder, new)


@pytest.mark.parametrize("method", QUANTISED)
def test_quantised_weights_are_told_by_their_method(method: str, tmp_path: Path) -> None:
    assert quantisation(QUANTISED[method]) == method
    folder = folder_of(tmp_path, {**PLAIN["llama"], **QUANTISED[method]})
    with pytest.raises(UserError, match=f"are quantised .{method}.") as told:
        require_trainable(folder)
    assert "16-bit weights" in told.value.remedy


def test_weights_that_another_file_calls_quantised_are_told_too(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, PLAIN["llama"])
    (folder / "hf_quant_config.json").write_text("{}")
    with pytest.raises(UserError, match="hf_quant_config"):
        require_trainable(folder)


def test_a_quantised_subject_is_not_opened_but_a_judge_may_be_quantised(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | QUANTISED["fp8"]))
    asked = SubjectConfig("mine", str(folder), dtype="float32")
    with pytest.raises(UserError, match="are quantised"):
        open_subject(asked)
    assert model_folder(asked) == folder.resolve()
