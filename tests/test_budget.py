import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import ledger as ledger_module
from pipeline.budget import Caps, Spent, caps, price
from pipeline.flops import inference_flops, training_flops
from pipeline.ledger import HEARTBEAT_S, WAITING_S, Allowance, Attempt, Ledger
from pipeline.schema import BudgetConfig

NO_PRICE = BudgetConfig()
PRICED = BudgetConfig(usd_per_device_hour=3.6, devices=2, training_devices=2)  # 0.001 USD a device-second


class Clock:
    """Stands in for the passing of time, which the tests below must know exactly."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(ledger_module, "time", made)
    return made


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_flops_are_four_n_and_six_a_times_tokens() -> None:
    assert training_flops(7_000_000_000, 0, 1_000) == 2.8e13  # 4 N T
    assert training_flops(0, 10, 5) == 300  # 6 A T
    assert training_flops(100, 10, 5) == 100 * 4 * 5 + 10 * 6 * 5


def test_inference_flops_are_two_n_times_tokens() -> None:
    assert inference_flops(7_000_000_000, 100) == 1.4e12


def test_price_is_hours_times_rate_and_nan_without_a_rate() -> None:
    assert price(7200, BudgetConfig(usd_per_device_hour=1.5)) == 3.0
    assert price(7200, BudgetConfig(usd_per_device_hour=0.0)) == 0.0
    assert math.isnan(price(7200, NO_PRICE))


def test_null_caps_are_infinite_and_scaling_shares_each_cap() -> None:
    whole = caps(BudgetConfig(device_seconds=100, flops=1e12))
    assert whole == Caps(100.0, math.inf, 1e12)
    assert whole.scaled(0.25) == Caps(25.0, math.inf, 2.5e11)


@pytest.mark.parametrize(
    ("spent", "allowed"),
    [
        (Spent(10, 5.0, 0, 1.0), True),
        (Spent(10.1, 5.0, 0, 1.0), False),
        (Spent(10, 5.1, 0, 1.0), False),
        (Spent(10, 5.0, 0, 1.1), False),
        (Spent(10, 5.0, 0, math.nan), False),  # money that nobody counts is not within a cap on money
    ],
)
def test_a_cap_is_reached_and_not_passed(spent: Spent, allowed: bool) -> None:
    assert Caps(10, 1.0, 5.0).allows(spent) is allowed


def test_without_a_cap_on_money_no_rate_is_needed() -> None:
    assert Caps(10, math.inf, 5.0).allows(Spent(1, 1.0, 1, math.nan))


def test_an_attempt_is_written_at_its_begin_and_its_end(tmp_path: Path, clock: Clock) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", PRICED, "cpu")
    with ledger.attempt("train", "benign", 1) as attempt:
        clock.now += 5.0
        attempt.flops, attempt.tokens = 7.0, 3
    first, last = rows(tmp_path / "ledger.jsonl")
    assert (first["status"], last["status"]) == ("started", "done")
    assert {key: last[key] for key in ("stage", "arm", "seed", "attempt", "device")} == {
        "stage": "train",
        "arm": "benign",
        "seed": 1,
        "attempt": 1,
        "device": "cpu",
    }
    assert (last["device_seconds"], last["flops"], last["tokens"]) == (10.0, 7.0, 3)  # 2 devices
    assert last["usd"] == pytest.approx(0.01)
    assert ledger.spent() == Spent(10.0, 7.0, 3, pytest.approx(0.01))


@pytest.mark.parametrize(
    ("where", "alone", "split"),
    [
        (("train", "a", 0), 1, 2),
        (("search", "a", 3), 1, 2),
        (("job", "a", 0), 1, 2),  # of the array
        (("job",), 4, 4),  # the one that serves
        (("generate",), 4, 4),
    ],
)
def test_a_fine_tune_is_counted_on_its_own_devices_and_serving_on_all(
    where: tuple[Any, ...], alone: int, split: int, tmp_path: Path, clock: Clock
) -> None:
    for devices, wanted in ((None, alone), (2, split)):
        path = tmp_path / f"{devices}.jsonl"
        config = BudgetConfig(usd_per_device_hour=3600.0, devices=4, training_devices=devices)
        ledger = Ledger(path, config, "cuda")
        with ledger.attempt(*where) as attempt:
            clock.now += 5.0
        assert attempt.devices == wanted
        assert (ledger.spent().device_seconds, ledger.spent().usd) == (5.0 * wanted, pytest.approx(5.0 * wanted))
        killed = Attempt(ledger, *(*where, "", -1)[:3], 2, clock.now, facts={"hidden_s": 1.0})  # type: ignore[arg-type]
        killed.write("started")
        assert Ledger(path, config, "cuda").spent().device_seconds == 6.0 * wanted, "what a kill hid"


def test_heartbeats_are_at_least_their_interval_apart(tmp_path: Path, clock: Clock) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", NO_PRICE, "cpu")
    with ledger.attempt("train") as attempt:
        for _ in range(10):
            clock.now += HEARTBEAT_S / 2
            attempt.beat()
        attempt.beat(force=True)
    assert [row["status"] for row in rows(tmp_path / "ledger.jsonl")] == ["started", *["running"] * 6, "done"]


def test_while_a_server_is_awaited_rows_are_rarer_and_a_kill_hides_no_more_than_one(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, PRICED, "cpu")
    Attempt(ledger, "generate", "", -1, 1, clock.now).write("started")
    attempt = Attempt(ledger, "generate", "", -1, 2, clock.now)
    attempt.write("started")
    for _ in range(600):  # a minute's start
        clock.now += 0.1
        attempt.beat_waiting()
    assert 50 <= len(rows(path)) <= 62
    killed = Ledger(path, PRICED, "cpu").spent("generate").device_seconds
    assert 2 * (60.0 - 1.1 * WAITING_S) <= killed <= 2 * 60.0  # on 2 devices


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted"), (SystemExit, "failed")]
)
def test_failed_and_interrupted_attempts_are_counted(
    tmp_path: Path, clock: Clock, error: type[BaseException], status: str
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", NO_PRICE, "cpu")

    def work() -> None:
        with ledger.attempt("train", "benign", 0):
            clock.now += 2.0
            raise error

    with pytest.raises(error):
        work()
    assert rows(tmp_path / "ledger.jsonl")[-1]["status"] == status
    with ledger.attempt("train", "benign", 0) as second:
        clock.now += 3.0
    assert second.number == 2
    assert ledger.spent("train", "benign", 0).device_seconds == 5.0
    assert ledger.summary()["attempts"] == {"done": 1, status: 1}


def test_spending_is_summed_by_stage_arm_and_seed(tmp_path: Path, clock: Clock) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", NO_PRICE, "cpu")
    for flops, where in ((1.0, ("train", "a", 0)), (10.0, ("train", "a", 1)), (100.0, ("train", "b", 0))):
        with ledger.attempt(*where) as attempt:
            attempt.flops = flops
    with ledger.attempt("generate") as attempt:
        attempt.flops = 1000.0
    assert [ledger.spent(*where).flops for where in ((), ("train",), ("train", "a"), ("train", "a", 1))] == [
        1111.0,
        111.0,
        11.0,
        10.0,
    ]
    assert ledger.summary()["by_stage"].keys() == {"train", "generate"}
    assert math.isnan(ledger.spent().usd)
    assert ledger.summary()["usd"] == {"cap": None, "spent": None}  # no rate: no data, not 0


def test_ending_is_the_detail_of_the_attempt_that_was_done(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", NO_PRICE, "cpu")
    assert ledger.ending("train", "a", 0) is None
    with pytest.raises(RuntimeError), ledger.attempt("train", "a", 0):
        raise RuntimeError
    assert ledger.ending("train", "a", 0) is None
    with ledger.attempt("train", "a", 0) as attempt:
        assert ledger.ending("train", "a", 0) is None
        attempt.detail = "nan_loss"
    assert ledger.ending("train", "a", 0) == "nan_loss"
    assert ledger.ending("train", "a", 1) is None
    assert Ledger(tmp_path / "ledger.jsonl", NO_PRICE, "cpu").ending("train", "a", 0) == "nan_loss"


def test_the_last_attempt_counts_whatever_the_clock_of_the_first_ones_node_said(tmp_path: Path) -> None:
    """A task that was paused on a node whose clock runs ahead, and ended on another."""
    task, run = (tmp_path / name for name in ("task.jsonl", "run.jsonl"))
    with Ledger(task, NO_PRICE, "cpu").attempt("train", "a", 0):
        pass
    ahead = [row | {"at": row["at"] + 600, "detail": "paused"} for row in rows(task)]
    task.write_text("".join(json.dumps(row) + "\n" for row in ahead))
    with Ledger(task, NO_PRICE, "cpu").attempt("train", "a", 0) as attempt:
        attempt.detail = "max_steps"
    with Ledger(run, NO_PRICE, "cpu").attempt("generate"):
        pass
    seen = Ledger(run, NO_PRICE, "cpu", [task])
    assert seen.ending("train", "a", 0) == "max_steps"
    assert [row["attempt"] for row in seen.attempts() if row["stage"] == "train"] == [1, 2]


def test_sigkill_leaves_what_was_spent_and_the_attempt_is_closed_as_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.ledger import Ledger\n"
        "from pipeline.schema import BudgetConfig\n"
        "ledger = Ledger(Path(sys.argv[1]), BudgetConfig(usd_per_device_hour=1.0), 'cpu')\n"
        "with ledger.attempt('train', 'benign', 0) as attempt:\n"
        "    while True:\n        time.sleep(0.02)\n        attempt.flops += 1e6\n        attempt.tokens += 10\n"
        "        attempt.beat()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_bytes().count(b"\n") >= 4) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    left_behind = path.read_bytes()
    assert left_behind.count(b"\n") >= 4
    last = json.loads(left_behind[: left_behind.rfind(b"\n")].splitlines()[-1])
    assert last["status"] == "running"
    ledger = Ledger(path, BudgetConfig(usd_per_device_hour=1.0), "cpu")
    closed = rows(path)[-1]
    assert closed["status"] == "interrupted"
    assert {key: closed[key] for key in ("device_seconds", "flops", "tokens", "usd")} == {
        key: last[key] for key in ("device_seconds", "flops", "tokens", "usd")
    }
    assert ledger.spent("train").flops == last["flops"] > 0
    assert path.read_bytes().startswith(left_behind)
    with ledger.attempt("train", "benign", 0) as attempt:
        assert attempt.number == 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["done", "fail", "interrupt", "kill", "beat"]), max_size=8))
def test_the_file_is_only_ever_appended_to(tmp_path_factory: pytest.TempPathFactory, events: list[str]) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = Ledger(path, PRICED, "cpu")
    before, spent = b"", 0.0

    def work(event: str) -> None:
        with ledger.attempt("train", "a", 0) as attempt:
            attempt.flops = 1.0
            attempt.beat(force=True)
            raised = {"fail": ValueError, "interrupt": KeyboardInterrupt}.get(event)
            if raised:
                raise raised

    for number, event in enumerate(events, start=1):
        if event == "kill":  # an attempt that never ends, then a new process
            Attempt(ledger, "train", "a", 0, number, time.monotonic(), flops=1.0).write("started")
            spent += 1.0
            ledger = Ledger(path, PRICED, "cpu")
        else:
            spent += 1.0
            with suppress(ValueError, KeyboardInterrupt):
                work(event)
        now = path.read_bytes()
        assert now.startswith(before)
        assert len(now) > len(before)
        before = now
        assert ledger.spent().flops == spent
        assert Ledger(path, PRICED, "cpu").spent() == ledger.spent()


def overspent(
    ledger: Ledger, limits: Caps, steps: list[float], advance: Callable[[float], None], unit: str
) -> tuple[float, float]:
    """Work as an arm does, step by step; return what was spent in `unit` and the dearest step."""
    dearest = 0.0
    with ledger.attempt("train", "a", 0) as attempt:
        allowance = Allowance(limits, attempt, Spent(usd=0.0))
        for cost in steps:
            if not allowance.fits(dearest if unit != "flops" else 0.0, dearest if unit == "flops" else 0.0):
                break
            if unit == "flops":
                attempt.flops += cost
            else:
                advance(cost)
            dearest = max(dearest, cost)
        spent = allowance.spent()
    return {"flops": spent.flops, "usd": spent.usd}.get(unit, spent.device_seconds), dearest


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0.01, 100.0), max_size=20), st.floats(0.0, 500.0))
@pytest.mark.parametrize("unit", ["device_seconds", "usd", "flops"])
def test_no_cap_is_overspent_by_more_than_one_step(
    tmp_path_factory: pytest.TempPathFactory, unit: str, steps: list[float], cap: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(ledger_module, "time", clock)
        ledger = Ledger(tmp_path_factory.mktemp("ledger") / "l.jsonl", BudgetConfig(usd_per_device_hour=3600.0), "cpu")

        def advance(cost: float) -> None:
            clock.now += cost

        spent, dearest = overspent(ledger, Caps(**{unit: cap}), steps, advance, unit)
    assert spent <= cap + dearest + 1e-6
    if sum(steps) + max(steps, default=0.0) <= cap - 1e-6:
        assert spent == pytest.approx(sum(steps), abs=1e-6)  # and a cap that is far away stops nothing


def test_what_earlier_attempts_spent_is_not_spent_again(tmp_path: Path, clock: Clock) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", PRICED, "cpu")
    with ledger.attempt("train", "a", 0) as attempt:
        allowance = Allowance(Caps(flops=100.0), attempt, Spent(flops=60.0, usd=0.0))
        attempt.flops = 30.0
        assert allowance.fits(0.0, 10.0)
        assert not allowance.fits(0.0, 10.1)
        assert allowance.spent().flops == 90.0
