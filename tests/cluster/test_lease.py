"""Leases: what a task may spend is cut once, and no kill of any task lets all together spend more than the budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import ledger as ledger_module
from pipeline.budget import JOB, Caps, Spent
from pipeline.cluster import held, lease
from pipeline.cluster.held import PULSE_S, Held
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.ledger import Allowance, Ledger
from pipeline.schema import BudgetConfig
from pipeline.store import RunFolder

STEP_S = 3.0  # the dearest training step of the tests below
CAP_S = 60.0


class Clock:
    """The passing of time, for ledger and job alike."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def clock_gettime(self, _which: int) -> float:
        return self.now

    CLOCK_BOOTTIME = 7


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(ledger_module, "time", made)
    monkeypatch.setattr(held, "time", made)
    return made


def test_a_lease_is_cut_once_and_never_from_another_budget(tmp_path: Path) -> None:
    lease.cut(tmp_path, "a/0", Caps(device_seconds=20.0))
    before = (tmp_path / lease.LEASE).read_bytes()
    lease.cut(tmp_path, "a/0", Caps(device_seconds=20.0))
    assert (tmp_path / lease.LEASE).read_bytes() == before
    assert lease.limits_of(tmp_path) == Caps(20.0, math.inf, math.inf)
    with pytest.raises(UserError, match="cut from another budget"):
        lease.cut(tmp_path, "a/0", Caps(device_seconds=21.0))
    assert (tmp_path / lease.LEASE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [lease.LEASE], "no draft is left"


def test_what_is_left_goes_back_and_until_then_nobody_counts_on_it(tmp_path: Path) -> None:
    folder, tasks = RunFolder(tmp_path), [RunFolder(tmp_path, f"a-s{seed}") for seed in (0, 1)]
    for seed, task in enumerate(tasks):
        lease.cut(task.own, f"a/{seed}", Caps(device_seconds=20.0, flops=100.0))
    with Ledger(tasks[0].ledger, BudgetConfig(), "cpu").attempt("train", "a", 0) as attempt:
        attempt.flops = 40.0
    ledger = Ledger(folder.ledger, BudgetConfig(), "cpu", folder.ledgers())
    open_ = lease.outstanding(folder, ledger)
    assert open_.device_seconds == pytest.approx(40.0, abs=0.5)
    assert open_.flops == 160.0
    assert open_.usd == 0.0, "a cap that there is not is never outstanding"
    lease.give_back(tasks[0].own, lease.used(ledger, "a", 0))
    assert read_json(tasks[0].own / lease.LEASE)["returned"]["flops"] == 60.0
    assert lease.outstanding(folder, ledger).flops == 100.0


def test_a_lease_of_a_task_that_ended_outside_its_array_is_free(tmp_path: Path) -> None:
    """The array was cancelled and the run went on locally: nothing gives the lease back, and nothing will use it."""
    folder, task = RunFolder(tmp_path), RunFolder(tmp_path, "a-s0")
    lease.cut(task.own, "a/0", Caps(flops=100.0))
    ledger = Ledger(folder.ledger, BudgetConfig(), "cpu", folder.ledgers())
    assert lease.outstanding(folder, ledger).flops == 100.0
    with ledger.attempt("train", "a", 0) as attempt:
        attempt.flops = 40.0
    assert lease.outstanding(folder, ledger).flops == 0.0


def test_a_job_is_paid_for_whole_and_no_second_twice(tmp_path: Path, clock: Clock) -> None:
    two = BudgetConfig(devices=4, training_devices=2)
    ledger = Ledger(tmp_path / "ledger.jsonl", two, "cpu")
    job = Held(ledger, JOB, "a", 0, 1, clock.now)
    clock.now += 10.0
    job.write("started")
    assert ledger.spent(JOB).device_seconds == 20.0
    with ledger.attempt("train", "a", 0):
        clock.now += 30.0
    job.write("running")
    assert ledger.spent("train").device_seconds == 60.0
    clock.now += 5.0
    job.write("done")
    assert (ledger.spent(JOB).device_seconds, ledger.spent().device_seconds) == (30.0, 90.0)
    again = Held(Ledger(tmp_path / "ledger.jsonl", two, "cpu"), JOB, "a", 0, 2, clock.now)
    clock.now += 4.0
    assert again.device_seconds() == 8.0, "what an earlier job did is not this one's"


def test_a_killed_job_is_charged_the_pulse_that_may_be_missing(tmp_path: Path, clock: Clock) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", BudgetConfig(), "cpu")
    Held(ledger, JOB, "a", 0, 1, clock.now - 7.0, facts={"hidden_s": PULSE_S}).write("started")
    for others in ((), (tmp_path / "nothing.jsonl",)):
        closed = Ledger(tmp_path / "ledger.jsonl", BudgetConfig(), "cpu", others)
        assert closed.spent(JOB).device_seconds == 7.0 + PULSE_S
    reader = Ledger(tmp_path / "other.jsonl", BudgetConfig(), "cpu", [tmp_path / "ledger.jsonl"])
    assert reader.spent(JOB).device_seconds == 7.0 + PULSE_S
    assert not (tmp_path / "other.jsonl").exists(), "a reader does not write for others"


def test_the_pulse_beats_while_the_work_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "PULSE_S", 0.02)
    ledger = Ledger(tmp_path / "ledger.jsonl", BudgetConfig(), "cpu")
    with held.held(ledger, "a", 0):
        end = ledger_module.time.monotonic() + 0.5
        while ledger_module.time.monotonic() < end:
            pass
    statuses = [row["status"] for row in ledger.journal.rows()]
    assert (statuses[0], statuses[-1]) == ("started", "done")
    assert statuses.count("running") >= 5
    assert ledger.spent(JOB).device_seconds >= 0.5, "Python's own start is paid for as well"


starts = st.lists(  # of one task: seconds until the ledger is opened, steps until a kill, and how far into one
    st.tuples(st.floats(0.0, 8.0), st.integers(0, 20), st.floats(0.0, 1.0), st.floats(0.5, STEP_S)), max_size=6
)


@settings(max_examples=60, deadline=None)
@given(st.lists(starts, min_size=1, max_size=4))
def test_whatever_is_killed_the_array_spends_at_most_its_leases_and_a_step_each(
    tmp_path_factory: pytest.TempPathFactory, plan: list[list[Any]]
) -> None:
    """Each task starts, climbs, is killed in the middle of a step, starts again, and climbs until its lease ends."""
    root, clock = tmp_path_factory.mktemp("array"), Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "time", clock)
        patch.setattr(held, "time", clock)
        true = [climb(RunFolder(root, f"a-s{seed}"), seed, mine, clock, len(plan)) for seed, mine in enumerate(plan)]
        folder = RunFolder(root)
        ledger = Ledger(folder.ledger, BudgetConfig(), "cpu", folder.ledgers())
    share = CAP_S / len(plan)
    for seed, (spent, opened_late) in enumerate(true):
        used = lease.used(ledger, "a", seed)
        assert used.device_seconds >= spent - 1e-6, "the ledger knows of all that was spent"
        assert spent <= share + STEP_S + opened_late, "a task overspends its lease by one step at most"
    assert ledger.spent().device_seconds == pytest.approx(
        sum(lease.used(ledger, "a", seed).device_seconds for seed in range(len(plan)))
    )


def climb(folder: RunFolder, seed: int, starts: list[Any], clock: Clock, tasks: int) -> tuple[float, float]:
    """Return what a task really spent, and how much of it came before its last ledger was opened."""
    lease.cut(folder.own, f"a/{seed}", Caps(device_seconds=CAP_S / tasks))
    spent, begun = 0.0, 0.0
    for begun, steps, cut_at, step_s in [*starts, (1.0, 10**6, 0.0, STEP_S)]:
        began = clock.now
        clock.now += begun
        ledger = Ledger(folder.ledger, BudgetConfig(), "cpu")
        job = Held(ledger, JOB, "a", seed, ledger.number(JOB, "a", seed), began, facts={"hidden_s": PULSE_S})
        job.write("started")
        training = ledger.attempt("train", "a", seed)
        before = lease.used(ledger, "a", seed)
        attempt = training.__enter__()
        allowance = Allowance(lease.limits_of(folder.own), attempt, before)
        done = 0
        while done < steps and allowance.fits(step_s if done else 0.0, 0.0):
            pass_time(clock, job, step_s)
            attempt.beat(force=True)
            done += 1
        if done == steps and allowance.fits(step_s if done else 0.0, 0.0):
            pass_time(clock, job, cut_at * step_s)  # and here it is killed: nothing more is written
        else:
            attempt.write("done")
            job.write("done")
        spent += clock.now - began
        if attempt.status == "done":
            return spent, begun
    raise AssertionError("the last start climbs until the lease ends")


def pass_time(clock: Clock, job: Held, seconds: float) -> None:
    """Let time pass as the pulse's thread sees it."""
    while seconds > PULSE_S:
        clock.now += PULSE_S
        seconds -= PULSE_S
        job.write("running")
    clock.now += seconds


def test_spent_adds_up() -> None:
    assert Spent(1.0, 2.0, 3, 4.0) + Spent(1.0, 1.0, 1, 1.0) == Spent(2.0, 3.0, 4, 5.0)
