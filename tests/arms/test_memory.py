"""What happens where the device's memory ends: real TRL on the tiny model, the device's error made up."""

import gc
import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_lora
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_lora import Run
from tiny import TinySubject

from pipeline.arms import memory
from pipeline.arms.memory import (
    FILE,
    Fit,
    NoRoomError,
    _device_gib,
    _left,
    _need,
    _room,
    at_once,
    fits,
    out_of_memory,
)
from pipeline.errors import UserError
from pipeline.journal import TASKS, Journal
from pipeline.ledger import Ledger
from pipeline.records import ADAPTER_FILE
from pipeline.schema import BudgetConfig, TrainingConfig
from pipeline.train.process import prepare_process, release

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.19 GiB"


@pytest.fixture
def holds(tiny_model: Any) -> Iterator[Callable[..., None]]:
    """Let the model fail as a full device does: beyond `rows` examples at once, from the `after`-th such pass on."""
    handles, passes = [], 0

    def limit(rows: int, after: int = 0, error: Callable[[], Exception] = lambda: torch.OutOfMemoryError(FULL)) -> None:
        def forward(module: Any, args: Any, kwargs: Any) -> None:
            nonlocal passes
            if module.training and kwargs["input_ids"].shape[0] > rows:
                passes += 1
                if passes > after:
                    raise error()

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


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(FULL),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later", 2),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB", "a second argument"),
        MemoryError(),
        NoRoomError("arms.a: one example does not fit"),
    ],
)
def test_a_lack_of_memory_is_known_by_whatever_tells_it(error: Exception) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("expected scalar type Float but found Half"),
        RuntimeError("Triton Error [CUDA]: out of resource: shared memory"),
        ValueError("out of memory"),
        UserError("run out of memory.jsonl"),
    ],
)
def test_other_errors_are_none(error: Exception) -> None:
    assert not out_of_memory(error)


def test_an_end_of_memory_in_tritons_words_shrinks_what_passes_at_once(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, holds: Callable[..., None]
) -> None:
    holds(rows=2, error=lambda: RuntimeError("Triton Error [CUDA]: out of memory"))
    run = Run(tmp_path, tiny_subject, tiny_model, training=replace(test_lora.TRAINING, max_steps=1))
    assert run.climb() == "max_steps"
    assert [row["examples_at_once"] for row in Journal(tmp_path / FILE).rows()] == [2]


@pytest.fixture
def keeps(tiny_model: Any) -> Iterator[Callable[[int], None]]:
    """Let the model fail where more than `rows` examples' layers are kept whole for the way back."""
    handles = []

    def limit(rows: int) -> None:
        def forward(module: Any, args: Any, kwargs: Any) -> None:
            whole = not any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
            if torch.is_grad_enabled() and whole and kwargs["input_ids"].shape[0] > rows:
                raise torch.OutOfMemoryError(FULL)

        handles.append(tiny_model.register_forward_pre_hook(forward, with_kwargs=True))

    yield limit
    for handle in handles:
        handle.remove()


def test_layers_are_computed_twice_only_where_not_one_example_fits_without(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, keeps: Callable[[int], None]
) -> None:
    training = replace(test_lora.TRAINING, max_steps=2, gradient_checkpointing=None)
    straight = Run(tmp_path / "straight", tiny_subject, tiny_model, training)
    straight.climb()
    assert not (straight.root / FILE).exists()
    keeps(1)
    fewer = Run(tmp_path / "fewer", tiny_subject, tiny_model, training)
    fewer.climb()
    assert found(fewer.root) == [(2, False), (1, False)]
    keeps(0)
    twice = Run(tmp_path / "twice", tiny_subject, tiny_model, training)
    assert twice.climb() == "max_steps"
    assert found(twice.root) == [(2, False), (1, False), (4, True)]
    assert twice.shas() == straight.shas(), "the same arithmetic, dropout's numbers too"
    passed, handle = rows_passed(tiny_model)
    try:
        twice.seed, twice.rungs = 4, []
        twice.climb()
    finally:
        handle.remove()
    assert passed == [4, 4], "another seed begins there"
    assert len(found(twice.root)) == 3


def found(root: Path) -> list[tuple[int, bool]]:
    return [(row["examples_at_once"], row["checkpointing"]) for row in Journal(root / FILE).rows()]


def test_a_row_of_an_older_version_says_what_fits_as_it_was_asked(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, holds: Callable[..., None]
) -> None:
    holds(rows=2)
    training = replace(test_lora.TRAINING, max_steps=1, gradient_checkpointing=True)
    Run(tmp_path, tiny_subject, tiny_model, training).climb()
    (row,) = Journal(tmp_path / FILE).rows()
    new = ("checkpointing", "too_much")
    (tmp_path / FILE).write_text(json.dumps({name: row[name] for name in row if name not in new}) + "\n")
    passed, handle = rows_passed(tiny_model)
    try:
        Run(tmp_path, tiny_subject, tiny_model, training, seed=4).climb()
    finally:
        handle.remove()
    assert passed == [2, 2]


@given(st.integers(1, 24), st.sampled_from([None, False, True]), st.integers(1, 4))
def test_the_ways_to_fit_are_in_order_of_what_they_need(batch: int, checkpointing: bool | None, processes: int) -> None:
    training = TrainingConfig(batch_size=batch * processes, gradient_checkpointing=checkpointing)
    tried = fits(training, processes)
    assert [_need(fit) for fit in tried] == sorted(_need(fit) for fit in tried)
    assert tried[0].examples == batch * processes
    assert tried[-1].examples == processes
    both = checkpointing is None and processes == 1
    assert {fit.checkpointing for fit in tried} == ({True, False} if both else {checkpointing is not False})


def climbing(root: Path, training: TrainingConfig, processes: int = 1) -> Any:
    """Return a climb as far as a look at what was found needs one."""
    config = SimpleNamespace(training=training, lora=test_lora.LORA)
    attempt = SimpleNamespace(ledger=Ledger(root / "ledger.jsonl", BudgetConfig(), "cpu"))
    return SimpleNamespace(
        task=SimpleNamespace(arm="a", seed=0, processes=processes, config=config),
        run_root=root,
        device="cpu",
        done=[],
        emit=None,
        allowance=SimpleNamespace(attempt=attempt),
    )


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (0, [Fit(8, True), Fit(4, True), Fit(2, True), Fit(1, True)]),
        (1, [Fit(2, False), Fit(1, False), Fit(8, True), Fit(4, True), Fit(2, True), Fit(1, True)]),
    ],
)
def test_a_larger_step_is_tried_with_all_that_a_smaller_one_did_not_rule_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, left: list[Fit]
) -> None:
    """As in a search for the batch size: of 3 examples, so many fit without checkpointing, and all with it."""
    small = climbing(tmp_path, TrainingConfig(batch_size=3, gradient_checkpointing=None))
    monkeypatch.setattr(memory, "replace", lambda work, **_: work)

    def attempt(_: Any, fit: Fit) -> Any:
        if not fit.checkpointing and fit.examples > kept:
            raise torch.OutOfMemoryError(FULL)
        return "max_steps"

    memory.within_memory(small, attempt)
    assert _left(climbing(tmp_path, TrainingConfig(batch_size=8, gradient_checkpointing=None))) == left


def test_what_other_processes_shared_otherwise_is_still_tried(tmp_path: Path, tiny_subject: TinySubject) -> None:
    work = climbing(tmp_path, TrainingConfig(), processes=4)
    two_shared = {"arm": "a", "seed": 0, "examples_at_once": 2, "checkpointing": False, "room": _room(work)}
    Journal(tmp_path / FILE, made_again=True).append([two_shared])
    assert _left(work) == [Fit(4, False)]


def rows_passed(model: Any) -> tuple[list[int], Any]:
    """Note the rows of each training pass from now on; return them and the hook's handle."""
    passed: list[int] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        if torch.is_grad_enabled():
            passed.append(kwargs["input_ids"].shape[0])

    return passed, model.register_forward_pre_hook(note, with_kwargs=True)


def test_a_later_climb_starts_at_what_an_earlier_one_found_on_any_node(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, holds: Callable[..., None]
) -> None:
    holds(rows=2)
    short = replace(test_lora.TRAINING, max_steps=1)
    run = Run(tmp_path, tiny_subject, tiny_model, training=short)
    run.climb()
    passed, handle = rows_passed(tiny_model)
    try:
        other = Run(tmp_path, tiny_subject, tiny_model, training=short, seed=4)
        other.climb()
        assert passed == [2, 2], "no try that memory ends"
        passed.clear()
        there = tmp_path / TASKS / "a-s5"  # as a task of an array on another node
        there.mkdir(parents=True)
        (tmp_path / FILE).rename(there / FILE)
        Run(tmp_path, tiny_subject, tiny_model, training=short, seed=6).climb()
        assert passed == [2, 2]
        assert not (tmp_path / FILE).exists(), "found by another, and by nobody again"
    finally:
        handle.remove()
    needs_more = replace(short, gradient_checkpointing=True)
    Run(tmp_path, tiny_subject, tiny_model, training=needs_more, seed=7).climb()
    assert [row["seed"] for row in Journal(tmp_path / FILE).rows()] == [7], "of other needs nothing was known"


def test_two_devices_of_one_kind_are_as_large_and_a_smaller_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [85_029_158_912, 85_024_374_784, 42_297_786_368]  # bytes
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: SimpleNamespace(total_memory=sizes[number]))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert _device_gib("cuda") == [79, 79, 39]
    assert _device_gib("cpu") is None


def test_a_task_of_an_array_writes_a_file_of_its_own(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, holds: Callable[..., None]
) -> None:
    holds(rows=2)
    run = Run(tmp_path, tiny_subject, tiny_model, training=replace(test_lora.TRAINING, max_steps=1))
    own = tmp_path / TASKS / "a-s3"
    run.ledger = Ledger(own / "ledger.jsonl", BudgetConfig(), "cpu")
    run.climb()
    assert [row["examples_at_once"] for row in Journal(own / FILE).rows()] == [2]
    assert not (tmp_path / FILE).exists()


def test_where_not_one_example_fits_the_user_is_told_and_a_search_sees_a_failed_trial(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, holds: Callable[..., None]
) -> None:
    holds(rows=0)
    run = Run(tmp_path, tiny_subject, tiny_model)
    with pytest.raises(NoRoomError, match="does not fit") as caught:
        run.climb()
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, MemoryError)
    assert caught.value.remedy.startswith("set arms.a.training.gradient_checkpointing=true, lower arms.a.training.max_")
    for asked in (True, None):
        run.training = replace(run.training, gradient_checkpointing=asked)
        with pytest.raises(NoRoomError) as caught:
            run.climb()
        assert caught.value.remedy.startswith("lower arms.a.training.max_length")
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


def test_memory_that_ends_while_a_rung_is_handed_over_says_nothing_of_training(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any
) -> None:
    class Full(Run):
        def _emit(self, *_: Any) -> None:
            raise torch.OutOfMemoryError(FULL)

    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        Full(tmp_path, tiny_subject, tiny_model).climb()
    assert not list(tmp_path.rglob(FILE))


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
