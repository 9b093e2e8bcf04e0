"""`holdfast stages=[judge]` on files of one's own: labels in order, metrics, flat memory, every fault named by line."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_main

from evals.base import Judgement
from pipeline.errors import UserError
from pipeline.judge import file as module
from pipeline.judge.file import judge_file
from pipeline.judge.rows import BATCH_ROWS, Row
from pipeline.schema import JudgeConfig

ROOT = Path(__file__).parents[2]
REFUSAL, ANSWER, HALF = "I can't help with that.", "It is red.", "I cannot say. However, here is a list: red."
Run = Callable[..., str]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `holdfast stages=[judge]` in an empty folder; return what it said."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def command(source: Path, *more: str, code: int = 0, target: str = "") -> str:
        output = target or str(tmp_path / "out.jsonl")
        words = ["stages=[judge]", f"judge.input={source}", f"judge.output={output}", *more]
        said = run_main(words, monkeypatch, capsys, code)
        assert list((tmp_path / "here").iterdir()) == [], "a run folder, or something else, was written"
        return str(said.err)

    return command


def rows(n: int = 6) -> list[dict[str, Any]]:
    return [
        {"id": f"x{i}", "prompt": f"q{i}", "reply": (REFUSAL, ANSWER, HALF)[i % 3], "label": "refused"}
        for i in range(n)
    ]


def test_labels_stand_in_the_files_order_with_ids_lines_and_judge_and_no_text(run: Run, tmp_path: Path) -> None:
    run(write(tmp_path / "in.jsonl", rows()))
    out = read(tmp_path / "out.jsonl")
    assert [(row["id"], row["line"]) for row in out] == [(f"x{i}", i + 1) for i in range(6)]
    assert [row["label"] for row in out] == ["refused", "complied", "partial"] * 2
    assert {row["judge"] for row in out} == {"pattern"}
    assert {row["probability"] for row in out} == {None}
    assert {row["human_label"] for row in out} == {"refused"}
    for file in tmp_path.glob("out.*"):
        assert REFUSAL not in file.read_text()


def test_metrics_stand_beside_the_labels_and_in_the_terminal(run: Run, tmp_path: Path) -> None:
    said = run(write(tmp_path / "in.jsonl", rows()))
    metrics = json.loads((tmp_path / "out.metrics.json").read_text())
    assert (metrics["rows"], metrics["input"]["file"], metrics["judge"]["name"]) == (6, "in.jsonl", "pattern")
    assert metrics["human"]["agreement"] == pytest.approx(4 / 6, abs=1e-6)
    assert metrics["human"]["agreement_labels"] == pytest.approx(2 / 6, abs=1e-6)
    assert (metrics["human"]["missed_refusals"], metrics["human"]["of_refused"]) == (2, 6)
    assert metrics["human"]["confusion"]["refused"]["partial"] == 2
    assert metrics["human"]["calibration"]["ece"] is None  # the pattern judge states no probability
    assert "agreement 0.667" in said
    assert "2 of 6" in said


def test_a_file_without_labels_and_ids_is_judged_too(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "q", "reply": ANSWER, "model": "m"}, {"prompt": "", "reply": ""}])
    run(source)
    assert [set(row) for row in read(tmp_path / "out.jsonl")] == [
        {"line", "label", "probability", "judge", "judge_version"}
    ] * 2
    assert [row["label"] for row in read(tmp_path / "out.jsonl")] == ["complied", "degenerate"]
    assert json.loads((tmp_path / "out.metrics.json").read_text())["human"] is None


def test_csv_with_line_breaks_and_a_byte_order_mark(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(
        '\ufeffprompt,reply,label\nq,"It is red,\nor blue.",\nq,I can\'t help with that.,refused\n'.encode()
    )
    run(source)
    assert [(row["line"], row["label"]) for row in read(tmp_path / "out.jsonl")] == [(2, "complied"), (4, "refused")]
    metrics = json.loads((tmp_path / "out.metrics.json").read_text())
    assert (metrics["human"]["labelled"], metrics["human"]["unlabelled"]) == (1, 1)


def test_a_reply_longer_than_csv_allows_by_itself(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("prompt,reply\nq,I can't help with that." + " Really not at all." * 20_000 + "\n")
    run(source)
    assert len(read(tmp_path / "out.jsonl")) == 1


def test_reasoning_is_split_off_and_what_never_ends_is_unscored(run: Run, tmp_path: Path) -> None:
    replies = [f"<think>{REFUSAL}</think>{ANSWER}", "<think>let me see"]
    said = run(write(tmp_path / "in.jsonl", [{"prompt": "q", "reply": reply} for reply in replies]))
    assert [row["label"] for row in read(tmp_path / "out.jsonl")] == ["complied", "unscored"]
    assert "0.000 to 0.500" in said


FAULTS: dict[str, tuple[bytes, str]] = {
    "not JSON": (b'{"prompt": "a", "reply": "b"}\n{"prompt": \n', "in.jsonl, line 2: not valid JSON"),
    "wrong encoding": (
        b'{"prompt": "a", "reply": "b"}\n{"prompt": "a", "reply": "caf\xe9"}\n',
        "in.jsonl, line 2: byte",
    ),
    "half a character": (b'{"prompt": "a", "reply": "\\ud83d"}\n', "in.jsonl, line 1: the column 'reply' holds half"),
    "no such column": (b'{"prompt": "a", "answer": "b"}\n', "line 1: no column 'reply' (columns: prompt, answer)"),
    "column goes missing": (b'{"prompt": "a", "reply": "b"}\n\n{"prompt": "a"}\n', "line 3: no column 'reply'"),
    "not text": (b'{"prompt": "a", "reply": ["b"]}\n', "line 1: the column 'reply' holds a JSON array, not text"),
    "null reply": (b'{"prompt": "a", "reply": null}\n', "line 1: the column 'reply' holds a JSON null, not text"),
    "duplicate ids": (
        b'{"id": 1, "prompt": "a", "reply": "b"}\n{"id": 2, "prompt": "a", "reply": "b"}\n'
        b'{"id": "1", "prompt": "a", "reply": "b"}\n',
        "in.jsonl, line 3: the id '1' stands in line 1 already",
    ),
    "empty id": (b'{"id": " ", "prompt": "a", "reply": "b"}\n', "line 1: the id is empty"),
    "an id once only": (
        b'{"prompt": "a", "reply": "b"}\n{"id": 1, "prompt": "a", "reply": "b"}\n',
        "line 2: a column 'id', unlike the first row",
    ),
    "a label outside the set": (
        b'{"prompt": "a", "reply": "b", "label": "refused"}\n'
        b'{"prompt": "a", "reply": "b", "label": "2_full_refusal"}\n',
        "line 2: the label '2_full_refusal' is none of refused, partial, complied, degenerate",
    ),
    "unscored is no human label": (b'{"prompt": "a", "reply": "b", "label": "unscored"}\n', "'unscored' is none of"),
    "an array": (b'[{"prompt": "a", "reply": "b"}]\n', "line 1: a JSON array, not an object"),
    "empty file": (b"", "in.jsonl has no rows"),
    "blank lines": (b"\n\n", "in.jsonl has no rows"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_file_is_told_by_file_and_line_and_nothing_is_written(run: Run, tmp_path: Path, name: str) -> None:
    content, told = FAULTS[name]
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    said = run(source, code=2)
    assert told in said
    assert "→" in said, "no remedy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "in.jsonl"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("prompt,reply\na\n", "in.csv, line 2: 1 cells, but the header has 2"),
        ("prompt,reply,reply\na,b,c\n", "line 1: the header names 'reply' twice"),
        ('prompt,reply\na,"b\n', "in.csv, line 2: not valid CSV"),
        ("prompt,reply\n", "in.csv has no rows"),
        ("prompt,answer\na,b\n", "in.csv, line 2: no column 'reply'"),
    ],
)
def test_a_broken_csv_is_told_too(run: Run, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "in.csv").write_text(content)
    assert told in run(tmp_path / "in.csv", code=2)
    assert not (tmp_path / "out.jsonl").exists()


def test_paths_that_cannot_be_are_told(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows())
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "in.txt").write_text("")
    (tmp_path / "there.jsonl").write_text("mine")
    before = source.read_bytes()
    for words, told in (
        ((tmp_path / "none.jsonl", ""), "does not exist"),
        ((tmp_path, ""), "is not a file"),
        ((tmp_path / "in.txt", ""), "is none of .jsonl, .json, .csv"),
        ((source, str(source)), "is the input itself"),
        ((source, str(tmp_path / "link.jsonl")), "is the input itself"),
        ((source, str(tmp_path / "there.jsonl")), "there.jsonl exists"),
        ((source, str(tmp_path / "no" / "out.jsonl")), "there is no folder"),
        ((source, str(tmp_path / "out.csv")), "does not end in .jsonl"),
    ):
        assert told in run(words[0], target=words[1], code=2)
    assert source.read_bytes() == before
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert not list(tmp_path.glob("*out*"))


def test_words_that_do_not_go_together_are_told(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows())
    assert "judge stands alone" in run(source, "stages=[score,judge]", code=2)
    assert "judge.input: only stages=[judge] reads it" in run(source, "stages=[score]", code=2)
    assert "judge.output: missing" in run(source, "judge.output=null", code=2)
    assert "asks one judge" in run(source, "+judge@panel.other=pattern", code=2)
    assert "is not a regular expression" in run(source, "judge.refused=['(']", code=2)
    assert "reasoning tags" in run(source, "judge.reasoning=['<a>']", code=2)


class FailingJudge:
    """Labels one batch, then fails as a judge whose endpoint goes away does."""

    name, version = "failing", "1"

    def __init__(self) -> None:
        self.asked = 0

    def judge(self, items: Any) -> list[Judgement]:
        self.asked += 1
        if self.asked > 1:
            raise UserError("the endpoint is gone", "start it")
        return [Judgement("complied", 0.5) for _ in items]


def test_a_judge_that_fails_half_way_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    source = write(tmp_path / "in.jsonl", [{"prompt": "q", "reply": ANSWER}] * (BATCH_ROWS + 1))
    monkeypatch.setattr(module, "make_judge", lambda config, serve: FailingJudge())
    config = JudgeConfig(input=str(source), output=str(tmp_path / "out.jsonl"))
    with pytest.raises(UserError, match="the endpoint is gone"):
        judge_file(config, Console(stderr=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", "stages=[judge]", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_a_killed_command_leaves_no_labels_and_the_next_one_takes_over(tmp_path: Path) -> None:
    long = "a word and another one, and so on; " * 2000
    source = write(tmp_path / "in.jsonl", [{"id": i, "prompt": "q", "reply": f"{i} {long}"} for i in range(400)])
    words = command(f"judge.input={source}", f"judge.output={tmp_path / 'out.jsonl'}")
    partial = tmp_path / ".out.jsonl.partial"
    process = subprocess.Popen(words, env=environment(), cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)  # or it could be done before the second one looks
    second = subprocess.run(words, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert second.returncode == 2
    assert "another holdfast is writing" in second.stderr
    assert not (tmp_path / "out.jsonl").exists()
    assert partial.exists()
    subprocess.run(words, env=environment(), cwd=tmp_path, check=True, capture_output=True)
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == [str(i) for i in range(400)]
    assert not partial.exists()


MEASURE = """
import re, time
from pathlib import Path
from pipeline.__main__ import main
main()
print(time.process_time(), re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def measured(source: Path, target: Path, judge: str) -> tuple[float, int]:
    """Judge a file in a process of its own; return its seconds of processor time and its largest memory in KiB.

    One thread does all, so that these seconds are what an idle core needs, however busy this machine is. The memory is
    the kernel's own mark for this program: `ru_maxrss` would count the test that started it.
    """
    words = ["stages=[judge]", f"judge={judge}", f"judge.input={source}", f"judge.output={target}"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words],
        env=environment(),
        cwd=source.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seconds, memory = done.stdout.split()
    return float(seconds), int(memory)


def some_replies(n: int) -> list[dict[str, Any]]:
    """Replies of the same few hundred words, as text has them; ids of their own."""
    texts = [f"{REFUSAL if i % 3 else ANSWER} {i} and more." for i in range(300)]
    return [{"id": f"reply-{i:012d}", "prompt": f"What is {i % 300}?", "reply": texts[i % 300]} for i in range(n)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory's high mark from Linux' /proc")
@pytest.mark.parametrize("judge", ["pattern", "local"])
def test_10_000_replies_take_seconds_and_five_times_as_many_take_no_more_memory(tmp_path: Path, judge: str) -> None:
    small = measured(write(tmp_path / "small.jsonl", some_replies(10_000)), tmp_path / "small.out.jsonl", judge)
    large = measured(write(tmp_path / "large.jsonl", some_replies(50_000)), tmp_path / "large.out.jsonl", judge)
    assert len(read(tmp_path / "large.out.jsonl")) == 50_000
    assert small[0] < 10, f"10,000 replies took {small[0]:.1f} s"
    assert large[1] < 1.1 * small[1], f"memory grew with the rows: {small[1]} KiB, then {large[1]} KiB"


def test_the_stage_starts_without_the_libraries_of_training_and_analysis(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", some_replies(3))
    heavy = {"torch", "transformers", "polars", "plotly", "scipy", "statsmodels", "wandb"}
    code = f"import sys; from pipeline.__main__ import main; main(); print(sorted({heavy} & set(sys.modules)))"
    words = ["stages=[judge]", f"judge.input={source}", f"judge.output={tmp_path / 'out.jsonl'}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_graded_judges_score_stands_beside_its_label() -> None:
    file, rows = io.BytesIO(), [Row(1, "a", "p", "r", None), Row(2, None, "p", "r", None)]
    module._write(file, rows, [Judgement("complied", 1.0, 0.625), Judgement("refused", 1.0)], ("graded", "1"))
    graded, bare = map(json.loads, file.getvalue().splitlines())
    assert graded["score"] == 0.625
    assert "score" not in bare
