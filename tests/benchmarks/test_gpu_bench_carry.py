"""What travels to a lent GPU machine: what it lacks, no call too large, vLLM's wheel without what it has no use for."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.gpu_parts.carry import ROOT, calls, halves, missing, name_of, stripped


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("hydra_core-1.3.8-py3-none-any.whl", "hydra-core"),
        ("antlr4_python3_runtime-4.9.3-py3-none-any.whl", "antlr4-python3-runtime"),
        ("polars_runtime_32-2.1.0-cp311-abi3-manylinux_2_17_x86_64.whl", "polars-runtime-32"),
        ("uvicorn[standard]==0.54.0", "uvicorn"),
        ("Torch==2.11.0", "torch"),
        ("huggingface_hub", "huggingface-hub"),
    ],
)
def test_a_package_has_one_name(told: str, name: str) -> None:
    assert name_of(told) == name


def test_what_the_machine_has_and_has_no_use_for_stays_at_home() -> None:
    resolved = ["# by uv", "torch==2.11.0", "    # via vllm", "hydra-core==1.3.8", "cuda-tile==1.7.0", "trl==1.16.0"]
    assert missing(resolved, ["torch", "Hydra_Core", ""]) == ["trl==1.16.0"]


def test_the_trainer_goes_first_and_no_call_is_too_large() -> None:
    sizes = {
        "trl-1.16.0-py3-none-any.whl": 30,
        "polars-2.1.0-py3-none-any.whl": 20,
        "vllm.part-00": 60,
        "vllm.part-01": 60,
        **{f"p{number}-1.0-py3-none-any.whl": 25 for number in range(5)},
    }
    made = calls(sizes, ["vllm.part-00", "vllm.part-01"], most=60)
    assert sorted(name_of(name) for name in made[0]) == ["polars", "trl"]
    assert made[1:3] == [["vllm.part-00"], ["vllm.part-01"]]
    assert sorted(name for call in made for name in call) == sorted(sizes)
    assert all(sum(sizes[name] for name in call) <= 60 for call in made)
    with pytest.raises(ValueError, match="more than"):
        calls(sizes, ["vllm.part-00", "vllm.part-01"], most=40)


def test_the_wheel_is_left_without_some_kernels_and_its_parts_join_to_it(tmp_path: Path) -> None:
    wheel, rest = tmp_path / "vllm-1.whl", tmp_path / "rest"
    with zipfile.ZipFile(wheel, "w") as made:
        for name in ("vllm/__init__.py", "vllm/vllm-rs", "vllm/third_party/fmha_sm100/a/b.so"):
            made.writestr(name, name)
    stripped(wheel, rest)
    with zipfile.ZipFile(rest) as left:
        assert left.namelist() == ["vllm/__init__.py"]
        assert left.read("vllm/__init__.py") == b"vllm/__init__.py"
    halves(rest, tmp_path)
    joined = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("vllm.part-*")))
    assert joined == rest.read_bytes()


def test_the_libraries_that_travel_are_libraries_to_dill() -> None:
    """It pickles a module of another folder whole; `datasets` asks it for each data set, and ends if that fails."""
    from dill._dill import _is_builtin_module

    instructions = (ROOT / "benchmarks" / "GPU.md").read_text(encoding="utf-8")
    (place,) = set(re.findall(r"--target (\S+)", instructions))
    assert f":{place} " in instructions
    for folder, known in ((place, True), ("/elsewhere/site", False)):
        library = ModuleType("library")
        library.__file__ = f"{folder}/library/__init__.py"
        assert bool(_is_builtin_module(library)) is known
