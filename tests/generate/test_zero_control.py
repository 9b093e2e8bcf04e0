"""The adapter of zeros: reply by reply in float32; by log-probability where a reply depends on the batch it shares."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from finished_run import finish, words
from rich.console import Console

from pipeline.config.compose import load
from pipeline.generate.proving import controls
from pipeline.journal import Journal
from pipeline.report import ReportData
from pipeline.report.claims import checks
from pipeline.rungs import ZERO_RUNG
from pipeline.score import score
from pipeline.workspace import Workspace


def found(place: Path, subject: Path, dtype: str, apart: float) -> dict[str, Any]:
    """Return the controls of a run whose zero adapter gave one other reply, `apart` from rung 0 in its proof."""
    tolerance = 0.001 if dtype == "float32" else 0.25
    overrides = [*words(place, subject), f"subject.dtype={dtype}", f"review.logit_tolerance={tolerance}"]
    run = finish(overrides)
    (path,) = (run / "replies").glob(f"{ZERO_RUNG}*")
    first, *others = Journal(path).rows()
    path.unlink()
    Journal(path).append([{**first, "reply": "another word"}, *others])
    proofs = list(Journal(run / "proofs.jsonl").rows())
    (run / "proofs.jsonl").unlink()
    Journal(run / "proofs.jsonl").append(
        {**row, "served_base": apart} if row["rung"] == ZERO_RUNG else row for row in proofs
    )
    work = Workspace(load(overrides), Console(file=io.StringIO()))
    with work.folder.locked():
        score(work)
    found = controls(work)
    shutil.rmtree(run / "replies")  # as a purge leaves it: what was found of the control must not change
    assert controls(work) == found
    return found


@pytest.mark.parametrize(
    ("dtype", "apart", "passed"),
    [("float32", 1e-6, False), ("bfloat16", 1e-6, True), ("bfloat16", 0.5, False)],
)
def test_one_other_reply_fails_the_control_in_float32_alone(
    tmp_path: Path, tiny_folder: Path, dtype: str, apart: float, passed: bool
) -> None:
    shown = found(tmp_path, tiny_folder, dtype, apart)
    assert shown["zero_adapter_equals_base"] is passed
    assert shown["zero_replies_equal"] == pytest.approx(269 / 270)
    zero = checks(ReportData({}, {"controls": shown}, []))[2]
    assert zero.result == ("pass" if passed else "fail")
    assert "0.996 of the replies are the same (in 16 bits" in zero.detail
