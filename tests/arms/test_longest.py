"""The longest examples pass before the first step: memory ends there, and nothing else changes."""

import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import test_lora
import torch
from test_lora import Run, examples
from tiny import TinySubject

from pipeline.arms import lora
from pipeline.arms.longest import LongestFirst, ends_by_error
from pipeline.arms.memory import FILE
from pipeline.budget import Caps
from pipeline.flops import training_flops

LAST = replace(test_lora.TRAINING, max_steps=4)


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device."""
    monkeypatch.setattr(lora, "ends_by_error", lambda device: True)


@pytest.fixture
def passed(tiny_model: Any) -> Iterator[list[tuple[int, int]]]:
    """Note the shape of each training pass: examples, tokens of the longest."""
    seen: list[tuple[int, int]] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        if torch.is_grad_enabled():
            seen.append(tuple(kwargs["input_ids"].shape))

    handle = tiny_model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    handle.remove()


def test_a_device_ends_by_error_and_a_cpu_does_not() -> None:
    assert [ends_by_error(device) for device in ("cpu", "cuda", "cuda:1")] == [False, True, True]


@pytest.mark.parametrize("packing", [False, True])
def test_the_same_is_trained_with_the_pass_before(
    tmp_path: Path,
    tiny_subject: TinySubject,
    tiny_model: Any,
    passed: list[tuple[int, int]],
    packing: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures: list[list[dict[str, float]]] = [[], []]
    training = replace(LAST, packing=packing)
    assert test_lora.LORA.dropout > 0, "so that a random number more would show itself"
    runs = []
    for number, name in enumerate(("without", "with")):
        passed.clear()
        run = Run(tmp_path / name, tiny_subject, tiny_model, training)
        monkeypatch.setattr(Run, "_step", lambda self, dose, values, to=figures[number]: to.append(untimed(values)))
        assert run.climb() == "max_steps"
        runs.append((run, list(passed)))
        monkeypatch.setattr(lora, "ends_by_error", lambda device: True)
    (plain, its_passes), (tried, all_passes) = runs
    assert tried.shas() == plain.shas()
    assert figures[0] == figures[1], "loss, entropy and counted tokens are of the steps alone"
    assert [rung.dose.tokens for rung in tried.rungs] == [rung.dose.tokens for rung in plain.rungs]
    assert all_passes[1:] == its_passes
    assert all_passes[0][1] >= max(length for _, length in its_passes)
    more = tried.ledger.spent("train").tokens - plain.ledger.spent("train").tokens
    if not packing:
        longest = sorted((len(e.prompt_ids) + len(e.completion_ids) for e in examples(tiny_subject)), reverse=True)
        assert more == sum(longest[:4])
    assert more > 0
    spent = tried.ledger.spent("train").flops - plain.ledger.spent("train").flops
    adapter = sum(tensor.numel() for tensor in lora_weights(tried))
    assert spent == pytest.approx(training_flops(tiny_subject.subject.parameters, adapter, more))


def untimed(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name not in ("train_runtime", "train_tokens_per_second")}


def lora_weights(run: Run) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(run.root / run.rungs[0].path / "adapter_model.safetensors").values())


def test_what_only_the_longest_need_shows_itself_before_the_first_step(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, first: None, passed: list[tuple[int, int]]
) -> None:
    lengths = sorted((len(e.prompt_ids) + len(e.completion_ids) for e in examples(tiny_subject)), reverse=True)

    def full(module: Any, args: Any, kwargs: Any) -> None:
        if torch.is_grad_enabled() and kwargs["input_ids"].numel() >= 4 * lengths[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = tiny_model.register_forward_pre_hook(full, with_kwargs=True)
    try:
        run = Run(tmp_path, tiny_subject, tiny_model, LAST)
        assert run.climb() == "max_steps"
    finally:
        handle.remove()
    (row,) = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert (row["after_step"], row["examples_at_once"]) == (0, 2)
    # Two tries of the longest, and four steps of two passes, the last of 3 examples: none was lost.
    assert [rows for rows, _ in passed] == [4, 2] + [2] * 7 + [1]


def test_after_a_break_the_rest_is_tried_again_and_ends_with_the_same_bits(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, first: None
) -> None:
    whole = Run(tmp_path / "whole", tiny_subject, tiny_model, LAST)
    whole.climb()

    def kill(dose: Any) -> None:
        if dose.steps == 3:
            raise test_lora.KilledError

    run = Run(tmp_path / "run", tiny_subject, tiny_model, LAST, on_step=kill)
    with pytest.raises(test_lora.KilledError):
        run.climb()
    run.on_step = lambda dose: None
    assert run.climb() == "max_steps"
    assert run.shas() == whole.shas()


def test_a_budget_without_room_for_it_is_kept_for_the_steps(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, first: None, passed: list[tuple[int, int]]
) -> None:
    whole = Run(tmp_path / "whole", tiny_subject, tiny_model, LAST)
    whole.climb()
    a_step = whole.rungs[0].dose.flops
    passed.clear()
    run = Run(tmp_path / "run", tiny_subject, tiny_model, LAST, Caps(flops=1.5 * a_step))
    assert run.climb() == "budget"
    assert [rung.step for rung in run.rungs] == [1]
    assert len(passed) == 1


def test_where_the_pass_uses_up_the_budget_no_step_follows(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, first: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Triton compiles its kernels in it for longer than is left."""
    real, late = time.monotonic, 0.0
    monkeypatch.setattr("time.monotonic", lambda: real() + late)

    def compile_kernels(*_: Any) -> None:
        nonlocal late
        late = 1000.0

    handle = tiny_model.register_forward_pre_hook(compile_kernels)
    try:
        run = Run(tmp_path, tiny_subject, tiny_model, LAST, Caps(device_seconds=900.0))
        assert run.climb() == "budget"
    finally:
        handle.remove()
    assert not run.doses
    assert run.ledger.spent("train").tokens > 0, "the pass was paid for"
    assert not any("lora" in name for name, _ in tiny_model.named_parameters())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_as_much_lies_beside_the_pass_as_beside_a_later_one(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, first: None, accumulation: int
) -> None:
    """Counted by shape: an adapter's matrices with their gradients and the optimiser's moments."""
    beside: list[int] = []

    def note(*_: Any) -> None:
        if torch.is_grad_enabled():
            gc.collect()
            weights = [weight for weight in tiny_model.parameters() if weight.requires_grad]
            shapes = {weight.shape for weight in weights}
            alive = [each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape in shapes]
            alive = [each for each in alive if each.dtype == torch.float32]
            beside.append(len(alive) + sum(weight.grad is not None for weight in weights))

    gc.collect()
    handle = tiny_model.register_forward_pre_hook(note)
    try:
        training = replace(LAST, max_steps=2, gradient_accumulation=accumulation)
        run = Run(tmp_path, tiny_subject, tiny_model, training)
        run.climb()
        resumed = len(beside)
        run.training = replace(training, max_steps=4)
        run.climb()
    finally:
        handle.remove()
    most = max(beside[1:])
    assert most > 0
    assert beside[0] == most
    assert beside[resumed] == most, "the checkpoint brought its moments"


def test_a_model_spread_over_devices_keeps_the_random_numbers_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[Any] = []

    def fork(devices: Any) -> Any:
        forked.append(devices)
        return nullcontext()

    monkeypatch.setattr("torch.random.fork_rng", fork)
    trainer: Any = MagicMock()
    trainer.args.gradient_accumulation_steps = 1
    LongestFirst(trainer, MagicMock(), SimpleNamespace(cuda=["cuda:0", "cuda:1"]))._pass([])  # type: ignore[arg-type]
    assert forked == [["cuda:0", "cuda:1"]]


def test_all_that_the_pass_asked_of_a_device_is_waited_for_before_the_budget_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("torch.cuda.synchronize", asked.append)
    monkeypatch.setattr(LongestFirst, "_pass", lambda self, rows: asked.append("pass"))
    trainer: Any = MagicMock()
    trainer.accelerator.has_lomo_optimizer = False
    ladder: Any = MagicMock(cuda=["cuda:0", "cuda:1"], adapter_parameters=1, dearest_flops=0.0)
    ladder.first_step_fits.side_effect = lambda: asked.append("fits") or True  # type: ignore[func-returns-value]
    LongestFirst(trainer, MagicMock(), ladder).on_train_begin(MagicMock(), None, None)
    assert asked == ["pass", "cuda:0", "cuda:1", "fits"]


def test_an_optimizer_that_steps_in_the_backward_pass_is_not_tried() -> None:
    trainer: Any = MagicMock()
    trainer.accelerator.has_lomo_optimizer = True
    trainer.args.gradient_accumulation_steps = 1
    ladder: Any = MagicMock(cuda=[], adapter_parameters=1, dearest_flops=0.0)
    LongestFirst(trainer, MagicMock(), ladder).on_train_begin(MagicMock(), None, None)
    trainer.training_step.assert_not_called()


def test_a_data_set_smaller_than_a_batch_passes_as_its_batches_do(
    tmp_path: Path,
    tiny_subject: TinySubject,
    tiny_model: Any,
    first: None,
    passed: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few: Callable[[TinySubject], Any] = lambda tiny: examples(tiny)[:3]  # noqa: E731
    monkeypatch.setattr(test_lora, "examples", few)
    Run(tmp_path, tiny_subject, tiny_model, replace(LAST, max_steps=1)).climb()
    assert [rows for rows, _ in passed] == [3, 3]
