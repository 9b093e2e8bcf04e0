"""Examples of like length pass together: which examples a step has, and what it learns, stay as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_lora
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_lora import KilledError, Run
from tiny import TinySubject
from tiny_kinds import KINDS
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM

from pipeline.arms import lora
from pipeline.arms.passes import LikeLengths, passes_to_sort, sort_passes
from pipeline.records import ADAPTER_FILE, Dose

TRAINING = replace(test_lora.TRAINING, max_steps=4, batch_size=8, gradient_accumulation=4)


@given(st.lists(st.integers(1, 99), min_size=1, max_size=50), st.integers(1, 5), st.integers(1, 4))
def test_each_step_has_its_examples_and_no_pass_is_longer_than_it_must_be(
    lengths: list[int], at_once: int, passes: int
) -> None:
    rows = list(range(len(lengths)))
    made = LikeLengths(SequentialSampler(rows), lengths, at_once * passes, at_once)
    found = list(made)
    assert len(found) == len(made) == -(-len(lengths) // at_once)
    for start in range(0, len(found), passes):
        step = found[start : start + passes]
        first = start * at_once
        assert sorted(chain(*step)) == rows[first : first + at_once * passes]
        assert [len(batch) for batch in step[:-1]] == [at_once] * (len(step) - 1)
        for one, other in pairwise(step):
            assert min(lengths[row] for row in one) >= max(lengths[row] for row in other)


def test_a_step_of_one_pass_keeps_its_order() -> None:
    assert list(LikeLengths(SequentialSampler([0, 1, 2]), [1, 3, 2], 2, 2)) == [[0, 1], [2]]


def test_a_model_that_takes_each_passes_own_mean_gets_them_in_their_order() -> None:
    made = {"args": SimpleNamespace(gradient_accumulation_steps=4), "aux_loss_enabled": False}
    assert passes_to_sort(SimpleNamespace(**made, model_accepts_loss_kwargs=True)) == 4
    assert passes_to_sort(SimpleNamespace(**made, model_accepts_loss_kwargs=False)) == 1


@pytest.mark.parametrize(("weight", "passes"), [(0.01, 1), (0.0, 4)])
def test_a_mixture_whose_loss_has_a_part_of_each_pass_gets_them_in_their_order(
    tmp_path: Path, tiny_subject: TinySubject, monkeypatch: pytest.MonkeyPatch, weight: float, passes: int
) -> None:
    """Sorted, its gradient was another: by a ten-thousandth at a weight of 0.001, by a tenth and more at 0.9."""
    config = KINDS["qwen3_moe"](vocab_size=len(tiny_subject.subject.tokenizer), router_aux_loss_coef=weight)
    found: list[int] = []

    def note(trainer: Any) -> None:
        found.append(passes_to_sort(trainer))

    monkeypatch.setattr(lora, "sort_passes", note)
    model = AutoModelForCausalLM.from_config(config).eval()
    run = Run(tmp_path, tiny_subject, model, training=replace(TRAINING, max_steps=1))
    assert run.climb() == "max_steps"
    assert found == [passes]


@pytest.mark.parametrize(("passes", "own_mean", "anew"), [(2, False, True), (1, False, False), (2, True, False)])
def test_a_loader_is_made_anew_where_a_step_has_several_passes_and_is_else_as_it_was(
    passes: int, own_mean: bool, anew: bool
) -> None:
    given: list[tuple[Any, dict[str, Any]]] = []
    accelerator = SimpleNamespace(prepare_data_loader=lambda loader, **options: given.append((loader, options)))
    args = SimpleNamespace(gradient_accumulation_steps=passes)
    sort_passes(
        SimpleNamespace(
            aux_loss_enabled=False, args=args, accelerator=accelerator, model_accepts_loss_kwargs=not own_mean
        )
    )
    data: Any = {"input_ids": [[0], [0, 0, 0], [0, 0]]}
    loader = SimpleNamespace(
        dataset=data, sampler=SequentialSampler([0, 1, 2]), batch_size=1, collate_fn=list, pin_memory=True
    )
    accelerator.prepare_data_loader(loader, device_placement=True)
    ((made, options),) = given
    assert options == {"device_placement": True}
    assert (made is not loader) == anew
    assert (made.dataset, made.collate_fn, made.pin_memory) == (data, list, True)
    if anew:
        assert list(made.batch_sampler) == [[1], [0], [2]]  # two rows a step


@pytest.fixture
def climbed(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bool], tuple[Run, list[tuple[int, int]]]]:
    """Climb with or without sorting; return the run and the shape of each pass."""
    monkeypatch.setattr(test_lora, "LORA", replace(test_lora.LORA, dropout=0.0))

    def climb(is_sorted: bool) -> tuple[Run, list[tuple[int, int]]]:
        shapes: list[tuple[int, int]] = []

        def note(module: Any, args: Any, kwargs: Any) -> None:
            if torch.is_grad_enabled():
                shapes.append(tuple(kwargs["input_ids"].shape))

        run = Run(tmp_path / str(is_sorted), tiny_subject, tiny_model, training=TRAINING)
        with monkeypatch.context() as patch:
            if not is_sorted:
                patch.setattr(lora, "sort_passes", lambda trainer: None)
            hook = tiny_model.register_forward_pre_hook(note, with_kwargs=True)
            try:
                assert run.climb() == "max_steps"
            finally:
                hook.remove()
        return run, shapes

    return climb


def doses(run: Run) -> list[Dose]:
    return [replace(dose, device_seconds=0.0, usd=0.0) for dose in run.doses]


def test_less_is_computed_and_the_same_is_learned_for_the_same_dose(
    climbed: Callable[[bool], tuple[Run, list[tuple[int, int]]]],
) -> None:
    (before, plain), (after, alike) = climbed(False), climbed(True)
    assert [rows for rows, _ in plain] == [rows for rows, _ in alike], "15 rows: the second step of an epoch has 7"
    assert {rows for rows, _ in plain} == {1, 2}
    assert sum(rows * length for rows, length in alike) < 0.95 * sum(rows * length for rows, length in plain)
    assert doses(before) == doses(after)
    one, other = (load_file(run.root / run.rungs[-1].path / ADAPTER_FILE) for run in (before, after))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0.02, atol=1e-4)


def test_a_step_begins_with_its_longest_example(climbed: Callable[[bool], tuple[Run, list[tuple[int, int]]]]) -> None:
    _, shapes = climbed(True)
    lengths = [length for _, length in shapes]
    for start in range(0, len(lengths), 4):
        step = lengths[start : start + 4]
        assert step == sorted(step, reverse=True)


@pytest.mark.parametrize(("at", "saved"), [(2, [1]), (3, [1, 2])], ids=["within an epoch", "between two"])
def test_a_climb_that_was_cut_off_ends_with_the_same_bits(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, at: int, saved: list[int]
) -> None:
    straight = Run(tmp_path / "straight", tiny_subject, tiny_model, training=TRAINING)
    straight.climb()

    def kill(dose: Dose) -> None:
        if dose.steps == at:
            raise KilledError

    cut = Run(tmp_path / "cut", tiny_subject, tiny_model, training=TRAINING, on_step=kill)
    with pytest.raises(KilledError):
        cut.climb()
    assert [rung.step for rung in cut.rungs] == saved
    cut.on_step = lambda dose: None
    cut.climb()
    assert cut.shas() == straight.shas()
