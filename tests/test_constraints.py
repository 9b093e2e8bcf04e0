"""The pinned environment: every Python that pyproject.toml lets in can install it."""

import re
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_every_pinned_version_installs_on_the_oldest_python():
    """Debian 12's is 3.11.2: a pin that wants 3.11.5 ended `make demo` there before it began."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    here = {canonicalize_name(found.name): found for found in distributions()}
    # A build's own name after the plus (torch 2.13.0+cpu) does not change what it wants.
    stated = {
        name: here[name].metadata.get("Requires-Python", "")
        for name, version in pinned.items()
        if name in here and here[name].version.partition("+")[0] == version
    }
    assert len(stated) > len(pinned) * 0.9, "too few of the pinned versions are installed here to tell"
    assert {name: wanted for name, wanted in stated.items() if not SpecifierSet(wanted).contains(oldest)} == {}


@pytest.mark.parametrize(("extra", "left_out"), [("cpu", True), ("gpu", False)])
def test_only_the_cpu_extra_goes_without_what_vllm_imports_for_some_models_on_a_gpu(
    extra: str, left_out: bool, tmp_path: Path
):
    """`No module named 'torchvision'` ended vLLM's start there; beside CPU torch the same wheel breaks transformers."""
    words = ["make", "--dry-run", "env", f"EXTRA={extra}", f"VENV={tmp_path / 'none'}"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (install,) = (line for line in said.splitlines() if f"--extra {extra}" in line)
    assert ("--overrides overrides-cpu.txt" in install) == left_out
    assert ("--constraint constraints.txt" in install) == left_out


def test_what_is_left_out_is_left_out_by_the_cpu_extra_alone():
    lines = (ROOT / "overrides-cpu.txt").read_text().splitlines()
    never = [Requirement(line) for line in lines if not line.startswith("#")]
    assert {each.name for each in never} == {"torchvision", "torchaudio", "torchcodec"}
    assert not any(each.marker.evaluate() for each in never if each.marker)
    both = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["override-dependencies"]
    assert {Requirement(line).name for line in both} == {"fsspec", "python-dateutil"}
