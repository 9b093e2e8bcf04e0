"""What sbatch is given for a job: options of the site, a command that composes on the node, and an environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from finished_run import words
from rich.console import Console

from pipeline.cluster.submit import submit
from pipeline.cluster.words import asked_for, words_for_jobs
from pipeline.config import compose
from pipeline.config.compose import load
from pipeline.multirun import itself
from pipeline.reproduce.overrides import typed
from pipeline.workspace import Workspace

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "site", monkeypatch)


def test_a_site_is_told_all_that_its_file_says() -> None:
    slurm = load(["cluster=large_site"]).cluster.slurm
    train, report = asked_for(slurm, slurm.train), asked_for(slurm, slurm.report)
    for option in ("--partition=preemptible", "--account=model-safety", "--time=04:00:00"):
        assert option in train
    assert "--signal=B:USR1@300" in train
    assert {"--requeue", "--kill-on-invalid-dep=yes"} <= set(train)
    assert "--partition=cpu" in report
    assert not any(option.startswith("--gpus") for option in (*train, *report))
    slurm.train.gpus = 2
    assert "--gpus-per-node=2" in asked_for(slurm, slurm.train)
    bare = load(["cluster=slurm"]).cluster.slurm
    assert not any(
        o.startswith(("--partition", "--account", "--qos", "--mem", "--time")) for o in asked_for(bare, bare.train)
    )


def test_what_the_scripts_and_the_next_command_need_holds_against_the_sites_own_options(
    fake: FakeSlurm, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    extra = "cluster.slurm.train.extra=['--gres=gpu:h100:1','--constraint=a']"
    submit(Workspace(load([*words(tmp_path, tiny_folder), "cluster=slurm", extra]), Console(quiet=True)))
    given = fake.submitted[0]
    assert given.index("--constraint=a") < given.index("--export=ALL") < given.index("--array=0-0")
    assert fake.environment(0)["HOLDFAST_SLURM"] == str(compose.shipped("slurm"))


@pytest.mark.parametrize(
    ("users", "tables", "offline"),
    [
        (None, (), "1"),
        ("0", (), "0"),  # the user's word
        # A whole data set of the Hub: from its cache, the library would take any commit's.
        (None, ("data.benign.path=owner/name",), None),
        (None, ("evals.refusal.table.path=hf://datasets/o/n@c/f.jsonl",), "1"),
    ],
)
def test_jobs_do_not_ask_the_hub_for_what_was_fetched_at_submission(
    users: str | None,
    tables: tuple[str, ...],
    offline: str | None,
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.cluster.words import OFFLINE, asked

    monkeypatch.delenv(OFFLINE)
    if users is not None:
        monkeypatch.setenv(OFFLINE, users)
    work = Workspace(load([*words(tmp_path, tiny_folder), "cluster=slurm"]), Console(quiet=True))
    _ = work.folder
    work.config = load([*words(tmp_path, tiny_folder), "cluster=slurm", *tables])
    job = asked(work, "serve", work.config.cluster.slurm.serve, ["generate"])
    assert job.environment.get(OFFLINE) == offline


def test_a_job_composes_without_the_sites_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's Holdfast has its own conf/, which the file that a user wrote on the host is not in."""
    site = ["cluster=my_site", "cluster.slurm.train.time=60", "++cluster.slurm.qos=x", "cluster.threads=3"]
    typed([*site, "experiment=smoke", "seeds=[4]"])
    try:
        config = load(["cluster=slurm", "cluster.threads=3", "cluster.slurm.signal_s=90"]).cluster
        told = words_for_jobs(config)
    finally:
        typed([])
    assert told == [
        *("experiment=smoke", "seeds=[4]"),
        *("cluster.kind=slurm", "cluster.threads=3", "cluster.slurm.signal_s=90"),
    ]
    job = load([*told, "cluster.job=serve"])
    assert (job.cluster.kind, job.cluster.threads, job.cluster.slurm.signal_s, job.seeds) == ("slurm", 3, 90, [4])


def test_the_command_is_this_holdfast_in_whatever_folder_it_is_started(tmp_path: Path) -> None:
    """`python -m` puts the present folder first: another `pipeline` that lies there would be run in its place."""
    for name in ("__init__", "__main__"):
        (tmp_path / "pipeline").mkdir(exist_ok=True)
        (tmp_path / "pipeline" / f"{name}.py").write_text("print('another')")
    command = itself()
    if command[1] == "-m":
        pytest.skip("Holdfast is not installed here: it is found by the folder of its checkout alone")
    done = subprocess.run([*command, "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "another" not in done.stdout
    assert "name: demo" in done.stdout


def test_a_checkout_that_is_not_installed_is_started_in_its_folder(tmp_path: Path) -> None:
    """This one may be installed: its copy is not."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "evals").symlink_to(CHECKOUT / "evals")
    for part in (CHECKOUT / "pipeline").iterdir():
        (tmp_path / "pipeline" / part.name).symlink_to(part)
    code = "import sys; from pipeline.multirun import itself; print(' '.join(itself()[1:]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "-m pipeline\n", done.stderr
