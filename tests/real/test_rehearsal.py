"""An engine that cannot serve is found before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests import warm as warmed


def test_what_cannot_be_served_is_told_before_anything_is_trained(warm: Callable[[str], Path], tmp_path: Path) -> None:
    words = ["experiment=smoke", "track=none", "serve.rehearse=true", "serve.extra_args=[--no-such-option]"]
    log = tmp_path / "said"
    assert warmed.start(["holdfast", f"run.root={tmp_path / 'runs'}", *words], warm, log).wait(600) == 1
    said = log.read_text()
    assert "holdfast: nothing was trained, since it could not be served (serve.rehearse): the vLLM server ended" in said
    assert "--no-such-option" in said
    (folder,) = (tmp_path / "runs").iterdir()
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"rehearse"}
    assert rows[-1]["status"] == "failed"
    assert rows[-1]["device_seconds"] > 0
    assert not (folder / "weights" / "rehearse").exists()
    assert not (folder / "rungs.jsonl").exists()
