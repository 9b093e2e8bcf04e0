"""The scripts that Slurm runs: the site's set-up, the signals, and starting anew."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.cluster.words import BETWEEN
from pipeline.config.compose import shipped

SCRIPTS = shipped("slurm")


@pytest.mark.parametrize(
    ("signal", "code", "restarts", "requeued", "ended"),
    [
        ("USR1", 75, 0, True, 75),  # told to make room
        ("TERM", 75, 0, False, 75),  # cancelled, or Slurm requeues by itself
        ("USR1", 0, 0, False, 0),  # it had ended
        ("USR1", 75, 3, False, 75),  # too often
        ("", 2, 0, False, 2),  # a mistake of the user's
    ],
)
def test_a_job_is_requeued_only_where_it_made_room(
    tmp_path: Path, signal: str, code: int, restarts: int, requeued: bool, ended: int
) -> None:
    called = tmp_path / "called"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {called}\n')
    (tmp_path / "scontrol").chmod(0o755)
    heard = f"trap 'touch heard; exit {code}' USR1 TERM; touch ready; while :; do sleep 0.05; done"
    work = heard if signal else f"touch ready; exit {code}"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOLDFAST_SLURM": str(SCRIPTS),
        "HOLDFAST_TASKS": "compliance/0 compliance/1",
        "HOLDFAST_REQUEUES": "3",
        "HOLDFAST_SETUP": "export SITE=ready",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_JOB_ID": "17",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    script = ("bash", str(SCRIPTS / "train.sbatch"), "bash", "-c", f'echo "$SITE $0" > told; {work}')
    with subprocess.Popen(script, env=environment, cwd=tmp_path) as process:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None or not signal
            time.sleep(0.01)
        if signal:
            process.send_signal({"USR1": 10, "TERM": 15}[signal])
        assert process.wait(20) == ended
    assert (tmp_path / "told").read_text() == "ready cluster.task=compliance/1\n"
    assert (tmp_path / "heard").exists() == bool(signal)
    assert called.exists() == requeued
    if requeued:
        assert called.read_text() == "requeue 17\n"


def ran(kind: str, *setup: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = {"HOLDFAST_SLURM": str(SCRIPTS), "HOLDFAST_SETUP": BETWEEN.join(setup), "PATH": os.environ["PATH"]}
    script = ("bash", str(SCRIPTS / f"{kind}.sbatch"), "bash", "-c", 'echo "worked with ${SITE:-nothing}"')
    return subprocess.run(script, env=words | environment, capture_output=True, text=True, check=False, timeout=20)


def test_a_sites_set_up_may_use_what_is_not_set_and_lines_of_its_own() -> None:
    """As `source .../activate` of conda and `module` do."""
    done = ran("report", 'export SITE="${UNSET}a$ALSO_UNSET"', "if true; then\n  SITE=${SITE}b # more\nfi", "true")
    assert (done.returncode, done.stdout) == (0, "worked with ab\n")
    assert ran("report").stdout == "worked with nothing\n"
    assert ran("report", "declare -x SITE=told").stdout == "worked with told\n"  # as `export -p` writes it


@pytest.mark.parametrize("line", ["module-that-is-not-there load x", "false # a comment"])
def test_a_set_up_that_fails_ends_the_job_and_says_so(line: str) -> None:
    done = ran("serve", "true", line, "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"holdfast: cluster.slurm.setup failed with {1 if '#' in line else 127}: {line}" in done.stderr


@pytest.mark.parametrize("kind", ["train", "serve", "report"])
def test_a_job_whose_environment_was_kept_from_it_says_so(kind: str) -> None:
    done = ran(kind, HOLDFAST_SLURM="")
    assert done.returncode != 0
    assert "HOLDFAST_SLURM: is not set: this site keeps the environment of sbatch from its jobs" in done.stderr
    assert len(done.stderr.splitlines()) == 1
