"""A tiny random subject: a Llama of 2 layers with a byte-level tokenizer, saved as a user would have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

PAD, END = "<pad>", "<end>"
ROLES = ("<system>", "<user>", "<assistant>")
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<' + message['role'] + '>' + message['content'] + '<end>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"
)
CORPUS = ["what colour is the flag of the town", "the flag is red and the food is bread", "say the word again please"]


class TinySubject(NamedTuple):
    """A random Llama of 2 layers and hidden size 32 with a byte-level tokenizer: its folder, and it opened."""

    folder: Path
    subject: Any  # pipeline.subject.subject.Subject; pure tests do not wait for its import


def save_tiny_subject(folder: Path, *, template: str | None = TEMPLATE) -> None:
    """Save the model, its tokenizer and chat template as `save_pretrained` does, safetensors only."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PAD, eos_token=END, chat_template=template)
    tokenizer.save_pretrained(folder)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(shape)
        for weight in model.parameters():  # far from uniform answers, so that adapters and canaries have an effect
            if weight.dim() > 1:
                weight.data.mul_(5.0)
        model.save_pretrained(folder)
