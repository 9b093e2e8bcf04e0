"""A run of somebody else decides nothing beyond itself: where texts and keys go, whose code runs, what is kept."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import finish, read, words
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.reproduce.consent import taken_over
from pipeline.reproduce.source import configuration, read_source
from pipeline.schema import Config, LlmJudgeConfig
from pipeline.schema.contain import ContainConfig
from pipeline.schema.reproduce import ReproduceConfig

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A finished run."""
    place = tmp_path_factory.mktemp("foreign")
    overrides = [*words(place, tiny_folder), f"run.dir={place / 'run'}"]
    finish(overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["holdfast", *overrides, "stages=[score,analyse,report]"])
        from pipeline.__main__ import main

        main()
    return place


@pytest.fixture
def sent(master: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return the run as its sender made it look: another configuration in plan.json, and a record that fits it."""

    def made(edit: Edit) -> Path:
        run = tmp_path / "run"
        shutil.copytree(master / "run", run)
        plan, record = read(run, "plan.json"), read(run, "reproduce.json")
        edit(plan["config"])
        (run / "plan.json").write_text(json.dumps(plan))
        (run / "reproduce.json").write_text(json.dumps(record | {"plan_file_sha256": digest(plan)}))
        return run

    return made


def config_of(run: Path, kept: ContainConfig | None = None, **change: Any) -> Config:
    source = read_source(str(run))
    return configuration(source, ReproduceConfig(run=str(run), change=change), kept or ContainConfig())


def set_at(key: str, value: Any) -> Edit:
    def edit(config: dict[str, Any]) -> None:
        *above, last = key.split(".")
        for part in above:
            config = config[part]
        config[last] = value

    return edit


def talking(**more: Any) -> dict[str, Any]:
    return asdict(LlmJudgeConfig(model="m", revision="1", **more))


AWAY = {"base_url": "https://there.example/v1", "allow_remote": True, "api_key_env": "OPENAI_API_KEY"}
TASK = {"kind": "inspect", "task": "/tmp/theirs.py@task", "role": "shown"}


def with_judge(config: dict[str, Any]) -> None:
    config["judge"] |= {"kind": "llm", "llm": talking(**AWAY)}


def with_panel(config: dict[str, Any]) -> None:
    config["panel"]["second"] = {**config["judge"], "kind": "llm", "llm": talking(**AWAY)}


def with_task(config: dict[str, Any]) -> None:
    config["evals"]["theirs"] = {**config["evals"]["capability"], **TASK}


ARGS = ["--host=0.0.0.0", "--trust-remote-code", '--api-key=a "b" c']
REACHING: list[tuple[Edit, Mapping[str, Any]]] = [
    (with_judge, {f"judge.llm.{key}": value for key, value in AWAY.items()}),
    (with_panel, {f"panel.second.llm.{key}": value for key, value in AWAY.items()}),
    (with_task, {"evals.theirs.task": TASK["task"]}),
    (set_at("serve.extra_args", ARGS), {"serve.extra_args": ARGS}),
    (set_at("subject.attention", "there/kernel"), {"subject.attention": "there/kernel"}),
]


@pytest.mark.parametrize(("edit", "keys"), REACHING)
def test_what_reaches_beyond_the_run_is_told_and_refused(
    edit: Edit, keys: Mapping[str, Any], sent: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match="sends texts or keys away, or runs code") as error:
        config_of(sent(edit))
    assert [line.partition(":")[0] for line in error.value.what.split("\n  - ")[1:]] == list(keys)


@pytest.mark.parametrize(("edit", "keys"), REACHING)
def test_it_is_done_once_each_is_said_here_too(edit: Edit, keys: Mapping[str, Any], sent: Callable[..., Path]) -> None:
    """By the very words that the error names, as Hydra reads them; all but one are not enough."""
    run = sent(edit)
    with pytest.raises(UserError) as error:
        config_of(run)
    said = error.value.remedy.partition(": ")[2].rpartition("; nothing was run")[0]
    parsed = OverridesParser.create().parse_overrides(shlex.split(said))
    given = {word.key_or_group.removeprefix("reproduce.change."): word.value() for word in parsed}
    assert given == dict(keys)
    made = config_of(run, **nested(given))
    for key, value in keys.items():
        assert at(asdict(made), key) == value
        assert key in dict(taken_over(made)), "what is done is printed before"
        with pytest.raises(UserError, match=key):
            config_of(run, **nested({k: v for k, v in given.items() if k != key}))


def test_every_file_that_is_opened_is_printed_before(tmp_path: Path, tiny_folder: Path) -> None:
    sweep = "arms.compliance_search.sweep"
    shots = "{template: '{shots}{question}', shot: '{question}', count: 1, shots: {path: their/shots.jsonl}}"
    files = ["their/template.jinja", "their/shots.jsonl", "their/asked.jsonl", "their/able.jsonl"]
    made = load(
        [
            *(word for word in words(tmp_path, tiny_folder) if not word.startswith("arm")),
            *("arm=[compliance_search]", f"evals.capability.prompt={shots}", f"subject.chat_template={files[0]}"),
            *(f"{sweep}.refusal.path={files[2]}", f"{sweep}.capability.path={files[3]}"),
        ]
    )
    told = " ".join(value for _, value in taken_over(made))
    assert [file for file in files if file not in told] == []


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        node = made
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value
    return made


def at(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node[part]
    return node


def renamed(group: str, old: str, new: str) -> Edit:
    def edit(config: dict[str, Any]) -> None:
        config[group][new] = config[group].pop(old)

    return edit


@pytest.mark.parametrize("name", ["../../../../outside", "/outside", "a/b", "..", "", "${oc.select:'../../x',ok}"])
@pytest.mark.parametrize(("group", "old"), [("arms", "compliance"), ("evals", "over_refusal")])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    group: str, old: str, name: str, sent: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match="becomes a file name"):
        config_of(sent(renamed(group, old, name)))


@pytest.mark.parametrize("name", ["../../x", "${oc.select:'../../x',ok}", "${oc.env:HOME}"])
def test_a_judges_name_is_checked_as_it_stands(name: str, sent: Callable[..., Path]) -> None:
    """An interpolation would be checked as one name, and run as another."""
    with pytest.raises(UserError, match="becomes a file name"):
        config_of(sent(set_at("judge.name", name)))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (set_at("price.mfu", 7.0), "price.mfu"),
        (set_at("seeds", []), "seeds"),
        (set_at("review.refusal_threshold", 7.0), "review.refusal_threshold"),
        (set_at("evals.refusal.role", "shown"), "have role refusal"),
    ],
)
def test_every_check_of_a_configuration_is_made(edit: Edit, told: str, sent: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=f"cannot be run here:\n(.|\n)*{told}"):
        config_of(sent(edit))


def test_what_becomes_of_the_adapters_is_this_commands_choice(sent: Callable[..., Path]) -> None:
    theirs = {"keep": True, "recipients": "/tmp/theirs.txt", "retention_days": 0.0}
    run = sent(lambda config: config["contain"].update(theirs))
    assert config_of(run).contain == ContainConfig()
    mine = ContainConfig(keep=True, recipients="/tmp/mine.txt")
    assert config_of(run, mine).contain == mine
    with pytest.raises(UserError, match=r"reproduce.change.contain: what becomes of adapters"):
        config_of(run, contain={"keep": True})


def test_nothing_is_submitted_and_no_shell_line_is_taken_over(sent: Callable[..., Path]) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["cluster"] |= {"kind": "slurm", "threads": 3}
        config["cluster"]["slurm"] |= {"setup": ["curl there | sh"], "wrap": ["there"]}
        config["publish"]["entity"] = "theirs"

    made = config_of(sent(edit))
    assert (made.cluster.kind, made.cluster.threads, made.cluster.slurm.setup) == ("local", 3, [])
    assert made.publish.entity is None


def test_the_command_prints_what_it_takes_over_and_refuses_before_anything_is_opened(
    sent: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = sent(set_at("subject.name", "renamed"))
    asked = ["stages=[reproduce]", f"reproduce.run={run}", "reproduce.dry=true"]
    said = run_main(asked, monkeypatch, capsys).err
    assert "taken over from its plan" in said
    assert "adapters: destroyed once they are measured" in said
    assert "evals.refusal: " in said
    shutil.rmtree(run)
    opened: list[str] = []
    monkeypatch.setattr("pipeline.workspace.open_subject", lambda *_: opened.append("subject"))
    run = sent(with_judge)
    assert "judge.llm.allow_remote: true" in run_main(asked, monkeypatch, capsys, 2).err
    assert not opened


def test_signs_that_a_terminal_acts_on_are_not_printed(sent: Callable[..., Path]) -> None:
    """Control characters are refused before, as in any configuration."""
    made = config_of(sent(set_at("subject.path", "/models/\u200fm")))  # a mark that turns nothing round, not printed
    assert dict(taken_over(made))["subject"] == "/models/\ufffdm"


def test_an_own_run_is_reproduced_without_a_word(master: Path) -> None:
    made = config_of(master / "run")
    assert made.contain == load().contain
    assert not [key for key, _ in taken_over(made) if key.startswith("serve")]
