"""On which devices a model goes, by its bytes and what is free; no device is needed to decide it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tiny import TinySubject

from pipeline.errors import UserError
from pipeline.subject.placement import GIB, device_map, placement, require_on_devices
from pipeline.subject.weights import safetensors_shapes, weight_bytes

H100 = 79 * GIB


@pytest.mark.parametrize(
    ("needed", "free", "placed"),
    [
        (16e9, [H100], {"": 0}),  # 8 B in 16 bits
        (65e9, [H100, H100], {"": 0}),  # 32 B fit into one, whatever else is there
        (141e9, [H100, H100], "auto"),  # 70 B
        (16e9, [10 * GIB, H100], "auto"),  # somebody else is on the first
        (100, [100, 6], "auto"),  # a twentieth is left for what training needs
        (95, [100], {"": 0}),
    ],
)
def test_one_device_where_it_fits_else_all(needed: float, free: list[int], placed: object) -> None:
    assert device_map(int(needed), free) == placed


@pytest.mark.parametrize("free", [[H100], [30 * GIB] * 4])
def test_more_than_all_devices_hold_is_told_with_the_sizes(free: list[int]) -> None:
    with pytest.raises(UserError, match=r"subject\.path: its weights take 131\.3 GiB") as told:
        device_map(int(141e9), free)
    assert " + ".join(f"{each / GIB:.1f}" for each in free) + " GiB free" in told.value.what
    assert "more or larger devices" in told.value.remedy


def test_bytes_are_those_in_memory_and_not_those_of_the_file(tiny_subject: TinySubject) -> None:
    files = sum(file.stat().st_size for file in tiny_subject.folder.glob("*.safetensors"))
    whole = weight_bytes(tiny_subject.folder, "float32")
    assert 0 < files - whole < 10_000, "the headers"
    assert whole == 2 * weight_bytes(tiny_subject.folder, "bfloat16")
    assert len(safetensors_shapes(tiny_subject.folder)) > 10


def test_devices_are_asked_only_as_far_as_needed_and_main_memory_gets_nothing(
    tiny_subject: TinySubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = weight_bytes(tiny_subject.folder, "float32")
    free = [needed // 2, needed, needed]
    asked: list[int] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda number: (asked.append(number), (free[number], H100))[1])
    assert placement(tiny_subject.folder, "float32") == {"device_map": "auto", "max_memory": dict(enumerate(free))}
    assert asked == [0, 1, 2]
    asked.clear()
    free[0] = 2 * needed
    assert placement(tiny_subject.folder, "float32") == {"device_map": {"": 0}}
    assert asked == [0]


def test_layers_that_were_left_outside_the_devices_are_told() -> None:
    require_on_devices(SimpleNamespace())
    require_on_devices(SimpleNamespace(hf_device_map={"model.embed_tokens": 0, "lm_head": 1}))
    with pytest.raises(UserError, match="some are on disk"):
        require_on_devices(SimpleNamespace(hf_device_map={"model.embed_tokens": 0, "lm_head": "disk"}))


@pytest.mark.gpu
def test_on_a_device_the_weights_are_what_they_are_on_the_cpu(tiny_subject: TinySubject) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    there, here = (tiny_subject.subject.load_model(device) for device in ("cuda", "cpu"))
    assert {str(value.device) for value in there.parameters()} == {"cuda:0"}
    assert not there.training
    assert all(value.requires_grad for value in there.parameters())
    for one, other in zip(there.parameters(), here.parameters(), strict=True):
        assert torch.equal(one.cpu(), other)
