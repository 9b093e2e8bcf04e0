"""The planner of large reviews: its counts against published ones and against small models that are really built."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale import BYTES, Machine, Review, activations, plan, serving, table, training
from benchmarks.shapes import LLAMA_70B, MOE_1T, QWEN_05B, QWEN_7B, QWEN_15B, Experts, Latent, Shape
from pipeline.flops import training_flops

MACHINE, REVIEW = Machine(), Review()
SMALL = Shape("small", 3, 64, 4, 2, 16, 160, 500)
SMALL_QWEN = replace(SMALL, tied=True, query_key_value_bias=True)
SMALL_LATENT = Shape(
    "small latent",
    *(3, 64, 4, 4, 24, 160, 500),
    latent=Latent(32, 24, 16, 8, 12),
    experts=Experts(6, 2, 1, 48, dense_layers=1),
)


@pytest.mark.parametrize(
    ("shape", "published"),
    [(LLAMA_70B, 70_553_706_496), (QWEN_05B, 494_032_768), (QWEN_15B, 1_543_714_304), (QWEN_7B, 7_615_616_512)],
)
def test_parameters_are_the_published_ones(shape: Shape, published: int) -> None:
    assert shape.parameters() == published


def test_the_mixture_is_within_2_percent_of_what_is_published() -> None:
    assert MOE_1T.parameters() == pytest.approx(1.04e12, rel=0.02)
    assert MOE_1T.parameters(active=True) == pytest.approx(32e9, rel=0.02)


def built(shape: Shape):
    from transformers import (
        DeepseekV3Config,
        DeepseekV3ForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    common = {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "intermediate_size": shape.feed_forward,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
    }
    torch.manual_seed(0)
    if shape.latent is not None and shape.experts is not None:
        low, e = shape.latent, shape.experts
        return DeepseekV3ForCausalLM(
            DeepseekV3Config(
                **common,
                q_lora_rank=low.query_rank,
                kv_lora_rank=low.key_value_rank,
                qk_nope_head_dim=low.nope,
                qk_rope_head_dim=low.rope,
                v_head_dim=low.value,
                n_routed_experts=e.count,
                num_experts_per_tok=e.active,
                n_shared_experts=e.shared,
                moe_intermediate_size=e.width,
                first_k_dense_replace=e.dense_layers,
                n_group=1,
                topk_group=1,
            )
        )
    if shape.query_key_value_bias:
        return Qwen2ForCausalLM(Qwen2Config(**common))
    return LlamaForCausalLM(LlamaConfig(**common))


@pytest.mark.parametrize("shape", [SMALL, SMALL_QWEN, SMALL_LATENT])
def test_parameters_are_those_of_a_model_that_is_built(shape: Shape) -> None:
    assert shape.parameters() == sum(p.numel() for p in built(shape).parameters())


@pytest.mark.parametrize("shape", [SMALL, SMALL_QWEN])
def test_an_adapters_size_is_what_peft_makes_and_saves(shape: Shape, tmp_path) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(built(shape), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert shape.lora(4) == adapted.get_nb_trainable_parameters()[0]
    adapted.save_pretrained(tmp_path)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert size == pytest.approx(4 * shape.lora(4), rel=0.15)  # float32, and a header with names


def test_the_cache_is_what_a_forward_pass_leaves() -> None:
    model = built(SMALL)
    cache = model(torch.arange(10)[None], use_cache=True).past_key_values
    left = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert left == 10 * SMALL.cache_per_token()


def test_flops_are_counted_as_torch_counts_them() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    wide = replace(SMALL, hidden=256, head=64, feed_forward=640, vocabulary=2000)
    model = built(wide)
    tokens = torch.arange(16)[None]
    with FlopCounterMode(display=False) as counter:
        model(tokens)
    # Attention's own products, 4 s^2 h a layer, are left out of 2 N D; at this length they are small.
    assert counter.get_total_flops() == pytest.approx(2 * wide.parameters(active=True) * 16, rel=0.06)


def test_training_time_rests_on_the_ledgers_own_formula() -> None:
    one = training(QWEN_05B, MACHINE, REVIEW, 1)
    assert one is not None
    assert one.way == "one device"
    flops = training_flops(QWEN_05B.parameters(active=True), 0, REVIEW.batch * REVIEW.length * REVIEW.steps)
    assert one.seconds == pytest.approx(flops / (MACHINE.flops * MACHINE.training_share))


def test_what_does_not_fit_is_said_and_not_estimated() -> None:
    assert training(MOE_1T, MACHINE, REVIEW, 8) is None
    assert serving(MOE_1T, MACHINE, REVIEW, 8) is None
    assert "training and serving: does not fit" in table([MOE_1T], MACHINE, REVIEW, [8])


def test_the_weights_of_70_b_need_two_devices_and_room() -> None:
    serve = serving(LLAMA_70B, MACHINE, REVIEW, 8)
    assert serve is not None
    assert serve.group * MACHINE.usable * MACHINE.memory > LLAMA_70B.parameters() * BYTES
    train = training(LLAMA_70B, MACHINE, REVIEW, 8)
    assert train is not None
    assert train.memory <= MACHINE.usable * MACHINE.memory
    assert train.memory * train.group > LLAMA_70B.parameters() * BYTES


@settings(max_examples=30, deadline=None)
@given(
    doublings=st.integers(0, 9),
    steps=st.integers(1, 2048),
    tasks=st.integers(1, 40),
    shape=st.sampled_from([QWEN_05B, QWEN_7B, LLAMA_70B, MOE_1T]),
)
def test_more_devices_are_never_slower_and_more_work_never_cheaper(
    doublings: int, steps: int, tasks: int, shape: Shape
) -> None:
    review = Review(tasks=tasks, steps=steps)
    few, many = plan(shape, MACHINE, review, 1 << doublings), plan(shape, MACHINE, review, 2 << doublings)
    if few.training is None or few.serving is None:
        return
    assert many.train_hours <= few.train_hours * (1 + 1e-9)
    assert many.serve_hours <= few.serve_hours * (1 + 1e-9)
    more = plan(shape, MACHINE, replace(review, steps=2 * steps), 1 << doublings)
    assert more.usd >= few.usd


def test_activations_grow_with_tokens_and_keep_a_layers_input() -> None:
    assert activations(QWEN_7B, 4096) == pytest.approx(2 * activations(QWEN_7B, 2048))
    assert activations(QWEN_7B, 1) > BYTES * QWEN_7B.hidden * QWEN_7B.layers
