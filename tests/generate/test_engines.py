"""What is proved is an engine: a run that goes on by another proves anew what that one is asked, alone and together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from measured_run import CANARIES, engine_of, lose_a_reply, measure, opened, said, trained

from pipeline.errors import InstrumentError
from pipeline.generate import stage
from pipeline.generate.proof import Proof
from pipeline.generate.proving import TOGETHER, Prover, controls, proofs
from pipeline.generate.stage import generate
from pipeline.journal import Journal
from pipeline.records import BASE_RUNG
from pipeline.rungs import MIXED, UNLOADED, ZERO_RUNG
from pipeline.track.tracker import NullTracker

FIRST, LAST = "compliance-s0-00001", "compliance-s0-00002"


@pytest.fixture
def overrides(tmp_path: Path, tiny_folder: Path) -> list[str]:
    return said(measure(tmp_path, tiny_folder), tmp_path, tiny_folder)


@pytest.fixture
def work(overrides: list[str]) -> Any:
    """A run whose first engine gave all but one reply of the last rung."""
    made = opened(overrides)
    lose_a_reply(made)
    with made.ledger.attempt(stage.STAGE) as attempt:
        attempt.detail = "budget"
    return made


def on(work: Any, monkeypatch: pytest.MonkeyPatch, **instead: Any) -> Any:
    """Generate by a second engine; return it."""
    engine = engine_of(work, **instead)
    monkeypatch.setattr(stage, "_server", lambda *_: engine)
    generate(work, NullTracker())
    return engine


def test_an_engine_that_goes_on_proves_what_it_is_asked_and_no_more(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(work.folder.proofs.rows())
    engine = on(work, monkeypatch)
    assert engine.asked == [(name, CANARIES) for name in (BASE_RUNG, LAST, UNLOADED)], "a few requests a resume"
    rows = list(work.folder.proofs.rows())
    assert rows[: len(before)] == before
    assert [(row["rung"], row["attempt"]) for row in rows[len(before) :]] == [
        (name, 2) for name in (BASE_RUNG, LAST, UNLOADED)
    ]
    assert {name: proof.attempt for name, proof in proofs(work).items()} == {
        **dict.fromkeys((ZERO_RUNG, FIRST, MIXED), 1),
        **dict.fromkeys((BASE_RUNG, LAST, UNLOADED), 2),
    }
    assert controls(work)["adapter_parity"] == "pass"


@pytest.mark.parametrize(
    ("name", "answers", "told"),
    [
        (LAST, trained(0), f"rung {LAST}: the server ignores its adapter"),
        (LAST, trained(7), f"rung {LAST}: what is served is not what was trained"),
        (BASE_RUNG, trained(1), "rung base: what is served is not what was trained"),
        (UNLOADED, trained(2), "an adapter that was deliberately not loaded was not caught"),
    ],
)
def test_a_second_engine_that_serves_something_else_gives_no_reply(
    name: str, answers: Any, told: str, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one passed all of it: as its proofs stand, nothing would have been asked of the second."""
    there = {path: path.read_bytes() for path in work.folder.replies.iterdir()}
    with pytest.raises(InstrumentError, match=told):
        on(work, monkeypatch, **{name.replace("-", "_"): answers})
    assert {path: path.read_bytes() for path in work.folder.replies.iterdir()} == there
    assert name not in {row["rung"] for row in work.folder.proofs.rows() if row["attempt"] == 2}


def test_a_rung_that_is_asked_in_a_later_round_is_proved_by_then(work: Any) -> None:
    base, zero, first, last = work.rungs()
    engine = engine_of(work)
    with work.ledger.attempt(stage.STAGE) as attempt:
        prover = Prover(work, engine, attempt)
        prover.prove([base, first])
        assert engine.asked == [(name, CANARIES) for name in (BASE_RUNG, FIRST, UNLOADED)], "one alone mixes with none"
        prover.prove([base, zero, first, last])
    engine.stop()
    alone, together = engine.asked[3:5], engine.asked[5:]
    assert alone == [(ZERO_RUNG, CANARIES), (LAST, CANARIES)]
    assert sorted(together) == [(LAST, TOGETHER), (ZERO_RUNG, TOGETHER)]


def test_adapters_that_are_asked_at_once_are_in_flight_together_and_rung_0_is_not(
    work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.folder.proofs.path.unlink()
    engine = on(work, monkeypatch)
    names = [name for name, count in engine.asked if count == TOGETHER]
    assert sorted(names) == [FIRST, LAST, ZERO_RUNG]
    assert engine.together == len(names)
    assert proofs(work)[MIXED].status == "pass"
    assert controls(work)["mixed_batches"] is True


@pytest.mark.parametrize("answers", [trained(0), trained(7)])
def test_adapters_that_mix_in_a_batch_are_found_before_a_reply_is_asked(
    answers: Any, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.folder.proofs.path.unlink()
    with pytest.raises(InstrumentError, match=r"asked at once with other adapters it does not.*serve\.max_loras=1"):
        on(work, monkeypatch, mixed=answers)
    assert MIXED not in proofs(work)
    assert controls(work)["mixed_batches"] is None


def test_a_narrower_tolerance_holds_for_mixed_batches_too(overrides: list[str]) -> None:
    narrow = opened([*overrides, "review.logit_tolerance=1e-9"])
    assert controls(narrow)["mixed_batches"] is False
    assert controls(opened(overrides))["mixed_batches"] is True


def test_each_engine_is_held_to_the_rounding_that_its_own_rung_0_shows(tmp_path: Path, tiny_folder: Path) -> None:
    """Of two engines in 16 bits the second rounds less: what the first served is not held to that."""
    half = ("subject.dtype=bfloat16", "review.logit_tolerance=0.25")
    run = measure(tmp_path, tiny_folder)
    path = run / "proofs.jsonl"
    path.unlink()

    def proof(rung: str, differs: float, attempt: int) -> dict[str, Any]:
        return Proof(rung, "pass", differs, 3.0, 3.0, 0.4, attempt).as_dict()

    first = [proof(BASE_RUNG, 0.2, 1), proof(FIRST, 0.35, 1)]
    Journal(path).append([*first, proof(BASE_RUNG, 0.1, 2), proof(LAST, 0.2, 2)])
    work = opened([*said(run, tmp_path, tiny_folder), *half])
    found = controls(work)
    assert (found["adapter_parity"], found["tolerance"]) == ("pass", 0.4)
    Journal(path).append([proof(LAST, 0.35, 2)])
    assert controls(work)["adapter_parity"] == "fail", "the second engine rounds less"


def test_a_worse_engine_is_not_forgotten_for_a_better_one(overrides: list[str]) -> None:
    work = opened([*overrides, "review.logit_tolerance=0.01"])
    work.folder.proofs.append(
        [Proof(LAST, "pass", differs, 2.0, 2.0, 0.05, attempt).as_dict() for attempt, differs in ((2, 0.04), (3, 0.0))]
    )
    found = controls(work)
    assert (found["adapter_parity"], found["largest_difference"]) == ("fail", 0.04)
