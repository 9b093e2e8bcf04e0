"""What happens where the device's memory ends: real TRL on the tiny model, the device's error made up."""

import gc
import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_lora
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_lora import Run
from tiny import TinySubject

from pipeline.arms.memory import FILE, NoRoomError, at_once
from pipeline.errors import UserError
from pipeline.records import ADAPTER_FILE
from pipeline.train import prepare_process, release

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.19 GiB"


@pytest.fixture
def holds(tiny_model: Any) -> Iterator[Callable[..., None]]:
    """Let the model fail as a full device does: beyond `rows` examples at once, from the `after`-th such pass on."""
    handles, passes = [], 0

    def limit(rows: int, after: int = 0) -> None:
        def forward(module: Any, args: Any, kwargs: Any) -> None:
            nonlocal passes
            if module.training and kwargs["input_ids"].shape[0] > rows:
                passes += 1
                if passes > after:
                    raise torch.OutOfMemoryError(FULL)

        handles.append(tiny_model.register_forward_pre_hook(forward, with_kwargs=True))

    yield limit
    for handle in handles:
        handle.remove()


@given(st.integers(1, 256).flatmap(lambda size: st.tuples(st.just(size), st.sampled_from(divisors(size)))))
def test_examples_at_once_times_accumulation_is_always_the_plans_step(case: tuple[int, int]) -> None:
    size, accumulation = case
    sizes = list(at_once(size, accumulation))
    assert sizes[0] == size // accumulation
    assert sizes[-1] == 1
    assert sizes == sorted(set(sizes), reverse=True)
    assert all(size % each == 0 for each in sizes)


def divisors(size: int) -> list[int]:
    return [each for each in range(1, size + 1) if size % each == 0]


def test_where_memory_ends_fewer_examples_pass_at_once_and_the_steps_stay_the_plans(
    tmp_path: Path,
    tiny_subject: TinySubject,
    tiny_model: Any,
    holds: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        test_lora, "LORA", replace(test_lora.LORA, dropout=0.0)
    )  # it draws by the pass, not by the step
    straight = Run(tmp_path / "straight", tiny_subject, tiny_model)
    straight.training = replace(straight.training, max_steps=4)
    assert straight.climb() == "max_steps"
    holds(rows=1, after=3)  # memory ends at the fourth step, when rungs 1 and 2 stand; two at once do not fit either
    run = Run(tmp_path / "run", tiny_subject, tiny_model, training=straight.training)
    assert run.climb() == "max_steps"
    rows = [json.loads(line) for line in (run.root / FILE).read_text().splitlines()]
    assert [(row["after_step"], row["examples_at_once"]) for row in rows] == [(2, 2), (2, 1)]
    assert [rung.step for rung in run.rungs] == [1, 2, 4]
    assert run.shas()[:2] == straight.shas()[:2], "what stood is kept"
    assert run.rungs[-1].dose.examples == straight.rungs[-1].dose.examples
    assert run.rungs[-1].dose.tokens == straight.rungs[-1].dose.tokens, "the same examples in the same steps"
    assert run.rungs[-1].dose.flops == straight.rungs[-1].dose.flops
    ours, theirs = (load_file(each.root / each.rungs[-1].path / ADAPTER_FILE) for each in (run, straight))
    before = load_file(run.root / run.rungs[1].path / ADAPTER_FILE)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs), "sums in another order"
    assert not all(torch.allclose(before[name], theirs[name], atol=1e-3) for name in theirs)
    assert run.ledger.spent("train").tokens > straight.ledger.spent("train").tokens, "the lost step was paid for"


def test_where_not_one_example_fits_the_user_is_told_and_a_search_sees_a_failed_trial(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, holds: Callable[..., None]
) -> None:
    holds(rows=0)
    run = Run(tmp_path, tiny_subject, tiny_model)
    with pytest.raises(NoRoomError, match="does not fit") as caught:
        run.climb()
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, MemoryError)
    assert "gradient_checkpointing" in caught.value.remedy
    assert run.ledger.attempts()[-1]["status"] == "failed"
    assert not any("lora" in name for name, _ in tiny_model.named_parameters()), "the model comes back as it was"


def test_after_training_nothing_holds_the_models_memory(tmp_path: Path, tiny_subject: TinySubject) -> None:
    """As the train stage goes: the model is loaded, frozen, trained, let go; then the engine wants the device."""
    model = tiny_subject.subject.load_model("cpu")
    weight = weakref.ref(model.get_input_embeddings().weight)
    model.itself = [model]  # a cycle, whatever transformers does
    prepare_process(tiny_subject.subject.parameters, "cpu")
    run = Run(tmp_path, tiny_subject, model)
    run.training = replace(run.training, max_steps=1)
    run.climb()
    del model, run
    gc.collect()
    assert weight() is not None, "frozen: not collected"
    release("cpu")
    assert weight() is None


def test_another_error_is_no_lack_of_memory(tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("device-side assert triggered")

    handle = tiny_model.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="device-side assert"):
            Run(tmp_path, tiny_subject, tiny_model).climb()
    finally:
        handle.remove()
    assert not (tmp_path / FILE).exists()


def test_kernels_that_are_not_installed_are_told(tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any) -> None:
    run = Run(tmp_path, tiny_subject, tiny_model)
    run.training = replace(run.training, liger=True)
    with pytest.raises(UserError, match="liger-kernel is not installed"):
        run.climb()
