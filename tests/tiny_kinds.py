"""Tiny random subjects of other architectures than the Llama of `tiny`, each saved with the same tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny import save_tiny_subject

SHAPE = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 256}
MLP = {"intermediate_size": 128, "num_key_value_heads": 2}
GPT = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}
# Of 3 layers the first is dense, so that a mixture has all kinds of linear layers.
MIXTURE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [0]}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def _multimodal(**tokens: Any) -> Any:
    import transformers

    text = {**SHAPE, **MLP, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16, **tokens}
    return transformers.Gemma3Config(
        text_config=text,
        vision_config={**VISION, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=3,
        boi_token_index=2,
        eoi_token_index=4,
    )


def _of(name: str, **shape: Any) -> Callable[..., Any]:
    def config(**tokens: Any) -> Any:
        import transformers

        return getattr(transformers, f"{name}Config")(**{**shape, **tokens})

    return config


KINDS: dict[str, Callable[..., Any]] = {
    "llama": _of("Llama", **SHAPE, **MLP, tie_word_embeddings=False),
    "llama_tied": _of("Llama", **SHAPE, **MLP, tie_word_embeddings=True),
    "gpt_neox": _of("GPTNeoX", **SHAPE, intermediate_size=128, tie_word_embeddings=False),
    "gpt2": _of("GPT2", **GPT),
    "gptj": _of("GPTJ", **GPT, rotary_dim=8),
    "falcon": _of("Falcon", **SHAPE, tie_word_embeddings=False),
    "bloom": _of("Bloom", hidden_size=64, n_layer=3, n_head=4),
    "opt": _of("OPT", **SHAPE, ffn_dim=128, word_embed_proj_dim=64),
    "qwen3_moe": _of("Qwen3Moe", **SHAPE, **MLP, **MIXTURE, head_dim=32),
    "gemma3": _multimodal,
}


def save_tiny_kind(kind: str, folder: Path) -> None:
    """Save a random model of one of `KINDS` with tokenizer and template, safetensors only."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_tiny_subject(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = KINDS[kind](
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.data.mul_(3.0)
        model.save_pretrained(folder)
