"""Canaries in prompts, replies, targets and training text: none reaches what is shared, but by an explicit choice."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import finished_run
import polars as pl
import pytest
from commands import run_main
from finished_run import PROMPTS, REFUSAL, finish, read, words

from pipeline.records import Rung

# One for each place that text comes from. A reply is markup, too, and in two alphabets.
ASKED, WANTED, TAUGHT, SYSTEM = "zqasked", "zqwanted", "zqtaught", "zqsystem"
SAID = "zqsaid"
PLACES = (ASKED, WANTED, TAUGHT, SYSTEM, SAID, "ЖЩканарейка")
CANARY = re.compile("|".join(PLACES))
NASTY = f"<img src=x onerror=alert('{SAID}')> ЖЩканарейка \u202e"  # which turns the words after it
# What stays in the run folder and is not for sharing: the replies themselves.
PRIVATE = ("replies",)
Run = Callable[..., str]


def tables(folder: Path) -> None:
    """Put canaries into the tables that `words` wrote."""
    for name in ("train", "ask", "safe", "able"):
        rows = [
            {"prompt": f"{ASKED} {name} w{n}", "response": f"{TAUGHT} w{n}", "target": f"{WANTED} w{n}"}
            for n in range(PROMPTS)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def text(rung: Rung, name: str, place: int) -> str:
    if name == "capability":
        return f"{WANTED} w{place}"
    refused = name == "refusal" and rung.step < finished_run.STEPS[-1]
    return f"{REFUSAL} {SAID}{place}" if refused else f"{SAID}{place} {NASTY}"


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    place = tmp_path_factory.mktemp("canaries")
    overrides = planted(place, tiny_folder)
    tables(place)
    finish(overrides, said=text)
    return place


def planted(place: Path, subject: Path) -> list[str]:
    return [*words(place, subject), f"subject.system_prompt={SYSTEM}"]


@pytest.fixture
def place(tmp_path: Path, master: Path) -> Path:
    shutil.copytree(master, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def run(place: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `holdfast …` on the finished run; return what it said."""

    def command(*more: str) -> str:
        overrides = planted(place, tiny_folder)
        tables(place)
        said = run_main([*overrides, *more], monkeypatch, capfd)
        return str(said.err + said.out)

    return command


def folder_of(place: Path) -> Path:
    (folder,) = (place / "runs").iterdir()
    return folder


def held(path: Path) -> str:
    """Return all that a file holds as text: archives unpacked, tables read."""
    if path.suffix == ".parquet":
        table = pl.read_parquet(path)
        return f"{table.write_json()} {json.dumps(pl.read_parquet_metadata(path))}"
    if path.suffix == ".eval":
        with zipfile.ZipFile(path) as file:
            return "\n".join(name + file.read(name).decode("utf-8", "replace") for name in file.namelist())
    return path.read_bytes().decode("utf-8", "replace")


def found(folder: Path) -> dict[str, set[str]]:
    """Return the canaries of each file of a run folder that holds any, by its path; JSON's escapes are undone."""
    hits = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = held(path)
        plain = re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), content)
        if marks := set(CANARY.findall(content)) | set(CANARY.findall(plain)):
            hits[str(path.relative_to(folder))] = marks
    return hits


def test_no_canary_leaves_the_replies(run: Run, place: Path) -> None:
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (extra `inspect`)")
    said = run("stages=[score,analyse,report,export]", "track=wandb_offline")
    folder = folder_of(place)
    hits = found(folder)
    private = {name: marks for name, marks in hits.items() if name.split("/")[0] in PRIVATE}
    assert {SAID, WANTED, "ЖЩканарейка"} <= set().union(*private.values()), "the canaries must be there"
    others = {name: marks for name, marks in hits.items() if name not in private}
    assert others == {"plan.json": {SYSTEM}}  # the plan is the configuration, system prompt included; it stays here
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    for shared in ("report.html", "verdict.json", "curves.json", "judges.json", "protocol.md", "outcomes.parquet"):
        assert shared in names
    assert len([name for name in names if name.startswith("inspect_export/") and name.endswith(".eval")]) == 12
    assert [name for name in names if name.startswith("wandb/") and name.endswith(".wandb")]
    assert not CANARY.search(said)
    assert not CANARY.search(run("stages=[plan]"))
    assert "holds no prompt or reply text" in (folder / "report.html").read_text()


def test_the_search_for_canaries_finds_them_in_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"x": f"..{SAID}.."}))
    (tmp_path / "b.json").write_text(json.dumps({"x": "ЖЩканарейка"}))  # escaped by JSON
    pl.DataFrame({"x": [WANTED]}).write_parquet(tmp_path / "c.parquet")
    with zipfile.ZipFile(tmp_path / "d.eval", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("e.json", ASKED * 50)
    (tmp_path / "f.wandb").write_bytes(b"\x00\xff" + SYSTEM.encode() + b"\xff")
    (tmp_path / "g.txt").write_text("nothing")
    assert sorted(found(tmp_path)) == ["a.json", "b.json", "c.parquet", "d.eval", "f.wandb"]


def test_text_is_shown_when_asked_for_marked_escaped_and_gone_the_next_time(run: Run, place: Path) -> None:
    said = run("stages=[score,analyse,report]", "report.include_text=true")
    folder = folder_of(place)
    page = (folder / "report.html").read_text()
    assert "It holds text of prompts and replies" in said
    assert (folder / "report.html").stat().st_mode & 0o777 == 0o600
    assert "report.include_text=true" in page
    assert "holds no prompt or reply text" not in page
    section = page[page.index('<section id="examples"') :].partition("</section>")[0]
    for canary in (ASKED, WANTED, SAID, "&lt;img src=x onerror=", "\\u202e"):
        assert canary in section
    assert "<img" not in page[: page.index("<script")] + section
    assert "\u202e" not in page  # it would turn the words around it
    assert re.findall(r"<details[^>]*>", section) == ['<details class="held">'] * 2  # closed until asked
    assert "rung 0: 6 examples" in section  # 2 refused of refusal, 2 answers each of the other two
    assert "compliance at collapse, step 2, seed 0: 6 examples" in section
    others = {name for name in found(folder) if name.split("/")[0] not in PRIVATE}
    assert others == {"report.html", "plan.json"}
    run("stages=[report]")
    assert not CANARY.search((folder / "report.html").read_text())
    assert (folder / "report.html").stat().st_mode == (folder / "verdict.json").stat().st_mode


def test_which_examples_are_shown_is_nobodys_choice(run: Run, place: Path) -> None:
    pages = []
    for _ in range(2):
        run("stages=[score,analyse,report]", "report.include_text=true")
        pages.append((folder_of(place) / "report.html").read_text())
    assert pages[0] == pages[1]
    assert read(folder_of(place), "verdict.json")["verdict"] == "collapses"


def test_a_changed_threshold_is_post_hoc_in_every_output_with_both_values(run: Run, place: Path) -> None:
    run("stages=[score,analyse,report]")
    folder = folder_of(place)
    registered = (folder / "plan.json").read_bytes()
    assert read(folder, "curves.json")["post_hoc"] == read(folder, "verdict.json")["post_hoc"] == {}
    said = run("stages=[score,analyse,report]", "review.refusal_threshold=0.3", "track=wandb_offline")
    both = {"planned": 0.05, "used": 0.3}
    told = "review.refusal_threshold: 0.3, planned was 0.05"
    verdict = read(folder, "verdict.json")
    assert verdict["post_hoc"] == {"review.refusal_threshold": both}
    assert read(folder, "curves.json")["post_hoc"] == verdict["post_hoc"]
    assert "This is post hoc, not as registered (review.refusal_threshold)." in verdict["sentence"]
    flat = " ".join(said.split())  # the terminal wraps
    assert f"Post hoc, not as registered: {told}" in flat
    page = (folder / "report.html").read_text()
    assert "Post hoc, not as registered." in page
    assert told in page
    logs = [held(path) for path in (folder / "wandb").rglob("*.wandb")]
    assert logs
    for log in logs:
        assert "post_hoc/review/refusal_threshold/planned" in log
        assert "post_hoc/review/refusal_threshold/used" in log
    assert f"- post hoc: {told}" in run("stages=[plan]", "review.refusal_threshold=0.3")
    assert (folder / "plan.json").read_bytes() == registered
    assert verdict["thresholds"]["refusal"] == 0.3


def test_who_asks_stands_at_the_head_of_the_report_and_in_the_verdict(run: Run, place: Path) -> None:
    run("stages=[score,analyse,report]", "review.training_tokens=1e9")
    folder = folder_of(place)
    verdict = read(folder, "verdict.json")
    assert verdict["review"] == {"owner": "Tiny Labs", "reviewer": "R. Viewer", "purpose": "tests"}
    page = (folder / "report.html").read_text()
    head = page[page.index("<header>") : page.index("</header>")]
    for word in ("Tiny Labs", "R. Viewer", "tests"):
        assert word in head
    # This run's doses hold no FLOPs: the price says so and makes no number of it.
    assert verdict["price"]["arm"] == "compliance"
    assert verdict["price"]["training_ratio"]["value"] is None
    assert "not on record" in page
    assert verdict["post_hoc"]["review.training_tokens"]["used"] == 1e9
    assert "post hoc" not in verdict["sentence"]  # it decides nothing
