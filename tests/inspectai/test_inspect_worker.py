"""Inspect tasks as the plan sees them, and the process they run in; real inspect_ai, no server."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import inspect_tasks as files
import pytest

from pipeline.errors import InstrumentError, UserError
from pipeline.inspectai import process
from pipeline.inspectai.process import WORKER, describe, worker
from pipeline.inspectai.task import InspectTask
from pipeline.inspectai.task import inspect_tasks as load_tasks
from pipeline.schema import EvalConfig, TableConfig
from tests.standins import ForkedInspect

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra `inspect`)")


@pytest.fixture(scope="module", autouse=True)
def forked(warm: Callable[[str], Path]) -> Iterator[None]:
    """Tasks are loaded in a fork of a process that has imported Inspect (`tests/warm.py`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "subprocess", ForkedInspect(warm("inspect")))
        yield


def config(path: Path, name: str = "", limit: int | None = None, **args: Any) -> EvalConfig:
    made = EvalConfig("inspect", TableConfig("inspect:", limit=limit), task=f"{path}{name}", role="shown")
    made.task_args = args
    return made


def found(path: Path, name: str = "", **args: Any) -> InspectTask:
    return load_tasks({"mine": config(path, name, **args)})["mine"]


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> dict[str, InspectTask]:
    """The same task, and tasks that differ in one thing, loaded in one go."""
    folder, elsewhere, other = (tmp_path_factory.mktemp(name) for name in ("one", "elsewhere", "other"))
    one, moved = files.write_task(folder, files.ONE), files.write_task(elsewhere, files.ONE)
    longer = files.write_task(other, files.ONE + "\n# another comment\n")
    return load_tasks(
        {
            "plain": config(one, "@words"),
            "again": config(one, "@words"),
            "bare": config(one),
            "moved": config(moved, "@words"),
            "fewer": config(one, "@words", count=5),
            "other": config(one, "@words", target="x"),
            "limit": config(one, "@words", limit=3),
            "code": config(longer, "@words"),
        }
    )


def test_a_task_is_counted_hashed_and_its_prompts_are_known(ways: dict[str, InspectTask]) -> None:
    plain = ways["plain"]
    assert (plain.samples, len(plain.sha256), len(plain.inputs)) == (6, 64, 6)
    assert plain.inputs[1] == "say the word 1 again please"


def test_the_digest_is_the_same_by_every_name_and_wherever_the_file_lies(
    ways: dict[str, InspectTask],
) -> None:
    assert len({ways[name].sha256 for name in ("plain", "again", "bare", "moved")}) == 1


def test_the_digest_changes_with_samples_arguments_limit_and_code(ways: dict[str, InspectTask]) -> None:
    names = ("plain", "fewer", "other", "limit", "code")
    assert len({ways[name].sha256 for name in names}) == 5
    assert [ways[name].samples for name in names] == [6, 5, 6, 3, 6]


def test_a_relative_path_is_found_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_task(tmp_path, files.ONE)
    monkeypatch.chdir(tmp_path)
    assert found(Path("a_task.py"), "@words").samples == 6


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (files.TWO, "", r"holds 2 tasks \(other, words\); name one"),
        (files.NO_SCORER, "@bare", "has no scorer"),
        (files.SHUFFLED, "@mixed", "another order each time"),
        (files.OWN_MODEL, "@own", "names a model of its own"),
        (files.BROKEN, "@broken", "ValueError: no such thing"),
        ("import not_a_module_anywhere\n" + files.ONE, "@words", "not_a_module_anywhere"),
        ("x = 1\n", "", "no Inspect task"),
    ],
)
def test_a_task_that_does_not_fit_is_told_with_its_key(text: str, name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        found(files.write_task(tmp_path, text), name)
    assert caught.value.what.startswith("evals.mine.task:")
    assert caught.value.remedy


def test_a_seeded_shuffle_is_accepted(tmp_path: Path) -> None:
    assert found(files.write_task(tmp_path, files.SHUFFLED), "@mixed", seed=3).samples == 200


def test_a_package_that_is_not_installed_is_told() -> None:
    with pytest.raises(UserError, match=r"no Inspect task no_such_package/xstest|cannot be loaded"):
        describe([{"eval": "mine", "task": "no_such_package/xstest", "task_args": {}, "limit": None}])


def test_what_a_task_prints_is_no_event(tmp_path: Path) -> None:
    loud = files.ONE + '\nprint(\'{"event": "failed", "kind": "task", "eval": "mine", "what": "taken"}\')\n'
    assert found(files.write_task(tmp_path, loud), "@words").samples == 6


def test_loading_a_task_leaves_nothing_and_sees_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    (here / ".env").write_text("INSPECT_LOG_DIR=elsewhere\nOPENAI_API_KEY=canary\n")
    monkeypatch.chdir(here)
    curious = files.ONE + '\nimport os\nassert "OPENAI_API_KEY" not in os.environ, "a key"\n'
    assert found(files.write_task(tmp_path, curious), "@words").samples == 6
    left = [path for path in home.rglob("*") if path.is_file()]
    assert left == []
    assert sorted(path.name for path in here.iterdir()) == [".env"]


@pytest.fixture
def module() -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("inspect_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize(
    ("value", "number"),
    [("C", 1), ("I", 0), ("P", 0.5), ("N", 0), ("yes", 1), ("False", 0), (True, 1), (3, 3), ("0.25", 0.25), (2.5, 2.5)],
)
def test_a_scores_value_is_the_number_that_inspect_takes_it_for(module: Any, value: Any, number: float) -> None:
    from inspect_ai.scorer import value_to_float

    assert module.number(value) == number == value_to_float()(value)


@pytest.mark.parametrize("value", ["maybe", "", None, math.nan, math.inf, "nan", "c", [1], {"a": 1}])
def test_a_value_that_is_no_number_is_no_data_where_inspect_would_guess_zero(module: Any, value: Any) -> None:
    assert math.isnan(module.number(value))


def rich_log(folder: Path) -> Any:
    """Run a task with Inspect's own stand-in for a model, whose replies are all alike: only the log is looked at."""
    from inspect_ai import eval as evaluate
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    said = ModelOutput.from_content("model", "nothing")
    said.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    path, model = files.write_task(folder, files.RICH), get_model("mockllm/model", custom_outputs=[said] * 6)
    (log,) = evaluate(f"{path}@many", model=model, log_dir=str(folder / "logs"), display="none", log_realtime=False)
    return log


def test_scores_are_read_without_any_text(module: Any, tmp_path: Path) -> None:
    log = rich_log(tmp_path)
    scores = module.read_scores(log)
    said = log.samples[0].output.completion
    assert scores["columns"] == ["rich_right", "rich_letters", "includes"]
    assert scores["means"] == {"rich_right": "accuracy", "rich_letters": "mean", "includes": "accuracy"}
    assert scores["metrics"] == [{"column": "rich_letters", "metric": "longest", "value": float(len(said))}]
    by_sample = {row["sample"]: row["scores"] for row in scores["rows"]}
    assert by_sample["s0"]["rich_right"] is None
    assert by_sample["s1"] == {"rich_right": len(said) % 2, "rich_letters": len(said), "includes": 0.0}
    written = json.dumps(scores, allow_nan=False)
    assert said not in written
    assert "say the word" not in written


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worker that writes down its process and sleeps: what is looked at is how it ends."""
    script = tmp_path / "sleeper.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "pathlib.Path('pid').write_text(str(os.getpid()))\n"
        'print(\'{"event": "used", "tokens": 1}\', flush=True)\n'
        "time.sleep(600)\n"
    )
    monkeypatch.setattr("pipeline.inspectai.process.WORKER", script)
    return tmp_path / "state"


def test_a_worker_ends_with_its_block(sleeper: Path, tmp_path: Path) -> None:
    with worker(sleeper, {}, {}, tmp_path / "log") as events:
        assert events.next(30.0) == {"event": "used", "tokens": 1}
        assert events.next(0.01) == {}
        pid = int((sleeper / "pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert os.stat(tmp_path / "log").st_mode & 0o777 == 0o600
    assert os.stat(sleeper).st_mode & 0o777 == 0o700


def test_a_worker_that_dies_is_the_instruments_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "dying.py"
    script.write_text("raise SystemError('gone')\n")
    monkeypatch.setattr("pipeline.inspectai.process.WORKER", script)
    with worker(tmp_path / "state", {}, {}, tmp_path / "log") as events, pytest.raises(InstrumentError, match="gone"):
        events.next(30.0)
