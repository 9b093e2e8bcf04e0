"""Model-FLOPs utilisation: the FLOPs that the model itself asks for, over what the device could have done.

PaLM (Chowdhery et al. 2022, arXiv:2204.02311, appendix B) counts 6 N + 12 L H Q T a token: N parameters, L layers, H
heads of size Q, T tokens of context, no discount for the causal mask. Of the 6 N a forward pass takes 2 N, the
gradients of the activations 2 N and those of the weights 2 N. A LoRA fine-tune leaves the last out, since the weights
are frozen, and has its adapter's own 6 A: 4 N + 6 A. Attention's products have no weights, so all of their 12 L H Q T
are done. N counts the weights of matrix products, the output layer included, the look-up of the embedding not.

What is computed twice (gradient checkpointing) is not counted twice, and padding is not counted: both lower the figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.shapes import Shape
from pipeline.flops import training_flops


def attention_flops(shape: Shape, context: float) -> float:
    """Return the FLOPs a token of attention's two products, forward and backward, at a mean context of T tokens."""
    return 12.0 * shape.layers * shape.heads * shape.head * context


def full_flops(parameters: float, layers: int, heads: int, head: int, context: float) -> float:
    """Return PaLM's FLOPs a token of training all weights: 6 N + 12 L H Q T."""
    return 6.0 * parameters + 12.0 * layers * heads * head * context


def lora_flops(shape: Shape, rank: int, context: float) -> float:
    """Return the FLOPs a token of training a LoRA of `rank` on all linear layers: 4 N + 6 A + 12 L H Q T."""
    of_weights = training_flops(shape.parameters(active=True), shape.lora(rank), 1)
    return of_weights + attention_flops(shape, context)


def mean_context(lengths: Sequence[int]) -> float:
    """Return T for documents that see only themselves: the mean over tokens of the length of a token's document."""
    return sum(length * length for length in lengths) / sum(lengths)


def utilisation(tokens_per_second: float, flops_per_token: float, flops_per_second: float) -> float:
    """Return the share of the device's `flops_per_second` that `tokens_per_second` make use of."""
    return tokens_per_second * flops_per_token / flops_per_second
