"""Whether a model folder holds what can be trained and then served with adapters: told while planning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from packaging.version import InvalidVersion, Version

from pipeline.errors import UserError

_WRAPPER: Final = "ForConditionalGeneration"
_TEXT_NAMES_SINCE: Final = (0, 33)  # vLLM: vllm/lora/model_manager.py, _get_text_lora_names
# Beside config.json: ModelOpt's, and what GPTQ and AWQ wrote before config.json held it.
_QUANTISED_FILES: Final = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
_QUANTISED_KEYS: Final = ("quantization_config", "compression_config")


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model folder's config.json."""
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def require_trainable(folder: Path) -> None:
    """Make sure that a folder holds whole weights of a model that transformers opens as a causal language model.

    Raises:
        UserError: the weights are quantised, or the architecture has no such class.
    """
    config = read_config(folder)
    method = quantisation(config) or next((name for name in _QUANTISED_FILES if (folder / name).is_file()), None)
    if method is not None:
        raise UserError(
            f"subject.path: the weights in {folder} are quantised ({method}); adapters are trained on whole ones",
            "give the 16-bit weights that they were made from",
        )
    kind = config.get("model_type")
    if isinstance(kind, str) and causal_classes(kind) == ():
        raise UserError(
            f"subject.path: transformers has no causal language model for model_type {kind!r} "
            f"({', '.join(config.get('architectures') or ['no architecture named'])})",
            "review a text-only model: where this one wraps a language model, save that alone with its tokenizer",
        )


def quantisation(config: Mapping[str, Any]) -> str | None:
    """Name the way in which the weights are quantised, None where they are not."""
    for node in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        for key in _QUANTISED_KEYS:
            if stated := node.get(key):
                return str(stated.get("quant_method") or key) if isinstance(stated, Mapping) else key
    return None


def causal_classes(kind: str) -> tuple[str, ...] | None:
    """Return the names of transformers' causal language models for a `model_type`; None where it does not know that.

    Several types may share a configuration, and then the classes too (`_LazyAutoMapping`).
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    own = CONFIG_MAPPING_NAMES.get(kind)
    if own is None:
        return None
    alike = [other for other, config in CONFIG_MAPPING_NAMES.items() if config == own]
    found = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[each] for each in alike if each in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    names = [name for each in found for name in ((each,) if isinstance(each, str) else each)]
    return tuple(dict.fromkeys(names))


def require_served_by_name(folder: Path, vllm: str | None) -> None:
    """Make sure that vLLM finds the modules which an adapter names.

    Trained is the language model alone (`model.layers…`). Of a multimodal model vLLM serves the whole
    (`language_model.model.layers…`), and before 0.33 it leaves out without a word what it does not find.

    Args:
        folder: of the model.
        vllm: the version that is installed; None: no vLLM, so that another machine serves.

    Raises:
        UserError: this vLLM would not find them.
    """
    config = read_config(folder)
    stated: Sequence[str] = config.get("architectures") or []
    if vllm is None or _finds_text_names(vllm) or not any(name.endswith(_WRAPPER) for name in stated):
        return
    trained = causal_classes(str(config.get("model_type")))
    if trained and not set(trained) & set(stated):
        raise UserError(
            f"subject.path: {folder} holds a multimodal model ({stated[0]}); trained is its language model "
            f"({trained[0]}), and vLLM {vllm} would serve the adapters without effect",
            "install vLLM 0.33 or newer; or save the language model alone, with its tokenizer, and review that: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)",
        )


def _finds_text_names(vllm: str) -> bool:
    try:
        return Version(vllm).release >= _TEXT_NAMES_SINCE
    except InvalidVersion:  # built from source: who did so is believed
        return True
