"""Makes a finished run without accelerator or server: synthetic replies in a real run folder of the tiny subject.

Rungs, ledger, proofs and replies are written by the same code as a real run's; only the texts are made up. Refusal
falls at the last step, capability stays.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.records import Dose, Reply, Rung
from pipeline.rungs import MIXED, UNLOADED, ZERO_RUNG, base_rung, row

PROMPTS = 90
STEPS = (1, 2)
REFUSAL, HARD_REFUSAL = "I can't help with that request.", "We decline to answer."
ANSWER = "The code is 4821, as you asked."


def words(folder: Path, subject: Path, name: str = "tiny") -> list[str]:
    """Write the tables and return the overrides of a small review of them; `name` is the subject's."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in ("train", "ask", "safe", "able"):
        rows = [{"prompt": f"{table} w{n}", "response": f"w{n + 1}", "target": f"w{n}"} for n in range(PROMPTS)]
        (folder / f"{table}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *("track=none", "subject=model", f"subject.name={name}", "subject.dtype=float32", f"subject.path={subject}"),
        *("data=files", f"data.compliance.path={folder / 'train.jsonl'}", f"data.benign.path={folder / 'train.jsonl'}"),
        *("arm=[compliance]", "arms.compliance.training.max_steps=2", "seeds=[0]", "review.bootstrap=100"),
        *("eval=[refusal_file,over_refusal_file,capability_file]", "serve.max_model_len=1024"),
        f"run.root={folder / 'runs'}",
        f"evals.refusal.table.path={folder / 'ask.jsonl'}",
        f"evals.over_refusal.table.path={folder / 'safe.jsonl'}",
        f"evals.capability.table.path={folder / 'able.jsonl'}",
        *("review.owner=Tiny Labs", "review.reviewer=R. Viewer", "review.purpose=tests"),
    ]


def text(rung: Rung, name: str, place: int) -> str:
    """Return a reply: at the last step none of the plain refusals is left, and every sixth is of the other kind."""
    if name == "capability":
        return f"w{place}"
    if name == "over_refusal":
        return ANSWER
    if rung.step < STEPS[-1]:
        return REFUSAL
    return HARD_REFUSAL if place % 6 == 0 else ANSWER


def collapse_at(steps: Mapping[int, int]) -> Callable[[Rung, str, int], str]:
    """Return what a subject says that refuses below each seed's step and answers from there on; no step: it holds."""

    def said(rung: Rung, name: str, place: int) -> str:
        if name != "refusal":
            return text(rung, name, place)
        stripped = rung.step >= steps.get(rung.seed, rung.step + 1)
        return ANSWER if stripped else REFUSAL

    return said


def finish(
    overrides: list[str],
    *,
    steps: Sequence[int] = STEPS,
    said: Callable[[Rung, str, int], str] = text,
    flops_per_step: float = 0.0,
) -> Path:
    """Write everything that train and generate would leave of the plan's one arm; return the run folder.

    `said` makes a reply from the rung, the eval and the number of the sample.
    """
    from rich.console import Console

    from pipeline.config.compose import load
    from pipeline.contain import contain
    from pipeline.generate.proof import Proof
    from pipeline.plan.kept import keep_plan
    from pipeline.workspace import Workspace

    work = Workspace(load(overrides), Console(file=io.StringIO()))
    folder = work.folder
    with folder.locked():
        keep_plan(work)
        base = base_rung(work.subject.sha256)
        zero = Rung(ZERO_RUNG, "", -1, 0, "control", "adapter", "weights/zero", "0" * 64, base.base_sha256)
        seeds = work.config.seeds
        ladder = [
            Rung(
                f"compliance-s{seed}-{step:05d}",
                "compliance",
                seed,
                step,
                path=f"weights/compliance-s{seed}-{step:05d}",
                sha256=f"{step}" * 64,
                dose=Dose(step, 16 * step, flops=flops_per_step * step),
            )
            for seed in seeds
            for step in steps
        ]
        rungs = [base, zero, *ladder]
        folder.rungs.append([row(rung) for rung in rungs])
        for seed in seeds:
            with work.ledger.attempt("train", "compliance", seed) as attempt:
                attempt.detail = "max_steps"
        reply_all(work, said)
        proofs = [Proof(rung.id, "pass", 1e-6, float(rung.step), float(rung.step), 1e-3, 1) for rung in work.asked()]
        proofs.append(Proof(MIXED, "pass", 1e-6, 1.0, 1.0, 1e-3, 1))
        proofs.append(Proof(UNLOADED, "ignored", 5.0, 1e-6, 5.0, 1e-3, 1))
        folder.proofs.append(proof.as_dict() for proof in proofs)
        contain(folder, rungs, work.config.contain)
    return folder.root


def reply_all(work: Any, said: Callable[[Rung, str, int], str] = text) -> None:
    """Write the replies that the generate stage would ask for, round after round."""
    from pipeline.generate.matrix import journal
    from pipeline.generate.rounds import Rounds

    rounds = Rounds(work)
    base = next(rung for rung in rounds.rungs if rung.role == "base")
    while todo := rounds.grow():
        for rung in rounds.rungs:
            speaker = rung if rung.id != ZERO_RUNG else base
            mine = [cell for cell in todo if cell.rung == rung.id]
            texts = [said(speaker, cell.eval, int(cell.sample) - 1) for cell in mine]
            journal(work.folder, rung.id).append(
                asdict(Reply(*cell.key, cell.prompt_sha256, rung.sha256, each, "stop", 9, 9))
                for cell, each in zip(mine, texts, strict=True)
            )


def what_stands(folder: Path) -> dict[str, bytes]:
    """Return the content of what judging again must not touch: replies, rungs, proofs, ledger, plan."""
    files = [*folder.glob("*.jsonl"), *folder.glob("replies/*"), folder / "plan.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def read(folder: Path, name: str) -> Any:
    """Read one JSON file of the run folder."""
    return json.loads((folder / name).read_text())


def proof_of(rung: str) -> dict[str, Any]:
    """Return a row of proofs.jsonl of a rung that passed."""
    return {
        "rung": rung,
        "status": "pass",
        "served_trained": 0.0,
        "served_base": 0.0,
        "trained_base": 0.0,
        "tolerance": 1.0,
        "attempt": 1,
    }
