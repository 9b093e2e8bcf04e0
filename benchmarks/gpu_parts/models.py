"""Random weights in the shape of real models: they train and serve at the real speed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu_parts.device import free
from benchmarks.shapes import QWEN_05B, QWEN_7B, QWEN_15B, Shape
from pipeline.records import ADAPTER_FILE

SHAPES: Final = {"0.5B": QWEN_05B, "1.5B": QWEN_15B, "7B": QWEN_7B}
TINY: Final = Shape("a tiny shape", 2, 64, 2, 1, 32, 128, 512, tied=True, query_key_value_bias=True)  # --short
SUBJECT_50M: Final = Shape("50 M parameters", 10, 640, 10, 10, 64, 1728, 640, tied=True, query_key_value_bias=True)


def config_of(shape: Shape, *, positions: int = 32768) -> Any:
    """Return transformers' configuration of a Qwen2 of this shape."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=positions,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        architectures=["Qwen2ForCausalLM"],
    )


def make_model(shape: Shape, device: str, dtype: str, attention: str | None = None) -> Any:
    """Return a causal LM of this shape with random weights, made on the device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config_of(shape), dtype=getattr(torch, dtype), attn_implementation=attention
        )
    return model.to(device)


def save_config(shape: Shape, folder: Path, dtype: str) -> Path:
    """Write a model folder without weights or tokenizer, for an engine that makes up its own (`load_format=dummy`)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(shape)
    config.dtype = dtype
    config.save_pretrained(folder)
    return folder


def save_subject(shape: Shape, folder: Path, device: str, dtype: str) -> Shape:
    """Write a whole model folder: weights of this shape, and the organism's tokenizer with its vocabulary.

    Returns:
        The shape with the tokenizer's vocabulary.
    """
    import torch

    from benchmarks.common import organism_tokenizer

    tokenizer = organism_tokenizer()
    shape = replace(shape, vocabulary=len(tokenizer))
    torch.manual_seed(0)
    model = make_model(shape, device, dtype)
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    free(device)  # an engine in another process comes next
    return shape


def save_adapters(shape: Shape, root: Path, count: int, rank: int, dtype: str = "bfloat16") -> dict[str, Path]:
    """Write `count` PEFT adapters on all linear layers with small random weights; return folders by name.

    PEFT itself names the tensors, on a model without memory (`meta`), so that nothing of the model's size is needed.
    """
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    from pipeline.arms.lora import adapter_on
    from pipeline.schema import LoraConfig

    adapted = adapter_on(make_model(shape, "meta", dtype), LoraConfig(rank=rank, alpha=2 * rank))
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    chance = torch.Generator().manual_seed(1)
    folders = {}
    for number in range(count):
        folder = root / f"adapter-{number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        made = {name: torch.randn(like.shape, generator=chance) * 0.05 for name, like in state.items()}
        save_file({name: one.to(getattr(torch, dtype)) for name, one in made.items()}, folder / ADAPTER_FILE)
        config = adapted.peft_config["default"].to_dict()
        config.update(inference_mode=True, target_modules=sorted(config["target_modules"]))
        (folder / "adapter_config.json").write_text(json.dumps(config, default=str), encoding="utf-8")
        folders[folder.name] = folder
    return folders
