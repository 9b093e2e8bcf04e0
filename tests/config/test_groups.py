"""Words that choose from a group of conf/: a choice that is none is told in a line, with what could be chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import run_main
from hypothesis import given
from hypothesis import strategies as st
from spoken import told

from pipeline.config.compose import conf_folder, load
from pipeline.config.groups import groups, unknown

CONF = conf_folder()
NAMES = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in sorted(groups(CONF))}


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("judge=patern", "judge: there is no choice 'patern'; did you mean pattern?"),
        ("price=zzz", "price: there is no choice 'zzz'; known here: default"),
        ("judge=null", "judge: null is the name of no choice; known here: harmbench, llama_guard, local,"),
        ("+judge=null", "judge: null is the name of no choice"),
        ("experiment=null", "to do without, write ~experiment"),
        ("judge=true", "judge: true is the name of no choice"),
        ("judge=1", "judge: 1 is the name of no choice"),
        ("judge=1.5", "judge: 1.5 is the name of no choice"),
        ("judge=", "judge: there is no choice ''; known here: harmbench"),
        ("eval=[refusal,null]", "eval: null is the name of no choice"),
        ("eval=[refusal,refusl]", "eval: there is no choice 'refusl'; did you mean refusal?"),
        ("eval=[1]", "eval: 1 is the name of no choice"),
        ("judge=[[pattern]]", "judge: [pattern] is the name of no choice"),
        ("judge=../judge/pattern", "judge: there is no choice '../judge/pattern'; did you mean"),
        ("~panel=-0.0", "~panel: -0.0 is the name of no choice; write ~panel alone"),
        ("~data=[null]", "~data: [null] is the name of no choice; write ~data alone"),
        ("judge=/etc/passwd", "judge: there is no choice '/etc/passwd'"),
    ],
)
def test_a_choice_that_is_none_is_told_in_a_line(word: str, fault: str) -> None:
    message = told(word)
    assert fault in message
    assert len(message.splitlines()) == 2
    assert "_llm" not in message  # what other files are made of is no choice


def test_all_of_them_are_told_together_and_with_what_cannot_be_read() -> None:
    message = told("judge=nobody", "eval=[refusal,a,null]", "serve=gpuu", "review.owner='My Lab")
    assert message.startswith("the configuration has 5 faults:")
    for fault in (
        "judge: there is no",
        "eval: there is no choice 'a'",
        "eval: null",
        "serve: there is",
        "review.owner",
    ):
        assert fault in message


def test_it_ends_the_command_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["judge=null"], ["judge=null", "--cfg", "job"], ["-m", "judge=null,pattern", "stages=[plan]"]):
        said = run_main(words, monkeypatch, capsys, 2).err
        assert "null is the name of no choice" in said
        assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_choices_of_a_folder_of_ones_own_are_left_to_hydra(tmp_path: Path) -> None:
    (tmp_path / "price").mkdir()
    (tmp_path / "price" / "mine.yaml").write_text("{}\n", encoding="utf-8")
    assert load([f"hydra.searchpath=[file://{tmp_path}]", "price=mine"])
    assert "there is no choice 'mine'" in told("price=mine")


def test_choices_may_lie_in_a_folder_of_the_group(conf_copy: Path) -> None:
    (conf_copy / "price" / "ours").mkdir()
    (conf_copy / "price" / "ours" / "site.yaml").write_text("{}\n", encoding="utf-8")
    assert load(["price=ours/site", "experiment=smoke"])
    assert "price: there is no choice 'site'; did you mean ours/site?" in told("price=site")
    assert "known here: default, ours/site" in told("price=null")


@given(st.data())
def test_what_can_be_chosen_is_no_fault(data: st.DataObject) -> None:
    group = data.draw(st.sampled_from(sorted(NAMES)))
    names = data.draw(st.lists(st.sampled_from(NAMES[group]), min_size=1, max_size=3, unique=True))
    plus = data.draw(st.sampled_from(["", "+", "++"]))
    words = [f"{plus}{group}={names[0]}", f"{plus}{group}=[{','.join(names)}]", f"{group}={names[0]}.yaml"]
    assert not unknown([*words, f"~{group}", f"~{group}={names[0]}", f"{group}={{a: 1}}", "name=nobody"], CONF)
