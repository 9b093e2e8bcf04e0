"""Rung after rung held against the server's answers: what rounding explains, and what a change of tolerance does."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from finished_run import finish, words
from rich.console import Console

from pipeline.config.compose import load
from pipeline.errors import InstrumentError, UserError
from pipeline.generate.proof import Proof, check
from pipeline.generate.proving import controls, proofs, require_caught, tolerance_of
from pipeline.journal import Journal
from pipeline.plan.registered import deciding
from pipeline.records import BASE_RUNG
from pipeline.rungs import UNLOADED, ZERO_RUNG
from pipeline.workspace import Workspace

BASE = [{1: -0.5, 2: -1.5}]


def proof(rung: str, differs: float) -> Proof:
    return Proof(rung, "pass", differs, 3.0, 3.0, 0.25)


def opened(place: Path, subject: Path, *more: str) -> Workspace:
    return Workspace(load([*words(place, subject), *more]), Console(file=io.StringIO()))


def test_rung_0_shows_what_rounding_does_and_the_rest_is_held_to_that(tmp_path: Path, tiny_folder: Path) -> None:
    half = opened(tmp_path, tiny_folder, "subject.dtype=bfloat16", "review.logit_tolerance=0.25")
    assert tolerance_of(half, None) == 1.0
    assert tolerance_of(half, proof(BASE_RUNG, 0.1)) == 0.25
    assert tolerance_of(half, proof(BASE_RUNG, 0.2)) == pytest.approx(0.4)
    whole = opened(tmp_path, tiny_folder)
    assert tolerance_of(whole, proof(BASE_RUNG, 0.2)) == 1e-3


def test_a_tolerance_that_no_16_bits_could_meet_is_told_while_planning(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"logit_tolerance: 0\.001 is less than bfloat16 rounds"):
        load([*words(tmp_path, tiny_folder), "subject.dtype=bfloat16"])


def test_another_tolerance_goes_on_in_the_same_folder_and_is_told(tmp_path: Path, tiny_folder: Path) -> None:
    run = finish(words(tmp_path, tiny_folder))
    changed = opened(tmp_path, tiny_folder, "review.logit_tolerance=0.01")
    assert changed.folder.root == run
    assert changed.post_hoc["review.logit_tolerance"] == {"planned": 1e-3, "used": 0.01}
    assert controls(changed)["adapter_parity"] == "pass"


def test_a_narrower_tolerance_holds_for_proofs_that_stand(tmp_path: Path, tiny_folder: Path) -> None:
    finish(words(tmp_path, tiny_folder))
    narrow = opened(tmp_path, tiny_folder, "review.logit_tolerance=1e-12")
    assert max(found.served_trained for found in proofs(narrow).values()) > 1e-12
    assert controls(narrow)["adapter_parity"] == "fail"


def test_a_wider_tolerance_that_nobody_names_any_more_fails_the_controls(tmp_path: Path, tiny_folder: Path) -> None:
    run = finish(words(tmp_path, tiny_folder))
    path = run / "proofs.jsonl"
    rows = [{**row, "tolerance": 1.0} for row in Journal(path).rows()]
    path.unlink()
    Journal(path).append({**row, "served_base": 0.8} if row["rung"] == ZERO_RUNG else row for row in rows)
    assert controls(opened(tmp_path, tiny_folder))["zero_adapter_equals_base"] is False
    path.unlink()
    Journal(path).append({**row, "served_trained": 0.8} if row["rung"] == BASE_RUNG else row for row in rows)
    assert controls(opened(tmp_path, tiny_folder))["adapter_parity"] == "fail"


def test_what_was_mended_in_serving_is_named(tmp_path: Path, tiny_folder: Path) -> None:
    run = finish(words(tmp_path, tiny_folder))
    changed = opened(tmp_path, tiny_folder, "serve.max_loras=2", "budget.devices=3")
    assert changed.folder.root == run
    assert changed.post_hoc["budget.devices"] == {"planned": 1, "used": 3}
    assert changed.post_hoc["serve.max_loras"]["used"] == 2
    assert deciding(changed.post_hoc) == ["budget.devices"]


def test_where_nothing_was_trained_far_enough_the_unloaded_adapter_shows_nothing() -> None:
    trained = [{1: -0.9, 2: -1.5}]  # 0.4 from rung 0: between one and two tolerances
    assert caught(BASE, trained) == "unresolved"
    assert caught(BASE, [{1: -1.9, 2: -1.5}]) == "ignored"
    elsewhere = [{1: -3.0, 2: -0.1}]
    with pytest.raises(InstrumentError, match="was not caught"):
        caught(elsewhere, trained)


def caught(served: list[dict[int, float]], trained: list[dict[int, float]]) -> str:
    return require_caught(check(UNLOADED, served=served, trained=trained, base=BASE, tolerance=0.25)).status


def test_rungs_that_are_told_apart_are_counted_by_arm(tmp_path: Path, tiny_folder: Path) -> None:
    run = finish(words(tmp_path, tiny_folder))
    work = opened(tmp_path, tiny_folder)
    assert controls(work)["arms_proved"] == {"compliance": 2}
    unresolved = Proof("be_nign-s-1-00004", "unresolved", 0.0, 0.0, 0.0, 1e-3, 1)
    Journal(run / "proofs.jsonl").append([unresolved.as_dict()])
    found = controls(work)
    assert found["arms_proved"] == {"compliance": 2, "be_nign": 0}
    assert found["adapter_parity"] == "pass", "of the engine, whose other adapters act"
