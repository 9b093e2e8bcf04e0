"""What of a ladder really stands on the disk: a record tells what was saved once, a power cut or a hand what is there.

A rung stands if it is recorded, its adapter's digest is the recorded one, and its answers to the canaries are there.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.arms.base import Task
from pipeline.errors import UserError
from pipeline.files import file_sha256
from pipeline.records import ADAPTER_FILE, Rung
from pipeline.store import RunFolder

# What transformers' Trainer leaves beside an adapter for a climb that goes on; nothing of it is served.
_ZIPPED: Final = ("optimizer.pt", "scheduler.pt")  # zip files, as torch writes them
_RANDOM: Final = "rng_state.pth"  # likewise; of several processes each has one, with its number
_SCALER: Final = "scaler.pt"  # torch's GradScaler: of float16 alone
STATE: Final = (*_ZIPPED, "rng_state*.pth", _SCALER, "trainer_state.json", "training_args.bin")  # for `glob`


def is_lost(folder: RunFolder, rung: Rung) -> bool:
    """Say whether a rung's adapter is no longer there; rung 0 has none."""
    return rung.artifact == "adapter" and not (folder.root / rung.path / ADAPTER_FILE).is_file()


def damage(folder: RunFolder, rung: Rung) -> str:
    """Say what is wrong with a rung's adapter, its digest taken; "" if it is whole."""
    if is_lost(folder, rung):
        return "is missing"
    if rung.artifact != "adapter":
        return ""
    if file_sha256(folder.root / rung.path / ADAPTER_FILE) != rung.sha256:
        return "is not the one that was trained: cut short or changed"
    return "" if _is_json(folder.root / rung.path / "adapter_config.json") else "has no whole adapter_config.json"


def unanswered(folder: RunFolder, rungs: Sequence[Rung]) -> list[Rung]:
    """Return the rungs whose answers to the canaries are not recorded: their adapters could not be proved."""
    answered = {row["rung"] for row in folder.canaries.rows()}
    return [rung for rung in rungs if rung.id not in answered]


def require_whole(folder: RunFolder, rungs: Sequence[Rung]) -> None:
    """Refuse to serve anything while an adapter is not the one that was trained.

    A changed file may be tampering as well as a failing disk, and training again spends budget: so the user is asked.

    Raises:
        UserError: an adapter is missing, cut short or changed, or there is nothing to prove it by.
    """
    for rung in rungs:
        if wrong := damage(folder, rung):
            place = folder.root / rung.path
            ladder = place.parent if rung.role == "rung" else place
            raise UserError(
                f"{place / ADAPTER_FILE}: the adapter of rung {rung.id} {wrong}; nothing was served",
                f"bring the file back, or remove the folder {ladder} and run the same command again (with the train "
                "stage): it trains that ladder again, within what is left of its budget",
            )
    if lacking := unanswered(folder, rungs):
        raise UserError(
            f"{folder.canaries.path}: the answers of rung {lacking[0].id} to the canaries are missing",
            "bring the file back, or run the same command with the train stage: it trains that ladder again",
        )


def standing(folder: RunFolder, recorded: Sequence[Rung], task: Task) -> list[Rung]:
    """Return the rungs of one task that stand, from the first up to the last that the ladder can go on from.

    Args:
        folder: the run's.
        recorded: the task's rungs, by step.
        task: a rung that was saved where the budget ended is none of its planned ones.
    """
    planned = task.rungs
    lacking = {rung.id for rung in unanswered(folder, recorded)}
    whole: list[Rung] = []
    for rung in recorded:
        skipped = [step for step in planned if step < rung.step and step not in {r.step for r in whole}]
        if skipped or rung.id in lacking or damage(folder, rung):
            break
        whole.append(rung)
    if whole and whole[-1].step >= planned[-1]:
        return whole
    while whole and not can_go_on(folder.root / whole[-1].path, task):
        whole.pop()
    return whole


def can_go_on(checkpoint: Path, task: Task) -> bool:
    """Say whether the optimiser, schedule, random state and, in float16, loss scale beside an adapter are whole.

    Trainer itself passes over a loss scale that is missing: the ladder would go on from torch's first one.
    """
    scaled = (_SCALER,) if task.config.training.precision == "float16" else ()
    try:
        for name in (*_ZIPPED, *_random_states(task.processes), *scaled):
            with zipfile.ZipFile(checkpoint / name) as file:
                if file.testzip() is not None:
                    return False
    except (OSError, zipfile.BadZipFile):
        return False
    return _is_json(checkpoint / "trainer_state.json")


def _random_states(processes: int) -> list[str]:
    path = Path(_RANDOM)
    return [_RANDOM] if processes == 1 else [f"{path.stem}_{rank}{path.suffix}" for rank in range(processes)]


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
