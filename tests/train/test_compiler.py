"""What training on a GPU compiles with is looked for before it is needed; no GPU and no compiler is needed here."""

from __future__ import annotations

import io
import sysconfig
from contextlib import nullcontext
from pathlib import Path

import pytest
from finished_run import words

from pipeline.errors import UserError
from pipeline.train import stage as train
from pipeline.train.compiler import require_compiler


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no compiler on its PATH (`bin`) and no headers (`include`)."""
    for name in ("bin", "include"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("CC", "CPATH", "C_INCLUDE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme: str(tmp_path / name))
    return tmp_path


def install(machine: Path, compiler: str) -> None:
    program = machine / "bin" / compiler
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("compiler", "cc", "told"),
    [
        (None, None, "gcc and clang are not on the PATH"),
        ("gcc", None, None),
        ("clang", None, None),
        ("gcc", "", r"\$CC names '', which is no program"),
        ("gcc", "icx", r"\$CC names 'icx'"),
        ("icx", "icx", None),
    ],
)
def test_a_compiler_is_looked_for_as_triton_does(
    machine: Path, compiler: str | None, cc: str | None, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "include" / "Python.h").touch()
    if compiler:
        install(machine, compiler)
    if cc is not None:
        monkeypatch.setenv("CC", cc)
    with pytest.raises(UserError, match=told) if told else nullcontext():
        require_compiler("cuda")


def test_headers_are_looked_for_where_triton_and_the_compiler_do(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(machine, "gcc")
    with pytest.raises(UserError, match=r"no Python\.h in .*include") as caught:
        require_compiler("cuda")
    assert "python3-dev" in caught.value.remedy
    (machine / "elsewhere").mkdir()
    (machine / "elsewhere" / "Python.h").touch()
    monkeypatch.setenv("CPATH", f":{machine / 'elsewhere'}")
    require_compiler("cuda")


def test_a_cpu_needs_neither(machine: Path) -> None:
    require_compiler("cpu")


def test_it_is_told_before_anything_is_loaded_or_spent(
    machine: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from pipeline.config.compose import load
    from pipeline.track.tracker import NullTracker
    from pipeline.workspace import Workspace

    more = ["subject.dtype=bfloat16", "review.logit_tolerance=0.25", "stages=[train]"]
    work = Workspace(load([*words(machine, tiny_folder), *more]), Console(file=io.StringIO()))
    monkeypatch.setitem(work.__dict__, "device", "cuda")
    with pytest.raises(UserError, match="no C compiler"):
        train.train(work, NullTracker())
    assert not work.folder.ledger.exists()
