"""What is tried next where memory ends, with made-up tries in place of trainings; known answers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_lora

from pipeline.arms.base import Climb, Ending, Task
from pipeline.arms.memory import FILE, Fit, NoRoomError, _left, _room, out_of_memory, within_memory
from pipeline.errors import UserError
from pipeline.journal import TASKS, Journal
from pipeline.records import Rung
from pipeline.schema import ArmConfig, LoraConfig, TrainingConfig

TRAINING = TrainingConfig(batch_size=4, gradient_checkpointing=False)
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"


def climb_in(
    root: Path,
    training: TrainingConfig = TRAINING,
    lora: LoraConfig = test_lora.LORA,
    emit: Callable[[Rung, Mapping[str, Any]], None] = lambda _rung, _answers: None,
) -> Climb:
    """Return a climb that nothing trains: what memory asks of it and no more."""
    nothing: Any = None
    ledger = SimpleNamespace(journal=Journal(root / "ledger.jsonl"))
    allowance: Any = SimpleNamespace(attempt=SimpleNamespace(ledger=ledger))
    config = ArmConfig(threat="none", mix={"t": 1.0}, lora=lora, training=training)
    return Climb(
        task=Task("a", 0, config, ()),
        device="cpu",
        **dict.fromkeys(("subject", "base_sha256", "model", "examples", "folder", "canaries"), nothing),
        allowance=allowance,
        run_root=root,
        done=[],
        emit=emit,
    )


def rung(step: int) -> Rung:
    return Rung(f"a-s0-{step:05d}", "a", 0, step)


def note(work: Climb, examples: int, checkpointing: bool = False, at: Path | None = None, **other: Any) -> None:
    found = {"examples_at_once": examples, "checkpointing": checkpointing}
    too_much = {"examples": 2 * examples, "checkpointing": checkpointing}
    row = {"arm": "a", "seed": 7, **found, "too_much": too_much, "room": _room(work)}
    Journal((at or work.run_root) / FILE, made_again=True).append([row | other])


def rows(root: Path) -> list[tuple[int, int, bool]]:
    found = Journal(root / FILE).rows()
    return [(row["after_step"], row["examples_at_once"], row["checkpointing"]) for row in found]


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 2048},
        {"packing": True},
        {"liger": True},
        {"optimizer": "adamw_torch_fused"},
        {"precision": "bfloat16"},
        {"gradient_checkpointing": True},
        {"rank": 64},
        {"target_modules": ["q_proj"]},
    ],
)
def test_what_was_found_with_other_needs_says_nothing(change: dict[str, Any], tmp_path: Path) -> None:
    def changed(config: Any) -> Any:
        own = {name: value for name, value in change.items() if hasattr(config, name)}
        assert all(getattr(config, name) != value for name, value in own.items())
        return type(config)(**{**vars(config), **own})

    work, other = climb_in(tmp_path), climb_in(tmp_path, changed(TRAINING), changed(test_lora.LORA))
    note(other, 1)
    assert [fit.examples for fit in _left(work)] == [4, 2, 1]
    note(work, 1)
    assert _left(work) == [Fit(1, False)]


def test_what_another_arm_found_says_nothing_of_this_ones_examples(tmp_path: Path) -> None:
    work = climb_in(tmp_path)
    note(work, 1, arm="b")
    assert [fit.examples for fit in _left(work)] == [4, 2, 1]


def test_what_did_not_fit_on_a_smaller_device_is_tried_on_a_larger_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_gib(gib: int) -> Climb:
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(total_memory=gib * 2**30))
        work = climb_in(tmp_path)
        work.device = "cuda"
        return work

    note(on_gib(40), 1)
    assert [fit.examples for fit in _left(on_gib(80))] == [4, 2, 1]
    assert [fit.examples for fit in _left(on_gib(40))] == [1]


def test_a_damaged_finding_may_be_removed_since_it_is_made_again(tmp_path: Path) -> None:
    work = climb_in(tmp_path)
    (tmp_path / FILE).write_text("no JSON\n")
    note(work, 2)
    with pytest.raises(UserError, match="line 1: not JSON") as caught:
        _left(work)
    assert caught.value.remedy == "the file was damaged; remove it and run the same command again"


def test_of_all_that_was_found_on_any_node_the_least_memory_is_begun_with(tmp_path: Path) -> None:
    """Not what was found last: seeds that climb side by side write in any order."""
    asked = TrainingConfig(batch_size=4, gradient_checkpointing=None)
    work = climb_in(tmp_path, asked)
    there = tmp_path / TASKS / "a-s1"
    there.mkdir(parents=True)
    note(work, 1)
    note(work, 2)
    assert _left(work) == [Fit(1, False), Fit(4, True), Fit(2, True), Fit(1, True)]
    note(work, 2, checkpointing=True, at=there)
    assert _left(work) == [Fit(2, True), Fit(1, True)]


@pytest.mark.parametrize("error", [RuntimeError(FULL), MemoryError()])
def test_a_try_goes_on_after_the_last_rung_that_stands(error: Exception, tmp_path: Path) -> None:
    """Rungs 1 and 2 stood before this command, the first try hands over rung 4, and the second none."""
    tried: list[tuple[list[int], Fit]] = []
    handed: list[int] = []
    work = climb_in(tmp_path, emit=lambda rung, _answers: handed.append(rung.step))
    work.done = [rung(1), rung(2)]

    def attempt(now: Climb, fit: Fit) -> Ending:
        tried.append(([each.step for each in now.done], fit))
        if fit.examples == 4:
            now.emit(rung(4), {})
        if fit.examples > 1:
            raise error
        return "max_steps"

    assert within_memory(work, attempt) == "max_steps"
    assert tried == [([1, 2], Fit(4, False)), ([1, 2, 4], Fit(2, False)), ([1, 2, 4], Fit(1, False))]
    assert rows(tmp_path) == [(4, 2, False), (4, 1, False)]
    assert handed == [4]
    assert [each.step for each in work.done] == [1, 2], "the caller's own list is left alone"


def test_a_failed_tries_tensors_are_let_go_before_the_next(tmp_path: Path) -> None:
    """Also what only a cycle holds: Python would free it some time, and the next try may need its room at once."""

    class Tensors:
        itself: Any = None

    held: list[weakref.ref[Tensors]] = []

    def attempt(now: Climb, fit: Fit) -> Ending:
        assert [each() for each in held] == [None] * len(held)
        tensors = Tensors()
        tensors.itself = tensors
        held.append(weakref.ref(tensors))
        if fit.examples > 1:
            raise RuntimeError(FULL)
        return "max_steps"

    gc.disable()
    try:
        within_memory(climb_in(tmp_path), attempt)
    finally:
        gc.enable()
    assert len(held) == 3


def test_before_any_rung_a_try_begins_anew(tmp_path: Path) -> None:
    def attempt(now: Climb, fit: Fit) -> Ending:
        if fit.examples > 2:
            raise RuntimeError(FULL)
        return "max_steps"

    assert within_memory(climb_in(tmp_path), attempt) == "max_steps"
    assert rows(tmp_path) == [(0, 2, False)]


def test_after_the_last_try_nothing_is_noted_and_the_arm_and_its_length_are_told(tmp_path: Path) -> None:
    def attempt(now: Climb, fit: Fit) -> Ending:
        raise RuntimeError(FULL)

    with pytest.raises(NoRoomError, match=f"one example of up to {TRAINING.max_length} tokens does not fit"):
        within_memory(climb_in(tmp_path), attempt)
    assert rows(tmp_path) == [(0, 2, False), (0, 1, False)]


@pytest.mark.parametrize("error", [RuntimeError("the server is gone"), RuntimeError(FULL), MemoryError(), OSError()])
def test_what_fails_while_a_rung_is_handed_over_comes_out_as_it_is(error: Exception, tmp_path: Path) -> None:
    """Without the words for training, and without another try: the same would happen to it."""
    tried: list[Fit] = []

    def full(_rung: Rung, _answers: Mapping[str, Any]) -> None:
        raise error

    def attempt(now: Climb, fit: Fit) -> Ending:
        tried.append(fit)
        now.emit(rung(1), {})
        return "max_steps"

    with pytest.raises(type(error)) as caught:
        within_memory(climb_in(tmp_path, emit=full), attempt)
    assert caught.value is error
    assert tried == [Fit(4, False)]
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("error", [RuntimeError("expected scalar type Float"), ValueError(FULL), KeyboardInterrupt()])
def test_what_is_no_lack_of_memory_ends_the_climb_at_once(error: BaseException, tmp_path: Path) -> None:
    def attempt(now: Climb, fit: Fit) -> Ending:
        raise error

    assert not out_of_memory(error)
    with pytest.raises(type(error)) as caught:
        within_memory(climb_in(tmp_path), attempt)
    assert caught.value is error
    assert not (tmp_path / FILE).exists()
