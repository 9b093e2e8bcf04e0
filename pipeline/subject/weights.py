"""The weights of a model folder as its safetensors headers tell them: which files, shapes, numbers and bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.errors import UserError

DTYPE_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
DTYPES: Final = tuple(DTYPE_BYTES)  # of the weights, in training and serving
# How many experts a layer has, and how many of them a token is sent to, by the names of several architectures.
_EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ACTIVE: Final = (
    *("num_experts_per_tok", "num_experts_per_token", "experts_per_token"),
    *("top_k", "top_k_experts", "moe_topk", "moe_top_k", "moe_k"),
)
# Look-ups by the names that architectures give them: of tokens, which an output may share; and of what none does.
_TOKENS: Final = frozenset(
    (
        "embed_tokens",
        "embed_in",
        "wte",
        "word_embeddings",
        "word_embedding",
        "tok_embeddings",
        "tokens_embed",
        "embeddings",
    )
)
_OTHERS: Final = frozenset(
    (
        *("embed_tokens_per_layer", "wpe", "embed_positions", "position_embeddings", "position_embedding"),
        *("positions_embed", "token_type_embeddings", "lang_embeddings", "ngram_embeddings"),
    )
)
LOOK_UPS: Final = _TOKENS | _OTHERS
# Parts of the names of what a multimodal model has beside its text model: towers, and what leads from them to it.
_OTHER_SENSES: Final = re.compile(
    r"(?:^|\.)(?:\w*(?:vision|visual|image|audio|speech|video|mm_projector|multi_?modal)\w*)(?:\.|$)"
)


def safetensors_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that transformers loads, read from the safetensors headers alone.

    Raises:
        UserError: a file is damaged, or one that the index names is missing.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="np") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, FileNotFoundError) as error:
            raise UserError(f"subject.path: {file} cannot be read: {error}", "copy or download it again") from None
    return shapes


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers takes the weights from: some repositories hold them a second time beside."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        try:
            named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / name for name in sorted(set(named))]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"subject.path: {index} cannot be read: {error}", "copy or download it again") from None
    files = sorted(folder.glob("*.safetensors"))
    return [file for file in files if not file.name.startswith("consolidated")] or files


def matmul_parameters(folder: Path) -> int:
    """Count the weights that take part in matrix products, for the FLOPs formula in `pipeline.flops`.

    Of a mixture of experts the routed ones count by the share that a token is sent to: the rest does no work for it.
    """
    shapes = _matrices(folder)
    experts, active = _routing(folder)
    routed = sum(math.prod(shape) for name, shape in shapes.items() if _is_routed(name, shape, experts))
    return sum(map(math.prod, shapes.values())) - routed + (routed * active // experts if experts else routed)


def held_parameters(folder: Path) -> int:
    """Count the weights that take part in matrix products, every expert included: what memory has to hold."""
    return sum(map(math.prod, _matrices(folder).values()))


def has_experts(folder: Path) -> bool:
    """Whether a model is a mixture of experts, as far as its configuration says so."""
    return _routing(folder)[0] > 0


def weight_bytes(folder: Path, dtype: str) -> int:
    """Return the bytes of all weights in memory, loaded as `dtype`."""
    return DTYPE_BYTES[dtype] * sum(map(math.prod, safetensors_shapes(folder).values()))


def is_of_text(name: str) -> bool:
    """Whether a tensor or module is of the text model, by its name; what sees or hears has no part in a review."""
    return _OTHER_SENSES.search(name) is None


def _matrices(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the text model's matrices, without what is only looked up.

    Left out are vectors, biases (older files hold the causal mask as `attn.bias`), positions, and the tokens' embedding
    unless the output shares it.
    """
    shapes = {
        name: shape
        for name, shape in safetensors_shapes(folder).items()
        if len(shape) > 1 and not name.endswith((".bias", ".masked_bias")) and is_of_text(name)
    }
    tokens = {name: shape[0] for name, shape in shapes.items() if _module(name) in _TOKENS}
    untied = any(shape[0] in tokens.values() for name, shape in shapes.items() if _may_be_output(name))
    looked_up = LOOK_UPS if untied else _OTHERS
    return {name: shape for name, shape in shapes.items() if _module(name) not in looked_up}


def _may_be_output(name: str) -> bool:
    """Whether a tensor may be the output layer: it is of no layer with a number, and no look-up."""
    parts = name.split(".")
    return _module(name) not in LOOK_UPS and not any(part.isdigit() for part in parts)


def _module(name: str) -> str:
    """Return the last part of a tensor's module's name: `embed_tokens` of `model.embed_tokens.weight`."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _is_routed(name: str, shape: tuple[int, ...], experts: int) -> bool:
    """Whether a tensor is of routed experts: one's own, or those of a layer in one; shared ones have other names."""
    packed = len(shape) == 3 and shape[0] == experts
    return experts > 0 and (".experts." in name or packed)


def _routing(folder: Path) -> tuple[int, int]:
    """Return how many experts a layer has and how many a token is sent to; (0, 0) where that is not known."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for node in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        experts, active = _first(node, _EXPERTS), _first(node, _ACTIVE)
        if 0 < active <= experts:
            return experts, active
    return 0, 0


def _first(node: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    return next((node[key] for key in keys if isinstance(node.get(key), int)), 0)
