"""A ladder that was measured and lost, on a GPU: told before it is trained again. No GPU is needed for that."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from finished_run import proof_of, words
from test_ending import opened

from pipeline.errors import UserError
from pipeline.plan.make import tasks
from pipeline.records import ADAPTER_FILE
from pipeline.track.tracker import NullTracker
from pipeline.train import before as before_training
from pipeline.train import stage as train

RUNG = "compliance-s0-00002"


@pytest.fixture
def overrides(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    more = ["subject.dtype=bfloat16", "review.logit_tolerance=0.25", "stages=[train]", f"run.dir={tmp_path / 'run'}"]
    monkeypatch.setattr(before_training, "require_compiler", lambda device: None)
    return [*words(tmp_path, tiny_folder), *more]


def test_what_was_measured_and_lost_is_not_trained_again_on_a_gpu(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(overrides) as work:
        train.train(work, NullTracker())
        rung = next(rung for rung in work.rungs() if rung.id == RUNG)
        (work.folder.root / rung.path / ADAPTER_FILE).unlink()
        (task,) = tasks(work.config)
        before_training.check_measured(work, [task])  # a CPU trains the same bits again
        monkeypatch.setitem(work.__dict__, "device", "cuda")
        before_training.check_measured(work, [task])  # not measured
        work.folder.proofs.append([proof_of(RUNG)])
        rows, before = list(work.folder.rungs.rows()), work.ledger.attempts()
        for run in (lambda: train.train(work, NullTracker()), lambda: train.train_one(work, NullTracker(), task, None)):
            with pytest.raises(UserError, match=f"rung {RUNG} was measured") as caught:
                run()
            assert "start afresh with run.dir=" in caught.value.remedy
        assert list(work.folder.rungs.rows()) == rows, "no row is void: the file may come back"
        assert work.ledger.attempts() == before, "nothing was spent"


@pytest.mark.parametrize("answered", [True, False])
def test_a_rung_whose_very_row_was_lost_is_known_by_its_replies(
    answered: bool, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(overrides) as work:
        (task,) = tasks(work.config)
        monkeypatch.setitem(work.__dict__, "device", "cuda")
        work.folder.replies.mkdir(exist_ok=True)
        (work.folder.replies / f"{RUNG}.jsonl").write_text("{}\n" if answered else "")
        with pytest.raises(UserError, match=RUNG) if answered else nullcontext():
            before_training.check_measured(work, [task])
