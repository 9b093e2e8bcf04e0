"""The ladder's callback alone: no model, no trainer."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.arms.base import Climb, Example, Task
from pipeline.arms.ladder import LadderCallback
from pipeline.budget import Caps, Spent
from pipeline.errors import UserError
from pipeline.ledger import Allowance, Ledger
from pipeline.schema import ArmConfig, BudgetConfig, TrainingConfig


class Finite:
    """Stands in for the canaries."""

    @staticmethod
    def reference(_: Any) -> list[dict[int, float]]:
        return [{0: 0.0}]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a test moves on."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def callback(
    tmp_path: Any,
    *,
    devices: int | None = None,
    caps: Caps | None = None,
    precision: str = "float32",
    weights: Sequence[Any] = (),
) -> Any:
    ledger = Ledger(tmp_path / "ledger.jsonl", BudgetConfig(devices=8, training_devices=devices), "cpu")
    attempt = ledger.attempt("train", "a", 0).__enter__()
    training = TrainingConfig(max_steps=8, batch_size=1, precision=precision)
    subject: Any = SimpleNamespace(parameters=0)
    work = Climb(
        task=Task("a", 0, ArmConfig(threat="none", mix={"t": 1.0}, training=training), (8,)),
        subject=subject,
        base_sha256="",
        model=None,
        device="cpu",
        examples=[Example((1,), (2,))],
        allowance=Allowance(caps or Caps(), attempt, Spent()),
        folder=tmp_path,
        run_root=tmp_path,
        canaries=Finite(),  # type: ignore[arg-type]
        done=[],
        emit=lambda *_: None,
    )
    return LadderCallback(work, SimpleNamespace(parameters=lambda: iter(weights)))


@pytest.mark.parametrize(("spread", "counted", "told"), [(1, None, False), (2, None, True), (2, 2, False)])
def test_a_dose_is_not_counted_on_fewer_devices_than_hold_the_model(
    spread: int, counted: int | None, told: bool, tmp_path: Any
) -> None:
    weights = [SimpleNamespace(device=f"cuda:{n % spread}", requires_grad=False) for n in range(4)]
    with pytest.raises(UserError, match="counted on 1 and the model is spread over 2") if told else nullcontext():
        callback(tmp_path, devices=counted, weights=weights)


def control() -> Any:
    return SimpleNamespace(should_save=False, should_training_stop=False)


def state(step: int = 1) -> Any:
    return SimpleNamespace(global_step=step, num_input_tokens_seen=2 * step, log_history=[])


@pytest.mark.parametrize(("devices", "cap", "stops"), [(None, 25.0, False), (4, 79.0, True), (4, 81.0, False)])
def test_the_next_step_must_fit_in_device_seconds(
    devices: int | None, cap: float, stops: bool, tmp_path: Any, clock: list[float]
) -> None:
    climbing = callback(tmp_path, devices=devices, caps=Caps(device_seconds=cap))
    told = control()
    climbing.on_step_begin(None, state(), told)
    clock[0] += 10.0  # another step of this length would end at 20 s on each device
    climbing.on_step_end(None, state(), told)
    assert climbing.dose(state()).device_seconds == 10.0 * (devices or 1), "the 8 that serve are no part of the price"
    assert told.should_training_stop is stops


def test_a_steps_seconds_are_its_own_work_on_a_device_that_runs_behind(
    tmp_path: Any, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked before is waited for before the clock starts; what the step asked, before it stops."""
    behind = 0.0

    def wait(device: str) -> None:
        nonlocal behind
        if device == "cuda:1":
            clock[0] += behind
            behind = 0.0

    monkeypatch.setattr("torch.cuda.synchronize", wait)
    weights = [SimpleNamespace(device=f"cuda:{n}", requires_grad=False) for n in range(2)]
    climbing = callback(tmp_path, devices=2, weights=weights)
    behind = 7.0  # canaries, a first pass of the longest examples
    climbing.on_step_begin(None, state(), control())
    clock[0] += 1.0
    behind = 4.0
    climbing.on_step_end(None, state(), control())
    assert climbing.dose(state()).device_seconds == 2 * 5.0, "the device that is behind is not the first"


@pytest.mark.parametrize(
    ("precision", "loss", "norm", "ends"),
    [
        ("float32", 1.0, 2.0, False),
        ("float32", 1.0, math.inf, True),
        ("bfloat16", 1.0, math.nan, True),
        ("float16", 1.0, math.inf, False),  # the scale of the loss was too large: the step was skipped
        ("float16", 1.0, math.nan, False),
        ("float16", math.nan, 2.0, True),
    ],
)
def test_what_ends_a_ladder_as_no_number(precision: str, loss: float, norm: float, ends: bool, tmp_path: Any) -> None:
    climbing = callback(tmp_path, precision=precision)
    told = control()
    climbing.on_log(None, state(), told, logs={"loss": loss, "grad_norm": norm})
    assert told.should_training_stop is ends
    assert (climbing.ending == "nan_loss") is ends


def test_what_is_cut_is_not_reckoned_in_the_first_step_and_measured_steps_replace_the_reckoning(tmp_path: Any) -> None:
    ladder = callback(tmp_path, caps=Caps(flops=1e9))
    work = ladder.work
    work.subject.parameters = 1000
    work.task.config.training.max_length = 8
    work.examples = [Example((1,) * 6, (2,) * 2), Example((1,) * 6, (2,) * 994)]
    ladder.dearest_flops = ladder._first_step_flops()
    assert ladder.dearest_flops == 4 * 1000 * 8
    ladder.on_step_begin(None, None, None)
    ladder.on_step_end(None, state(1), control())  # 2 tokens
    assert ladder.dearest_flops == 4 * 1000 * 2
    ladder.on_step_begin(None, None, None)
    later = SimpleNamespace(global_step=2, num_input_tokens_seen=7, log_history=[])
    ladder.on_step_end(None, later, control())
    assert ladder.dearest_flops == 4 * 1000 * 5, "the dearest step that was measured"
    ladder.on_step_begin(None, None, None)
    ladder.on_step_end(None, SimpleNamespace(global_step=3, num_input_tokens_seen=8, log_history=[]), control())
    assert ladder.dearest_flops == 4 * 1000 * 5
