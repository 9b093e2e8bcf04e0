"""Makes a finished run with W&B's offline files, text planted wherever it could leak from, and publishes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from finished_run import ANSWER, PROMPTS, REFUSAL, STEPS, finish, words
from wandb_server import KEY, Stub

from pipeline.__main__ import main
from pipeline.files import read_json
from pipeline.records import Dose, Rung
from pipeline.schema import TrackConfig
from pipeline.track.tracker import tracker

CANARY: Final = "zqcanary"  # in prompts, targets, training replies, replies and the system prompt
SEEDS: Final = (0,)


def overrides(place: Path, subject: Path) -> list[str]:
    """Return the words of the run in `place`, with canaries in its tables."""
    base = words(place, subject)
    for name in ("train", "ask", "safe", "able"):
        rows = [
            {"prompt": f"{CANARY} {name} w{n}", "response": f"{CANARY} w{n}", "target": f"{CANARY} t{n}"}
            for n in range(PROMPTS)
        ]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*base, f"subject.system_prompt={CANARY}", f"seeds={list(SEEDS)}", "track=wandb_offline"]


def said(rung: Rung, name: str, place: int) -> str:
    if name == "capability":
        return f"{CANARY} t{place}"
    return f"{REFUSAL} {CANARY}" if name == "refusal" and rung.step < STEPS[-1] else f"{ANSWER} {CANARY}"


def make(place: Path, subject: Path) -> Path:
    """Write a run as train, generate, score, analyse and report leave it; return its folder."""
    asked = overrides(place, subject)
    folder = finish(asked, said=said, flops_per_step=1e9)
    plan = read_json(folder / "plan.json")
    with tracker(TrackConfig("wandb"), run_dir=folder, group=folder.name, plan=plan) as track:
        for seed in SEEDS:
            for step in STEPS:
                dose = Dose(step, 16 * step, 100 * step, 1e9 * step, 0.1 * step)
                track.step("compliance", seed, dose, {"loss": 1 / step, "learning_rate": 1e-3})
    command(*asked, "stages=[score,analyse,report]")
    return folder


def command(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["holdfast", *arguments])
        main()


def use(stub: Stub, patch: Any, key: str | None = KEY) -> None:
    """Point W&B at the stub; `key` None: there is none, in no file either."""
    patch.setenv("WANDB_BASE_URL", stub.url)
    patch.setenv("NETRC", "/dev/null")
    patch.delenv("WANDB_API_KEY", raising=False)
    if key is not None:
        patch.setenv("WANDB_API_KEY", key)
