"""The installed wheel works as the checkout does: built, installed elsewhere, it composes the demo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv, which `make env` installs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and install it, without its dependencies, into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    assert UV
    build = subprocess.run(
        [UV, "build", "--quiet", "--wheel", "-o", folder, ROOT], capture_output=True, text=True, check=False
    )
    assert build.returncode == 0, build.stderr
    (wheel,) = folder.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"pipeline/conf/config.yaml", "pipeline/report/template.html.j2", "pipeline/report/style.css"} <= names
    assert {"pipeline/slurm/common.sh", "pipeline/slurm/train.sbatch"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    target = folder / "site"
    subprocess.run([UV, "pip", "install", "--quiet", "--no-deps", "--target", target, wheel], check=True)
    return target


def test_it_composes_the_demo_far_from_the_checkout(site: Path, tmp_path: Path):
    found = run(site, tmp_path, "-c", "import pipeline; print(pipeline.__file__)")
    assert found.startswith(str(site)), "the wheel's own modules must be those that run"
    composed = run(site, tmp_path, "-m", "pipeline", "--cfg", "job")
    assert composed.startswith("name: demo\n")
    assert "compliance:" in composed
    assert not list(tmp_path.iterdir()), "composing writes nothing"


def run(site: Path, cwd: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
