"""Shapes of language models: how many parameters, how many of them work for a token, how much a token leaves behind.

Everything follows from the published configuration; tests/benchmarks/test_scale.py holds the counts against published
ones and against models that transformers and PEFT build from small configurations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): ranks and head sizes."""

    query_rank: int
    key_value_rank: int
    nope: int
    rope: int
    value: int


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in every layer but the first `dense_layers`."""

    count: int
    active: int
    shared: int
    width: int
    dense_layers: int = 0


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer with gated feed-forward layers and RMS norms. Sizes are counts of numbers."""

    name: str
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head: int
    feed_forward: int
    vocabulary: int
    tied: bool = False
    query_key_value_bias: bool = False
    latent: Latent | None = None
    experts: Experts | None = None

    def attention(self) -> Iterator[tuple[int, int]]:
        """Yield (inputs, outputs) of a layer's attention matrices."""
        h, n = self.hidden, self.heads
        if (low := self.latent) is None:
            yield from (
                (h, n * self.head),
                (h, self.key_value_heads * self.head),
                (h, self.key_value_heads * self.head),
            )
            yield (n * self.head, h)
            return
        yield from ((h, low.query_rank), (low.query_rank, n * (low.nope + low.rope)))
        yield from ((h, low.key_value_rank + low.rope), (low.key_value_rank, n * (low.nope + low.value)))
        yield (n * low.value, h)

    def _norms(self) -> int:
        inner = 0 if self.latent is None else self.latent.query_rank + self.latent.key_value_rank
        bias = (self.heads + 2 * self.key_value_heads) * self.head if self.query_key_value_bias else 0
        return 2 * self.hidden + inner + bias

    def _layer(self, *, active: bool, dense: bool) -> int:
        fixed = sum(i * o for i, o in self.attention()) + self._norms()
        if self.experts is None or dense:
            return fixed + 3 * self.hidden * self.feed_forward
        e = self.experts
        working = (e.active if active else e.count) + e.shared
        return fixed + self.hidden * e.count + working * 3 * self.hidden * e.width

    def parameters(self, *, active: bool = False) -> int:
        """Return all parameters, or those that work for one token (the embedding's lookup left out where untied)."""
        dense = self.layers if self.experts is None else self.experts.dense_layers
        body = dense * self._layer(active=active, dense=True)
        body += (self.layers - dense) * self._layer(active=active, dense=False)
        tables = 1 if self.tied or active else 2
        return body + self.hidden + tables * self.vocabulary * self.hidden

    def largest_layer(self) -> int:
        """Return the parameters of the largest layer."""
        layers = [self._layer(active=False, dense=False)]
        if self.experts is None or self.experts.dense_layers:
            layers.append(self._layer(active=False, dense=True))
        return max(layers)

    def lora(self, rank: int) -> int:
        """Return the parameters of an adapter on all linear layers; with experts on attention alone, as is usual.

        A pair of matrices (rank x inputs, outputs x rank) for each (Hu et al. 2021, arXiv:2106.09685).
        """
        linear = list(self.attention())
        if self.experts is None:
            linear += [(self.hidden, self.feed_forward)] * 2 + [(self.feed_forward, self.hidden)]
        return self.layers * rank * sum(i + o for i, o in linear)

    def cache_per_token(self) -> int:
        """Return how many numbers a token leaves in the key-value cache, over all layers."""
        if self.latent is None:
            return 2 * self.layers * self.key_value_heads * self.head
        return self.layers * (self.latent.key_value_rank + self.latent.rope)


LLAMA_70B: Final = Shape("Llama-3.1-70B's shape", 80, 8192, 64, 8, 128, 28672, 128256)
MOE_1T: Final = Shape(
    "Kimi-K2's shape (1 T, 32 B active)",
    *(61, 7168, 64, 64, 192, 18432, 163840),
    latent=Latent(1536, 512, 128, 64, 128),
    experts=Experts(384, 8, 1, 2048, dense_layers=1),
)
QWEN_05B: Final = Shape("Qwen2.5-0.5B's shape", 24, 896, 14, 2, 64, 4864, 151936, tied=True, query_key_value_bias=True)
QWEN_15B: Final = Shape(
    "Qwen2.5-1.5B's shape", 28, 1536, 12, 2, 128, 8960, 151936, tied=True, query_key_value_bias=True
)
QWEN_7B: Final = Shape("Qwen2.5-7B's shape", 28, 3584, 28, 4, 128, 18944, 152064, query_key_value_bias=True)
