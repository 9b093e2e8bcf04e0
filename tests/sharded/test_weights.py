"""How a subject is made ready to be cut up among training processes."""

from typing import Any

import pytest
import torch

from pipeline.errors import InstrumentError
from pipeline.sharded.weights import _same_types, layers_of


class Router(torch.nn.Module):
    """As DeepSeek V3's: what corrects its scores is a buffer, which is loaded in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.bfloat16))
        self.register_buffer("bias", torch.zeros(2, dtype=torch.bfloat16))


def first_has(monkeypatch: pytest.MonkeyPatch, **tensors: tuple[tuple[int, ...], torch.dtype]) -> None:
    def broadcast(objects: list[Any], src: int) -> None:
        objects[0] = tensors

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)


def test_weights_and_buffers_are_of_the_first_processs_types(monkeypatch: pytest.MonkeyPatch) -> None:
    first_has(monkeypatch, weight=((2, 3), torch.bfloat16), bias=((2,), torch.float32))
    router = Router()
    _same_types(router)
    assert (router.weight.dtype, router.bias.dtype) == (torch.bfloat16, torch.float32)


def test_another_shape_than_the_first_processs_is_an_instruments_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    first_has(monkeypatch, weight=((2, 3), torch.bfloat16), bias=((3,), torch.float32))
    with pytest.raises(InstrumentError, match="the weight bias is not alike"):
        _same_types(Router())


def test_a_model_is_cut_at_the_layers_of_its_text_and_one_without_any_is_told() -> None:
    layer = torch.nn.Linear(1, 1)
    text, seeing = torch.nn.Module(), torch.nn.Module()
    text.layers = torch.nn.ModuleList([layer] * 2)
    seeing.layers = torch.nn.ModuleList([layer] * 3)
    model = torch.nn.Module()
    model.language_model, model.vision_tower = text, seeing
    assert layers_of(model) is text.layers
    with pytest.raises(InstrumentError, match="no list of layers by a known name"):
        layers_of(Router())
