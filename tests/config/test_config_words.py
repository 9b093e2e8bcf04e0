"""Ordinary words of a command line are taken as typed; what cannot be read is told with the quotes that it wants."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from spoken import REVIEW, told

from pipeline import __main__ as main_module
from pipeline.config.compose import hydras_own, load
from pipeline.config.words import readable, unread
from pipeline.errors import UserError
from pipeline.multirun import jobs

PLAIN = {
    "review.owner": "My Lab, Inc.",
    "review.reviewer": "Jörg's Lab",
    "review.purpose": "it's 100% done: my-model, v2 (final)",
    "subject.name": "модель",
    "subject.path": "~/model",
    "data.benign.path": "/x/file (1).jsonl",
    "data.compliance.path": "a,b=c.jsonl",
    "evals.refusal.table.path": 'C:\\say "x".csv',
}


def test_plain_text_is_taken_as_it_was_typed() -> None:
    made = load([*REVIEW, *(f"{key}={text}" for key, text in PLAIN.items()), "name=модель"])
    review, data = made.review, made.data
    assert [review.owner, review.reviewer, review.purpose] == list(PLAIN.values())[:3]
    assert (made.name, made.subject.name, made.subject.path) == ("модель", "модель", "~/model")
    assert (data["benign"].path, data["compliance"].path) == ("/x/file (1).jsonl", "a,b=c.jsonl")
    assert made.evals["refusal"].table.path == 'C:\\say "x".csv'


@pytest.mark.parametrize(
    "word", ["seeds=[0,1]", "review.owner='a, b'", "~arms.mixed", "subject.path=a b", "x=${y}", "k=1"]
)
def test_what_hydra_reads_is_left_to_it(word: str) -> None:
    assert readable([word]) == [word]
    assert not unread([word])


UNREAD = {
    "review.owner='My Lab": "review.owner: 'My Lab cannot be read; as text it is ",
    "compare.runs=[runs/a (1),b]": "compare.runs: [runs/a (1),b] cannot be read; close what is opened and quote texts "
    'in it, as in \'compare.runs=["a b","c"]\'',
    "arm=compliance,benign": "arm: compliance,benign are several values, which only -m runs, one after the other; "
    "write arm=[compliance,benign] as a list",
    "subject.path=a,b": "subject.path: a,b are several values, which only -m runs, one after the other; "
    "write 'subject.path=\"a,b\"' as one text",
    "Lab": "Lab: not key=value; quote a value with blanks for the shell",
    "ключ=3": "ключ=3: not key=value",
}


def test_what_cannot_be_read_is_told_with_its_quotes_and_with_all_other_faults() -> None:
    message = told(*REVIEW, *UNREAD, "sedes=[0]", "budget.usd=~5")
    assert message.startswith(f"the configuration has {len(UNREAD) + 2} faults:")
    for fault in (*UNREAD.values(), "sedes: unknown key", "budget.usd: expected float, found '~5'"):
        assert fault in message
    assert "hydra.cc" not in message
    assert "++" not in message


@pytest.mark.parametrize("word", ["review.owner='My Lab", 'review.owner="a"b', "subject.path=a,b"])
def test_the_quotes_that_are_told_are_right(word: str) -> None:
    (fault,) = unread([word]).values()
    (quoted,) = (part for part in shlex.split(fault.replace(word.partition("=")[2], "", 1)) if "=" in part)
    assert not unread([quoted])
    key, _, value = word.partition("=")
    made = load([*REVIEW, quoted])
    assert value == (made.review.owner if key == "review.owner" else made.subject.path)


def test_what_cannot_be_composed_is_told_with_what_cannot_be_read() -> None:
    message = told("Lab", "budget=unlimitd")
    assert message.startswith("the configuration has 2 faults:")
    assert "budget: there is no choice 'unlimitd'; did you mean unlimited?" in message


def test_several_runs_read_plain_text_too_and_commas_part_values_there() -> None:
    assert jobs(["-m", "subject.name=модель", "review.owner=a, b"]) == [
        ['subject.name="модель"', "review.owner=a"],
        ['subject.name="модель"', "review.owner=b"],
    ]
    with pytest.raises(UserError, match="name: 'x cannot be read"):
        jobs(["-m", "name='x", "seeds=[0],[1]"])


def test_hydras_own_main_is_given_what_it_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["experiment=smoke", "arm=[benign]", "name=модель", "--cfg", "job"]
    assert hydras_own(words)
    monkeypatch.setattr("sys.argv", ["holdfast", *words])
    main_module.main()
    shown: Any = capsys.readouterr().out
    assert "name: модель" in shown
    assert "benign:" in shown
    assert "threat: ???" not in shown
