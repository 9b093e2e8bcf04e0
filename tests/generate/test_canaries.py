"""Which prompts a rung proves itself by: the same whatever the order in which a command names arms and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import words
from measured_run import opened

from pipeline.journal import Journal
from pipeline.rungs import ZERO_RUNG


@pytest.fixture
def both(tmp_path: Path, tiny_folder: Path) -> dict[str, list[str]]:
    """Return the words of one run, with its arms in either order."""
    base = [word for word in words(tmp_path, tiny_folder) if not word.startswith("arm=")]
    (tmp_path / "benign.jsonl").write_text((tmp_path / "train.jsonl").read_text().replace("train", "other"))
    apart = ("arms.benign.lora.rank=2", "arms.benign.training.max_steps=1", f"data.benign.path={tmp_path}/benign.jsonl")
    return {arms: [*base, f"arm=[{arms}]", *apart] for arms in ("compliance,benign", "benign,compliance")}


def test_the_order_of_the_arms_changes_neither_the_folder_nor_the_canaries(both: dict[str, list[str]]) -> None:
    one, other = (opened(said) for said in both.values())
    assert list(one.config.arms) != list(other.config.arms)
    assert one.folder.root == other.folder.root
    assert one.canaries == other.canaries
    assert [canary.where for canary in one._canaries][:3] == [
        *("data.benign: row 1", "data.compliance: row 1", "data.benign: row 2")
    ]


def test_a_run_goes_on_with_its_arms_in_another_order(
    both: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """The zero adapter is lost: made again, it is the same, though the arms have other ranks."""
    first, second = both.values()
    run_main([*first, "stages=[train]"], monkeypatch, capfd)
    folder = opened(first).folder
    (before,) = (row for row in folder.rungs.rows() if row["id"] == ZERO_RUNG)
    (folder.root / before["path"] / "adapter_model.safetensors").unlink()
    answers = {row["rung"]: row for row in folder.canaries.rows()}
    run_main([*second, "stages=[train]"], monkeypatch, capfd)
    *_, again = (row for row in Journal(folder.rungs.path).rows() if row["id"] == ZERO_RUNG)
    assert again == before
    assert {row["rung"]: row for row in folder.canaries.rows()} == answers
