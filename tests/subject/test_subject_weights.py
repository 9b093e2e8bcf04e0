"""Which safetensors files of a model folder are its weights: those that transformers loads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.errors import UserError
from pipeline.subject.weights import held_parameters, matmul_parameters, safetensors_shapes

INDEX = "model.safetensors.index.json"


def save(folder: Path, file: str, **shapes: tuple[int, ...]) -> None:
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / file)


def index(folder: Path, **files: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": files}))


def test_the_index_names_the_files(tmp_path: Path) -> None:
    save(tmp_path, "model-00001-of-00002.safetensors", a=(2, 3))
    save(tmp_path, "model-00002-of-00002.safetensors", b=(4, 5), norm=(7,))
    save(tmp_path, "consolidated.safetensors", other_a=(2, 3), other_b=(4, 5))
    index(
        tmp_path,
        a="model-00001-of-00002.safetensors",
        b="model-00002-of-00002.safetensors",
        norm="model-00002-of-00002.safetensors",
    )
    assert safetensors_shapes(tmp_path) == {"a": (2, 3), "b": (4, 5), "norm": (7,)}
    assert matmul_parameters(tmp_path) == 26


def test_one_file_of_all_weights_comes_before_all_others(tmp_path: Path) -> None:
    save(tmp_path, "model.safetensors", a=(2, 3))
    save(tmp_path, "consolidated-00001.safetensors", other_a=(2, 3))
    save(tmp_path, "old-shard.safetensors", b=(9, 9))
    index(tmp_path, b="old-shard.safetensors")  # left over: transformers does not look at it
    assert matmul_parameters(tmp_path) == 6


def test_without_either_all_but_a_second_copy_count(tmp_path: Path) -> None:
    save(tmp_path, "consolidated.safetensors", other_a=(2, 3))
    assert matmul_parameters(tmp_path) == 6, "it is all there is"
    save(tmp_path, "part-1.safetensors", a=(2, 2))
    save(tmp_path, "part-2.safetensors", b=(1, 2))
    assert matmul_parameters(tmp_path) == 6


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": {"a": "gone.safetensors"}}'])
def test_an_index_that_cannot_be_followed_is_told(text: str, tmp_path: Path) -> None:
    save(tmp_path, "model-00001-of-00001.safetensors", a=(2, 3))
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(UserError, match=r"subject\.path: .* cannot be read") as caught:
        matmul_parameters(tmp_path)
    assert caught.value.remedy


ROUTED = {f"model.layers.0.mlp.experts.{n}.{part}.weight": (4, 6) for n in range(8) for part in ("up", "down")}
REST = {
    "model.embed_tokens.weight": (100, 6),
    "lm_head.weight": (100, 6),
    "model.layers.0.self_attn.q_proj.weight": (6, 6),
    "model.layers.0.mlp.gate.weight": (8, 6),
    "model.layers.0.mlp.shared_experts.up_proj.weight": (5, 6),
    "model.layers.0.norm.weight": (6,),
}
DENSE = 100 * 6 + 6 * 6 + 8 * 6 + 5 * 6
QWEN3_MOE = {"num_experts": 8, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("config", "routed", "share"),
    [
        (QWEN3_MOE, ROUTED, (2, 8)),
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, ROUTED, (2, 8)),  # Mixtral
        ({"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2}, ROUTED, (2, 8)),  # DeepSeek
        ({"text_config": {"num_local_experts": 8, "num_experts_per_tok": 1}}, ROUTED, (1, 8)),  # Llama 4
        ({"ffn_config": {"moe_num_experts": 8, "moe_top_k": 4}}, ROUTED, (4, 8)),  # DBRX
        (
            {"num_local_experts": 8, "experts_per_token": 2},  # gpt-oss: a tensor of all experts, and its bias
            {"model.layers.0.mlp.experts.gate_up_proj": (8, 6, 8), "model.layers.0.mlp.experts.down_proj_bias": (8, 6)},
            (2, 8),
        ),
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, {"a.input_linear.weight": (8, 6, 8)}, (2, 8)),  # Granite
        ({}, ROUTED, (1, 1)),  # not said: all are counted
        ({"num_experts": 8}, ROUTED, (1, 1)),
        ({"num_experts": None, "num_experts_per_tok": None}, ROUTED, (1, 1)),
    ],
)
def test_of_routed_experts_the_share_counts_that_a_token_is_sent_to(
    config: dict[str, Any], routed: dict[str, tuple[int, ...]], share: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    save(tmp_path, "model.safetensors", **REST, **routed)
    all_routed = sum(int(np.prod(shape)) for shape in routed.values())
    assert matmul_parameters(tmp_path) == DENSE + all_routed * share[0] // share[1]
    assert held_parameters(tmp_path) == DENSE + all_routed


def test_a_model_without_experts_counts_whole_whatever_its_shapes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"top_k": 50, "model_type": "llama"}))
    save(tmp_path, "model.safetensors", **REST, conv=(6, 1, 4))
    assert matmul_parameters(tmp_path) == held_parameters(tmp_path) == DENSE + 24


INNER = {"h.0.attn.weight": (6, 6)}


@pytest.mark.parametrize(
    ("look_up", "output"),
    [
        ("gpt_neox.embed_in.weight", "embed_out.weight"),
        ("gpt_neox.embed_in.weight", "lm_head.weight"),
        ("transformer.wte.weight", "lm_head.weight"),
        ("wte.weight", "lm_head.weight"),
        ("transformer.word_embeddings.weight", "lm_head.weight"),
        ("model.language_model.embed_tokens.weight", "lm_head.weight"),
        ("model.decoder.embed_tokens.weight", "proj_out.weight"),
        ("biogpt.embed_tokens.weight", "output_projection.weight"),
        ("model.tok_embeddings.weight", "output.weight"),
        ("backbone.embeddings.weight", "lm_head.weight"),
    ],
)
def test_an_embedding_is_a_look_up_unless_the_output_shares_it(look_up: str, output: str, tmp_path: Path) -> None:
    save(tmp_path, "model.safetensors", **{look_up: (100, 6)}, **INNER)
    assert matmul_parameters(tmp_path) == 636, "shared: it is the output's product"
    save(tmp_path, "model.safetensors", **{look_up: (100, 6), output: (100, 6)}, **INNER)
    assert matmul_parameters(tmp_path) == held_parameters(tmp_path) == 636


def test_positions_masks_and_other_senses_take_part_in_no_product(tmp_path: Path) -> None:
    others: dict[str, tuple[int, ...]] = {
        "transformer.wpe.weight": (64, 6),
        "model.decoder.embed_positions.weight": (64, 6),
        "bert.embeddings.token_type_embeddings.weight": (2, 6),
        "model.embed_tokens_per_layer.weight": (100, 12),
        "h.0.attn.bias": (1, 1, 64, 64),  # the causal mask, in older files of GPT-2 and Pythia
        "gpt_neox.layers.0.attention.bias": (1, 1, 64, 64),
        "model.vision_tower.encoder.layers.0.mlp.fc1.weight": (6, 6),
        "model.visual.blocks.0.mlp.fc1.weight": (6, 6),
        "model.multi_modal_projector.mm_input_projection_weight": (6, 6),
        "model.audio_tower.layers.0.weight": (6, 6),
        "model.embed_vision.embedding_projection.weight": (6, 6),
    }
    save(tmp_path, "model.safetensors", **others, **INNER, **{"wte.weight": (100, 6)})
    assert matmul_parameters(tmp_path) == 636
