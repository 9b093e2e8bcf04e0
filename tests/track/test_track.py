"""W&B as it really is: its process, its files, read back; and what happens when it dies."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import psutil
import pytest
from leaks import names_this_host

from pipeline.records import Dose
from pipeline.schema import TrackConfig
from pipeline.track.tracker import NullTracker, Tracker, WandbTracker, tracker

ROOT = Path(__file__).parents[2]
CORE = Path(find_spec("wandb").submodule_search_locations[0]) / "bin" / "wandb-core"  # type: ignore[union-attr,index]
AXES = {"dose/steps", "dose/examples", "dose/tokens", "dose/flops", "dose/device_seconds", "dose/usd"}
CANARIES = {
    place: f"zqcanary{place}"
    for place in ("Prompt", "Reply", "Path", "Print", "Environ", "Argument", "Hover", "Key", "Secret")
}


def offline(**changes: Any) -> TrackConfig:
    return TrackConfig(kind="wandb", **changes)


def dose(step: int) -> Dose:
    return Dose(step, 16 * step, 100 * step, 1e6 * step, 0.1 * step, 1e-4 * step)


def logs(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))


def records(log: Path, scratch: Path) -> list[dict[str, Any]]:
    """Read a `.wandb` file with W&B's own reader."""
    done = subprocess.run(
        # As `wandb leet inspect --json` calls it, without 0.6 s for its imports.
        [str(CORE), "leet", "inspect", "--no-observability", "--json", "--run-file", str(log), str(log.parent.parent)],
        env={**os.environ, "TMPDIR": str(scratch), "HOME": str(scratch), "WANDB_ERROR_REPORTING": "false"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in read if record["type"] == "history"]


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return value


def helpers() -> dict[str, psutil.Process]:
    """The tracker's own processes: `worker` and `core`."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        if process.status() != psutil.STATUS_ZOMBIE:
            command = " ".join(process.cmdline())
            if "wandb_worker.py" in command:
                found["worker"] = process
            elif "wandb-core" in command:
                found["core"] = process
    return found


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


SCRIPT = """
import json, os, sys
from pathlib import Path
import plotly.graph_objects as go
from pipeline.records import Dose
from pipeline.schema import TrackConfig
from pipeline.track.tracker import tracker

run_dir, c = Path(sys.argv[1]), json.loads(os.environ["CANARIES"])
plan = {
    "name": "demo", "sha256": "ab" * 32, "seeds": [0, 1], "cwd": str(run_dir), "argv": sys.argv,
    "subject": {"name": "tiny", "path": f"/home/{c['Path']}/model", "system_prompt": c["Prompt"]},
    "data": {"compliance": {"path": f"{c['Path']}/data.jsonl", "prompt": c["Prompt"], c["Key"] + " x": 1}},
    "judge": {"refused": [c["Reply"], f"{c['Reply']} two"]},
    "review": {"refusal_threshold": 0.05, "threat_model": f"a user with /home/{c['Path']}/x"},
    "environment": {"host": os.uname().nodename, "key": c["Secret"]},
}
print(c["Print"]); print(c["Print"], file=sys.stderr)
with tracker(TrackConfig(kind="wandb"), run_dir=run_dir, group=run_dir.name, plan=plan) as track:
    for seed in (0, 1):
        for step in range(1, 9):
            dose = Dose(step, 16 * step, 100 * step, 1e6 * step, 0.1 * step, 1e-4 * step)
            values = {"loss": 1 / step, "reply": c["Reply"], c["Prompt"] + " y": 1.0}
            track.step("compliance", seed, dose, values)
            print(c["Print"], flush=True)
        track.rung("compliance", seed, dose, {"refusal": 0.25, "n": 50, "capability": float("nan")})
        figure = go.Figure(
            go.Scatter(x=[1, 2, 4], y=[1.0, 0.5, 0.25], text=[c["Reply"]] * 3, hovertext=c["Hover"],
                       customdata=[c["Hover"]] * 3), go.Layout(title="refusal against dose"))
        words = {"reply": c["Reply"], "reason": c["Reply"] + " z"}
        values = {"verdict": "collapses", "collapse": {"step": 8}} | words
        track.summary("compliance", seed, values, {"curves": figure})
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real offline run of two seeds, in a process with canaries wherever one could leak from."""
    base = tmp_path_factory.mktemp("finished")
    for folder in ("home", "tmp", "demo-abababab"):
        (base / folder).mkdir()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "WANDB_"))},
        "PYTHONPATH": str(ROOT),
        "HOME": str(base / "home"),
        "TMPDIR": str(base / "tmp"),
        "CANARIES": json.dumps(CANARIES),
        "WANDB_API_KEY": CANARIES["Secret"] + "0" * 31,
        "WANDB_NOTES": CANARIES["Environ"],
        "WANDB_USERNAME": CANARIES["Environ"],
    }
    command = [sys.executable, "-c", SCRIPT, str(base / "demo-abababab"), CANARIES["Argument"]]
    subprocess.run(command, env=environment, cwd=base / "home", check=True, timeout=120, capture_output=True)
    return base


@pytest.fixture(scope="module")
def read_back(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return records(logs(finished / "demo-abababab")[0], tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def no_leftovers() -> Iterator[None]:
    """Every test of a failure leaves no process behind."""
    yield
    wait_for(lambda: not helpers())


def test_one_run_per_arm_and_seed_in_the_group(finished: Path, read_back: list[dict[str, Any]]) -> None:
    assert len(logs(finished / "demo-abababab")) == 2
    [run] = [record["run"] for record in read_back if record["type"] == "run"]
    assert run["run_group"] == "demo-abababab"
    assert run["job_type"] == "compliance"
    assert run["display_name"] == "compliance-0"
    assert run["host"] == "redacted"
    assert run["run_id"].startswith("compliance-0-")


def test_the_plan_is_the_config(read_back: list[dict[str, Any]]) -> None:
    [config] = [record["run"]["config"]["update"] for record in read_back if record["type"] == "run"]
    assert config["plan_sha256"] == "ab" * 32
    assert (config["arm"], config["seed"], config["seeds"]) == ("compliance", 0, [0, 1])
    assert config["review"]["refusal_threshold"] == 0.05
    assert config["subject"] == {"name": "tiny", "path": "redacted", "system_prompt": "redacted"}


def test_every_row_has_the_dose_and_the_metrics_their_values(read_back: list[dict[str, Any]]) -> None:
    history = rows(read_back)
    assert len(history) == 10  # 8 steps, a rung, the figures
    for row in history:
        assert row.keys() >= AXES
    assert [row["train/loss"] for row in history[:8]] == [1 / step for step in range(1, 9)]
    assert [row["dose/steps"] for row in history[:8]] == list(range(1, 9))
    assert history[8]["measure/refusal"] == 0.25
    assert history[8]["dose/tokens"] == 800
    assert "measure/capability" not in history[8]  # NaN is no data


def test_each_metric_is_defined_by_its_exact_name_against_the_dose(read_back: list[dict[str, Any]]) -> None:
    defined = {r["metric"].get("name"): r["metric"].get("step_metric") for r in read_back if r["type"] == "metric"}
    metrics = {"train/loss", "measure/refusal", "measure/n"} | AXES - {"dose/steps"}
    assert defined == dict.fromkeys(metrics, "dose/steps") | {"dose/steps": None}


def test_the_summary_has_the_verdict(read_back: list[dict[str, Any]]) -> None:
    summary: dict[str, Any] = {}
    for record in read_back:
        summary |= record["summary"].get("update", {}) if record["type"] == "summary" else {}
    assert summary["verdict"] == "collapses"
    assert summary["collapse/step"] == 8
    assert "reply" not in summary
    assert [record["exit"]["exit_code"] for record in read_back if record["type"] == "exit"] == [0]


def test_the_figure_is_a_plotly_panel(finished: Path, read_back: list[dict[str, Any]]) -> None:
    files = list((finished / "demo-abababab" / "wandb").glob("*compliance-0-*/files/media/plotly/**/*.plotly.json"))
    assert len(files) == 1
    figure = json.loads(files[0].read_text())
    assert figure["data"][0]["y"] == [1.0, 0.5, 0.25]
    assert "refusal against dose" in files[0].read_text()
    assert "plotly-file" in json.dumps(rows(read_back)[-1])


def test_no_canary_in_any_byte(finished: Path, read_back: list[dict[str, Any]]) -> None:
    files = [path for path in (finished / "demo-abababab").rglob("*") if path.is_file()]
    names = {path.suffix for path in files}
    assert {".wandb", ".json", ".log"} <= names  # the search must have something to search
    everything = b"\0".join(path.read_bytes() for path in files) + json.dumps(read_back).encode()
    assert b"train/loss" in everything
    leaked = [place for place, canary in CANARIES.items() if canary.encode() in everything]
    assert leaked == []


def test_what_a_sync_would_send_names_no_folder_host_or_user(finished: Path) -> None:
    sent = [
        *(finished / "demo-abababab").rglob("*.wandb"),
        *(finished / "demo-abababab").rglob("files/**/*.json"),
    ]
    assert len(sent) == 4
    for path in sent:
        content = path.read_bytes()
        assert str(finished).encode() not in content
        assert not names_this_host(content)
        assert sys.executable.encode() not in content


def test_nothing_is_written_outside_the_run_folder(finished: Path) -> None:
    assert [path.name for path in finished.iterdir() if any(path.iterdir())] == ["demo-abababab"]
    assert [path.name for path in (finished / "demo-abababab").iterdir()] == ["wandb"]


def test_each_attempt_is_a_new_folder_of_the_same_run_also_on_a_long_path(tmp_path: Path) -> None:
    run_dir = tmp_path / ("long-" * 20) / ("path-" * 20)  # longer than a Unix socket's address may be
    run_dir.mkdir(parents=True)
    for attempt in (1, 2):
        with tracker(offline(), run_dir=run_dir, group="g", plan={"sha256": "ab" * 32}) as track:
            track.step("benign", 3, dose(attempt), {"loss": 1.0})
    found = logs(run_dir)
    assert len(found) == 2
    assert found[0].name == found[1].name
    assert [rows(records(log, tmp_path))[0]["dose/steps"] for log in found] == [1, 2]


def test_a_part_has_an_id_of_its_own_and_the_training_keeps_its(tmp_path: Path) -> None:
    made = [
        WandbTracker(offline(), tmp_path, "g", {"sha256": "ab" * 32}, *part).run_id("benign", 3)
        for part in ((), ("",), ("measured-1",), ("measured-2",))
    ]
    assert made[0] == made[1]
    assert len(set(made)) == 3


def test_none_tracks_nothing(tmp_path: Path) -> None:
    with tracker(TrackConfig(), run_dir=tmp_path, group="g", plan={}) as track:
        assert isinstance(track, NullTracker)
        track.step("a", 0, dose(1), {"loss": 1.0})
        track.rung("a", 0, dose(1), {"refusal": 1.0})
        track.summary("a", 0, {"verdict": "holds"}, {"f": go.Figure()})
    assert list(tmp_path.iterdir()) == []
    assert helpers() == {}


def goes_on(track: Tracker, steps: int = 200) -> None:
    """Train on; no step may wait for W&B."""
    start = time.monotonic()
    for step in range(1, steps + 1):
        track.step("a", 0, dose(step), {"loss": 1.0})
        track.step("a", 1, dose(step), {"loss": 1.0})
    assert time.monotonic() - start < 2.0


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize("victim", ["core", "worker"])
def test_a_killed_wandb_is_one_warning(victim: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    track = tracker(offline(finish_timeout_s=20), run_dir=tmp_path, group="g", plan={})
    goes_on(track, 1)
    wait_for(lambda: len(logs(tmp_path)) == 2)
    helpers()[victim].kill()
    for _ in range(10):
        goes_on(track, 20)
        time.sleep(0.05)
    start = time.monotonic()
    track.close()
    assert time.monotonic() - start < 25
    assert len(warnings(caplog)) == 1
    assert "the run goes on without it" in warnings(caplog)[0]
    goes_on(track)  # after the end, too


@pytest.mark.usefixtures("no_leftovers")
@pytest.mark.parametrize("victim", ["core", "worker"])
def test_a_hanging_wandb_is_ended_in_time(
    victim: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.track.tracker._KILL_GRACE_S", 1.0)
    track = tracker(offline(finish_timeout_s=1), run_dir=tmp_path, group="g", plan={})
    goes_on(track, 1)
    wait_for(lambda: len(logs(tmp_path)) == 2)
    stopped = helpers()[victim]
    stopped.suspend()
    try:
        goes_on(track, 2000)  # more than a pipe holds
        start = time.monotonic()
        track.close()
        assert time.monotonic() - start < 15
    finally:
        if stopped.is_running() and stopped.status() != psutil.STATUS_ZOMBIE:
            stopped.resume()  # it then sees that its parent is gone
    assert len(warnings(caplog)) == 1


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "wandb").write_text("in the way")
    with tracker(offline(), run_dir=tmp_path, group="g", plan={}) as track:
        goes_on(track)
    assert len(warnings(caplog)) == 1
    assert "Error" in warnings(caplog)[0]


@pytest.mark.usefixtures("no_leftovers")
def test_a_wandb_that_cannot_be_imported_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "wandb.py").write_text("raise ImportError('no such library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with tracker(offline(), run_dir=tmp_path, group="g", plan={}) as track:
        goes_on(track)
    assert len(warnings(caplog)) == 1
    assert "no such library" in warnings(caplog)[0]


@pytest.mark.usefixtures("no_leftovers")
def test_a_server_that_cannot_be_reached_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as bound:  # bound, not listening: refuses every connection
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{bound.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        start = time.monotonic()
        with tracker(offline(mode="online", finish_timeout_s=3), run_dir=tmp_path, group="g", plan={}) as track:
            goes_on(track)
        assert time.monotonic() - start < 20
    assert len(warnings(caplog)) == 1


def test_values_of_any_kind_never_raise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tracker(offline(), run_dir=tmp_path, group="g", plan={}) as track:
        track.step("a", 0, dose(1), None)  # type: ignore[arg-type]
        track.step("a", 0, dose(2), {"loss": math.inf, "x": object()})  # type: ignore[dict-item]
        track.summary("a", 0, {"verdict": "holds"}, {"f": "no figure"})
    assert len(warnings(caplog)) == 1


TRAINING = """
import sys, time
from pathlib import Path
from pipeline.records import Dose
from pipeline.schema import TrackConfig
from pipeline.track.tracker import tracker
track = tracker(TrackConfig(kind="wandb"), run_dir=Path(sys.argv[1]), group="g", plan={})
for step in range(1, 21):
    track.step("a", 0, Dose(step), {"loss": 1.0})
print("stepped", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("everything", [True, False])
def test_a_kill_loses_no_row_older_than_a_second(everything: bool, tmp_path: Path) -> None:
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert training.stdout is not None
        assert training.stdout.readline() == b"stepped\n"
        [log] = wait_for(lambda: logs(tmp_path))
        time.sleep(2.5)  # the rows are on their way for the first second, the log is flushed every second
        family = [*psutil.Process(training.pid).children(recursive=True)]
        assert len(family) >= 2
        for process in family if everything else ():
            process.suspend()  # else W&B's process sees that the training is gone, and ends its run before it is killed
    finally:
        os.kill(training.pid, signal.SIGKILL)
        training.wait()
    if everything:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    psutil.wait_procs(family, timeout=30)
    assert not any(process.is_running() for process in family)
    read = records(log, tmp_path)
    assert [row["dose/steps"] for row in rows(read)] == list(range(1, 21))
    # Left alone, W&B's process ends its runs as crashed ones.
    assert [r["exit"]["exit_code"] for r in read if r["type"] == "exit"] == ([] if everything else [1])


def test_a_hosts_name_counts_as_a_word_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "ab")
    assert names_this_host(b'{"host":"ab"}')
    assert names_this_host(b"http://ab:80/")
    assert not names_this_host(b'{"id":"a3abq"}')
