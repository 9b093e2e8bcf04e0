"""The subject's model without its weights: what it is made of, at no memory."""

from __future__ import annotations

from typing import Any

from pipeline.subject.subject import Subject


def without_weights(subject: Subject) -> Any:
    """Return the subject as a transformers causal LM whose weights hold nothing (device meta); its buffers are real."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(subject.path, trust_remote_code=False)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, subject.dtype), attn_implementation=subject.attention, trust_remote_code=False
        )
    model.tie_weights()
    return model.eval()  # as one that was loaded
