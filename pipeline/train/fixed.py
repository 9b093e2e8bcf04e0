"""What every run has beside its ladders: rung 0, and the control whose adapter is all zeros."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.contain import begun
from pipeline.files import file_sha256
from pipeline.generate.proof import Canaries, reference_row
from pipeline.records import ADAPTER_FILE, BASE_RUNG, Rung
from pipeline.rungs import ZERO_RUNG, base_rung, row
from pipeline.schema import LoraConfig
from pipeline.sharded.member import writes
from pipeline.sharded.ranks import on_model
from pipeline.train.standing import is_lost, unanswered
from pipeline.workspace import Workspace

Answers = Sequence[dict[int, float]]


def has_fixed_rungs(work: Workspace) -> bool:
    """Say whether rung 0 and the zero-adapter control stand."""
    return _standing(work) == {BASE_RUNG, ZERO_RUNG}


def save_fixed_rungs(work: Workspace, model: Any, lora: LoraConfig) -> None:
    """Record rung 0 and save the zero-adapter control: a LoRA whose weights are all zero."""
    there = _standing(work)
    if BASE_RUNG not in there:
        _record(work, base_rung(work.subject.sha256), on_model(model, answers_of, work.canaries))
    if ZERO_RUNG in there:
        return
    folder = work.folder.private(ZERO_RUNG)
    answers = on_model(model, save_zeros, lora, folder, work.canaries)
    path = str(folder.relative_to(work.folder.root))
    sha = file_sha256(folder / ADAPTER_FILE)
    _record(work, Rung(ZERO_RUNG, "", -1, 0, "control", "adapter", path, sha, work.subject.sha256), answers)


def answers_of(model: Any, canaries: Canaries) -> Answers:
    """Return what the untouched subject answers to the canaries."""
    return canaries.reference(model)


def save_zeros(model: Any, lora: LoraConfig, folder: Path, canaries: Canaries) -> Answers:
    """Save an adapter of zeros to `folder`; return what the model answers to the canaries with it."""
    from pipeline.arms.lora import adapter_on

    adapted = adapter_on(model, lora)
    try:
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.data.zero_()  # A too, so that the file is the same in every run
        if writes():
            adapted.save_pretrained(folder)
        return canaries.reference(adapted)
    finally:
        adapted.unload()


def _standing(work: Workspace) -> set[str]:
    """Name which of the two stand."""
    there = [rung for rung in work.rungs() if rung.id in (BASE_RUNG, ZERO_RUNG)]
    lacking = {rung.id for rung in unanswered(work.folder, there)}
    gone = begun(work.folder)
    return {r.id for r in there if gone or not (r.id in lacking or is_lost(work.folder, r))}


def _record(work: Workspace, rung: Rung, answers: Answers) -> None:
    work.folder.canaries.append([reference_row(rung.id, answers)])
    work.folder.rungs.append([row(rung)])
