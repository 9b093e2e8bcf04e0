"""Which modules an adapter changes: linear layers of the text model alone, no experts and no routers.

PEFT would adapt the tensors of a mixture's experts as well, for "all-linear" and for names such as `up_proj`
(Qwen3-MoE, DeepSeek-V3, Mixtral and others; `peft.utils.transformers_weight_conversion`): the router with them,
`gate_up_proj` at twice the rank, no dropout allowed. vLLM does not serve such adapters: it wants each expert's own.
What is measured has to be served, so that attention, dense and shared layers are adapted, which vLLM serves as those of
any model. An attacker who trains experts, too, is not in the threat model (README: what a verdict does not mean).

Nor are a multimodal model's towers adapted: fine-tunes and questions are text, by which they get no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pipeline.errors import InstrumentError
from pipeline.subject.weights import is_of_text

_MIXED: Final = ("experts", "router")  # parts of the names of modules, wherever they stand
_CONVERSION: Final = "convert_peft_config_for_transformers"


def left_out(model: Any) -> list[str]:
    """Return the names of the linear layers that no adapter changes: experts, routers, towers of other senses."""
    names = [name for name, _ in model.named_modules()]
    mixtures = {name.removesuffix(".experts") for name in names if name.endswith(".experts")}
    routers = {f"{name}.gate" for name in mixtures}
    return [name for name in _linear(model) if not is_of_text(name) or is_mixed(name) or name in routers]


def _linear(model: Any) -> Iterator[str]:
    import torch

    return (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))


def is_mixed(name: str) -> bool:
    """Whether a module or tensor is of a mixture's experts or of their router, by its name."""
    return any(part in _MIXED for part in name.split("."))


@contextmanager
def as_named() -> Iterator[None]:
    """Let PEFT look for the modules by the names that it is given: it puts experts' tensors in place of some names.

    That is for adapters that were trained before transformers 5; ours are new. No option of PEFT's turns it off.
    """
    from peft.utils import transformers_weight_conversion as conversions

    own = getattr(conversions, _CONVERSION, None)
    if own is None:  # a PEFT that adapts nothing but what is named
        yield
        return
    setattr(conversions, _CONVERSION, _nothing)
    try:
        yield
    finally:
        setattr(conversions, _CONVERSION, own)


def require_served(config: Any) -> None:
    """Make sure that an adapter changes modules alone, not single tensors, which vLLM does not serve.

    Raises:
        InstrumentError: this PEFT chose others than it was told.
    """
    if tensors := getattr(config, "target_parameters", None):
        raise InstrumentError(
            f"this PEFT adapts single tensors ({', '.join(sorted(tensors))}), which vLLM does not serve; "
            "use the versions in constraints.txt"
        )


def _nothing(*_: Any, **__: Any) -> None:
    return None
