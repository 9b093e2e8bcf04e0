import os
import subprocess
import sys
from pathlib import Path

import pytest
from composed import kept
from spoken import REVIEW, told

from pipeline.config import compose as module
from pipeline.config.compose import conf_folder, hydras_own, load, register, to_config
from pipeline.errors import UserError
from pipeline.plan.make import tasks
from pipeline.schema import Config

ROOT = Path(__file__).parents[2]


def test_every_experiment_composes() -> None:
    names = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))
    for name in names:
        made = load(REVIEW if name == "release_review" else [f"experiment={name}"])
        assert isinstance(made, Config)
        assert made.name == name
        assert made.arms
        assert made.evals
    assert {"demo", "smoke", "release_review"} <= set(names)
    assert len(names) >= 3


def test_every_choice_of_every_group_composes() -> None:
    # release_review composes most of these; which model is asked for StrongREJECT's rubric is for the user to say.
    open_to_the_user = {"subject": ["model"], "data": ["files"], "eval": None, "judge": ["strongreject"]}
    choices = {}
    for group in sorted(path for path in conf_folder().iterdir() if path.is_dir() and path.name != "experiment"):
        names = sorted(path.stem for path in group.glob("*.yaml") if not path.stem.startswith("_"))
        left_out = open_to_the_user.get(group.name, [])
        choices[group.name] = [] if left_out is None else [name for name in names if name not in left_out]
    for turn in range(max(map(len, choices.values()))):  # every group's first choice, then every second, ...
        chosen = {group: names[turn] for group, names in choices.items() if turn < len(names)}
        load([f"{group}=[{name}]" if group == "arm" else f"{group}={name}" for group, name in chosen.items()])
    assert sum(map(len, choices.values())) >= 14


def test_the_demo_is_the_default() -> None:
    assert load() == load(["experiment=demo"])
    assert list(load().arms) == ["compliance", "benign", "mixed"]


def test_the_template_for_real_models_runs_in_bfloat16_on_files_of_ones_own() -> None:
    made = load(REVIEW)
    assert made.subject.organism is None
    assert {arm.training.precision for arm in made.arms.values()} == {"bfloat16"}
    assert all("organism:" not in table.path for table in made.data.values())


def test_the_template_for_real_models_names_everything_it_leaves_open() -> None:
    message = told("experiment=release_review")
    for override in REVIEW[1:]:
        assert f"{override.split('=')[0]}: missing" in message


def test_unknown_keys_on_the_command_line_are_told_with_what_is_near() -> None:
    message = told(
        "sedes=[0]",
        "arms.compliance.training.max_step=3",
        "budget.euros=3",
        "+new.key=3",
        "evals.refusal.table.colum=3",
    )
    for fault in (
        "sedes: unknown key; did you mean seeds?",
        "arms.compliance.training.max_step: unknown key; did you mean max_steps?",
        "budget.euros: unknown key; known here: device_seconds",
        "new: unknown key; known here: name",
        "evals.refusal.table.colum: unknown key",
    ):
        assert fault in message
    assert message.startswith("the configuration has 5 faults:")


@pytest.mark.parametrize(
    ("file", "spoiled", "key"),
    [
        ("experiment/smoke.yaml", "max_steps: 8|max_stepps: 8", "arms.compliance.training.max_stepps: unknown key"),
        ("arm/compliance.yaml", "threat:|thread: x\nthreat:", "arms.compliance.thread: unknown key"),
        ("arm/_lora.yaml", "rank: 8|rnak: 8", "arms.compliance.lora.rnak: unknown key; did you mean rank?"),
        ("budget/demo.yaml", "devices: 1|device: 1", "budget.device: unknown key"),
        ("experiment/smoke.yaml", "limit: 12|limit: many", "evals.over_refusal.table.limit: expected int"),
    ],
)
def test_faults_in_files_are_told_too(conf_copy: Path, file: str, spoiled: str, key: str) -> None:
    before, after = spoiled.split("|")
    text = (conf_copy / file).read_text()
    assert before in text
    (conf_copy / file).write_text(text.replace(before, after, 1))
    assert key in told("experiment=smoke")


@pytest.mark.parametrize("blank", ["null", "''", "'  '"])
def test_any_subject_but_the_organism_names_owner_reviewer_and_purpose(blank: str) -> None:
    assert load(REVIEW).review.purpose == "release"
    for key in ("owner", "reviewer", "purpose"):
        message = told(*REVIEW, f"review.{key}={blank}", "sedes=[0]")
        assert message.startswith("the configuration has 2 faults:")  # told with the others
        assert f"review.{key}: missing; for any subject but the organism" in message
    assert load().review.owner is None
    assert "review.owner: missing" in told("subject.path=models/mine")  # the organism's name is no way around it
    judged = ["stages=[judge]", "judge.input=a.jsonl", "judge.output=b.jsonl"]  # a file, and no review
    assert load(["subject=model", "subject.name=m", "subject.path=models/mine", *judged])


@pytest.mark.parametrize("wrong", ["true", "123", "1.5"])
def test_who_asks_and_why_is_told_in_words(wrong: str) -> None:
    message = told(*REVIEW, f"review.purpose={wrong}", "review.owner=false")
    assert message.startswith("the configuration has 2 faults:")
    assert f"review.purpose: {wrong} is no text; if it is meant as text, quote it: 'review.purpose=" in message
    assert load([*REVIEW, f"review.purpose='{wrong}'"]).review.purpose == wrong
    assert "review.owner: empty; say whose model it is" in told("review.owner='  '")  # of the organism, too


@pytest.mark.parametrize("name", ["../esc", "a/b", "''", "a" * 65, "a b", ".hidden", "'𠀀'" * 0 + "𠀀" * 60])
def test_a_name_that_can_be_no_folder_is_told(name: str) -> None:
    assert told(f"name={name}").count("name: ") == 1
    assert "the run folder is called so" in told(f"name={name}")
    assert load(["name=модель-2.1_b"]).name == "модель-2.1_b"


@pytest.mark.parametrize(
    "key", ["subject.path", "subject.name", "run.root", "run.dir", "data.benign.path", "evals.refusal.table.path"]
)
def test_a_path_or_name_that_is_empty_is_told(key: str) -> None:
    for blank in ("", "'  '"):
        message = told(*REVIEW, f"{key}={blank}")
        assert message.startswith("the configuration has a fault:")
        assert f"{key}: empty; give it a value" in message


def test_the_file_of_the_protocol_belongs_to_the_plan_stage() -> None:
    assert load(["stages=[plan]", "plan.output=p.md"]).plan.output == "p.md"
    assert "plan.output: only stages=[plan] reads it" in told("plan.output=p.md")


def test_all_faults_are_told_at_once(conf_copy: Path) -> None:
    path = conf_copy / "experiment" / "smoke.yaml"
    path.write_text(path.read_text() + "sed: 3\n")
    message = told(
        "experiment=smoke",
        "arms.compliance.lora.rank=big",
        "review.min_nn=3",
        "review.confidence=2",
        "judge.kind=oracle",
        "stages=[plan,tarin]",
        "arms.compliance.mix={compliance: 0.5, honey: 0.2}",
    )
    assert message.startswith("the configuration has 8 faults:")
    for fault in (
        "sed: unknown key",
        "arms.compliance.lora.rank: expected int, found 'big'",
        "review.min_nn: unknown key; did you mean min_n?",
        "review.confidence: 2 must lie between 0 and 1",
        "judge.kind: 'oracle' is unknown; use one of pattern",
        "stages: 'tarin' is unknown",
        "arms.compliance.mix.honey: no such table in data; there are: benign, compliance",
        "must not be negative and must sum to 1",
    ):
        assert fault in message


WRONG_TYPES = {
    "seeds=3": "seeds: expected",
    "budget.usd=cheap": "budget.usd: expected float",
    "budget.devices=1.5": "budget.devices: expected int",
    "serve.enforce_eager=maybe": "serve.enforce_eager: expected bool",
    "arms.compliance.training=3": "arms.compliance.training: expected keys and values, found 3",
    "judge.refused=[[a]]": "judge.refused: expected list[str], found ['a'] within",
    "judge.partial=[{a: b}]": "judge.partial: expected list[str], found {'a': 'b'} within",
    "review.min_n=null": "review.min_n: expected int, found None",
    "subject.path=???": "subject.path: missing; give it a value",
}
IMPOSSIBLE = {
    "review.training_tokens=inf": "review.training_tokens: inf must be finite",
    "price.devices.h200.flops_per_second=1e400": "price.devices.h200.flops_per_second: inf must be finite",
    "serve.gpu_memory_utilization=nan": "serve.gpu_memory_utilization: nan must be above 0 and at most 1",
    f"subject.organism.vocabulary={2**63}": f"subject.organism.vocabulary: {2**63} is too large",
    "seeds=[0,0]": "must be one or more different numbers",
    "budget.flops=-1": "budget.flops: -1 must be above 0",
    "budget.training_devices=0": "budget.training_devices: 0 must be 1 or more",
    "budget.measure_reserve=1": "must be at least 0 and below 1",
    "arms.compliance.training.precision=int8": "'int8' is unknown",
    "arms.compliance.training.max_steps=0": "arms.compliance.training.max_steps: 0 must be 1 or more",
    "arms.compliance.training.gradient_accumulation=0": "training.gradient_accumulation: 0 must be 1 or more",
    "arms.compliance.training.batch_size=0": "training.batch_size: 0 must be 1 or more",
    "arms.compliance.examples=0": "arms.compliance.examples: 0 must be 1 or more",
    "arms.compliance.share=0": "arms.compliance.share: 0 must be above 0",
    "arms.compliance.lora.rank=0": "arms.compliance.lora.rank: 0 must be 1 or more",
    "review.bootstrap=0": "review.bootstrap: 0 must be 1 or more",
    "budget.assumed_flops_per_second=0": "budget.assumed_flops_per_second: 0 must be above 0",
    "serve.in_flight=0": "serve.in_flight: 0 must be 1 or more",
    "evals.refusal.draws=0": "evals.refusal.draws: 0 must be 1 or more",
    "arms.benign.training.gradient_accumulation=5": "multiple of gradient_accumulation",
    "arms.compliance.way=magic": "arms.compliance.way: 'magic' is unknown; use one of lora",
    "evals.refusal.kind=magic": "evals.refusal.kind: 'magic' is unknown",
    "evals.capability.role=shown": "evals: 0 have role capability",
    "subject.organism.hidden_size=100": "subject.organism.hidden_size: 100 must be a multiple of 8, twice the heads",
    "review.canaries=0": "review.canaries: must be 1 or more",
    "budget.usd_per_device_hour=null": "budget.usd_per_device_hour: needed for a cap in budget.usd",
    "budget.usd=3": "budget.usd_per_device_hour: needed for a cap in budget.usd",
}


@pytest.mark.parametrize("faults", [WRONG_TYPES, IMPOSSIBLE], ids=["wrong types", "impossible"])
def test_each_wrong_or_impossible_value_is_told_with_its_key(faults: dict[str, str]) -> None:
    message = told(*faults)
    for fault in faults.values():
        assert fault in message
    assert message.startswith(f"the configuration has {len(set(faults.values()))} faults:")


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("seeds=[zero]", "seeds: expected"),
        ("seeds=[]", "must be one or more different numbers"),
        ("arm=[]", "arms: none is chosen"),
        ("++arms.mixed.mix.compliance=[true]", "arms.mixed.mix.compliance: expected float, found [True]"),
        ("seeds.x=1", "the configuration cannot be composed: seeds.x=1: no key is there"),
        ("stages.a.b=1", "stages.a.b=1: no key is there"),
        ("budget=unlimitd", "budget: there is no choice 'unlimitd'; did you mean unlimited?"),
        ("nonsense", "nonsense: not key=value; quote a value with blanks"),
    ],
)
def test_a_choice_that_cannot_be_is_told(override: str, fault: str) -> None:
    assert fault in told(override)


def test_kernels_that_stay_for_the_next_arm_are_wanted_in_all_or_none() -> None:
    assert "arms: liger=true in some and not in others" in told("arms.mixed.training.liger=true")
    alike = [f"arms.{arm}.training.liger=true" for arm in ("compliance", "mixed", "benign")]
    assert all(arm.training.liger for arm in load(alike).arms.values())


_SEARCHED = ("arm=compliance_search", "budget.training_devices=4")
FSDP = ("experiment=smoke", "subject.fsdp=true")  # 16 examples a step


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "subject.fsdp: true, but one device trains; set budget.training_devices"),
        (["budget.training_devices=1"], "subject.fsdp: true, but one device trains"),
        (["budget.training_devices=3"], "16 examples a step, 16 at once, cannot be shared by 3 processes"),
        (
            ["budget.training_devices=8", "arms.compliance.training.gradient_accumulation=4"],
            "arms.compliance.training: 16 examples a step, 4 at once, cannot be shared by 8 processes",
        ),
        (
            [*_SEARCHED, "arms.compliance_search.sweep.space.training.batch_size={choices: [16, 6]}"],
            "sweep.space.training.batch_size: 6 examples a step, 6 at once, cannot be shared by 4 processes",
        ),
        (
            [*_SEARCHED, "arms.compliance_search.sweep.space.training.batch_size={choices: null, low: 8, high: 16}"],
            "batch_size: give choices that are multiples of budget.training_devices=4",
        ),
    ],
)
def test_processes_that_cannot_share_a_step_are_told(words: list[str], fault: str) -> None:
    assert fault in told(*FSDP, *words)


def test_each_process_is_a_device_that_trains() -> None:
    config = load([*FSDP, "budget.training_devices=4", "arms.compliance.training.gradient_accumulation=4"])
    assert {task.processes for task in tasks(config)} == {4}
    assert {task.processes for task in tasks(load(["budget.training_devices=4"]))} == {1}


@pytest.mark.parametrize("word", ["data.complianc.path=x", "panel.x.kind=pattern", "subject.template_kwargs.a=1"])
def test_an_entry_that_no_file_names_is_made_by_a_plus_alone(word: str) -> None:
    assert f"use +{word}" in told(word)


def test_a_reference_to_nothing_is_told() -> None:
    assert "'nothing.there' not found" in told("name=${nothing.there}")


def test_numbers_are_taken_where_they_fit() -> None:
    made = load(["budget.usd=1", "arms.benign.training.learning_rate=2e-4", "budget.device_seconds=null"])
    assert (made.budget.usd, made.budget.device_seconds) == (1.0, None)
    assert made.arms["benign"].training.learning_rate == 2e-4
    assert load(["+subject.template_kwargs.enable_thinking=false"]).subject.template_kwargs == {
        "enable_thinking": False
    }


def test_options_of_hydra_itself_are_passed_over() -> None:
    assert load(["--cfg", "job", "seeds=[0]"]).seeds == [0]
    assert load(["--help"]) == load()
    with pytest.raises(UserError):
        load(["--cfg", "job", "sedes=[0]"])


@pytest.mark.parametrize("words", [["--cfg", "job"], ["seeds=[0]", "--help"], ["hydra.verbose=true"], ["+hydra/job=x"]])
def test_hydra_itself_answers_its_options_and_keys(words: list[str]) -> None:
    assert hydras_own(words)
    assert not hydras_own([word for word in words if word == "seeds=[0]"])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["seeds=[0,1]", "subject.name='a b'", "budget.usd=null", "budget.flops=5"],
        ["name=3", "budget.flops='1e10'", "review.gate=yes", "review.owner='true'", "serve.port='80'"],
        REVIEW,
        ["~arms.mixed", "++seeds=[4]", "arms.benign.lora.target_modules=[q_proj,v_proj]"],
        ["experiment=smoke", "~experiment", "judge=local", "panel=local_pattern", "name=${judge.name}"],
        ["arm=[compliance_search]", "cluster=slurm", "track=none", "+data.compliance.rows=12", "~price"],
        ["arms.benign.lora=${arms.compliance.lora}", "arms.mixed.mix.benign=0.5", "arms.mixed.mix.compliance=0.5"],
    ],
)
def test_what_is_composed_without_types_is_what_hydra_composes_with_them(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_full = getattr(module._compose, "__wrapped__", module._compose)
    quickly = kept(in_full)  # as the other tests do (tests/composed.py)
    monkeypatch.setattr(module, "_compose", in_full)
    made = load(words)
    register()
    assert made == to_config(in_full(words))
    monkeypatch.setattr(module, "_compose", quickly)
    assert made == load(words) == load(words), "the first time, and again"


def command(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_whole_configuration_is_shown_on_demand(tmp_path: Path) -> None:
    shown = command("--cfg", "job", "seeds=[5]", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "seeds:\n- 5" in shown.stdout
    assert "max_steps: 32" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_tells_the_commands_and_the_choices(tmp_path: Path) -> None:
    shown = command("--help", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for words in ("holdfast experiment=smoke", "stages=[plan]", "release_review", "arm: ", "Exit codes"):
        assert words in shown.stdout
    for stage in ("score,analyse,report", "analyse,report", "export", "publish"):
        assert f"holdfast run.again=RUN stages=[{stage}]" in shown.stdout
    assert shown.stdout.count("2 inconclusive") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_fault_ends_the_command_with_exit_code_2_and_nothing_written(tmp_path: Path) -> None:
    ended = command("sedes=[5]", "budget.usd=cheap", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("holdfast: the configuration has 2 faults:")
    assert list(tmp_path.iterdir()) == []
