"""`python -m benchmarks.gpu_parts.carry --have FILE --out DIR`: the wheels that a lent GPU machine lacks, call by call.

The machine has no network and takes 64 MiB a call (GPU.md). Of what Holdfast's `gpu` extra resolves to, what the
machine has (`--have`: a name a line) and what a dense model on Hopper has no use for is left out; vLLM's wheel loses
its kernels for other models and devices, and is cut in two. Made at home, since it takes no device time.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
MOST: Final = 59 << 20  # bytes of wheels a call; the tree takes the rest of 64 MiB
PYTHON: Final = "3.12"
PLATFORMS: Final = (
    *(f"manylinux_2_{n}_x86_64" for n in (39, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
)
# Imported by backends that Hopper does not choose by itself, or services that nobody asks for. A start without them was
# rehearsed up to the engine's configuration (GPU.md).
LEFT_OUT: Final = (
    *("flashinfer-python", "nvidia-cutlass-dsl*", "nvidia-cuda-*", "nvidia-nvvm", "cuda-tile", "tilelang", "z3-solver"),
    *("tokenspeed-*", "humming-kernels", "quack-kernels", "sentry-sdk", "pynvvideocodec", "agent-detector"),
    *("torchcodec", "fastapi-cloud-cli", "wandb", "wandb-workspaces", "nvidia-cudnn-frontend"),
)
SOURCE_ALONE: Final = ("antlr4-python3-runtime", "langdetect")  # no wheel of theirs is published
# What the trainer needs, so that part (a) runs after the first call.
FIRST: Final = (
    *("hydra-core", "omegaconf", "antlr4-python3-runtime", "datasets", "dill", "multiprocess", "trl", "pydantic"),
    *("pydantic-core", "annotated-types", "typing-inspection", "polars", "polars-runtime-32", "liger-kernel"),
)
VLLM_DROPPED: Final = (
    "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",  # Hopper takes FlashAttention 3
    "vllm/_moe_C_stable_libtorch.abi3.so",
    "vllm/vllm-rs",
    "vllm/third_party/fmha_sm100/*",
)


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement or of a wheel's file (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>\[; ]|-\d", requirement, maxsplit=1)[0]).lower()


def missing(resolved: Iterable[str], have: Iterable[str]) -> list[str]:
    """Return the requirements (`name==version`) that the machine lacks and that are of use there."""
    there = {name_of(line) for line in have if line.strip()}
    names = [line.split()[0] for line in resolved if line[:1].isalnum()]
    wanted = [line for line in names if name_of(line) not in there]
    return [line for line in wanted if not any(fnmatch.fnmatch(name_of(line), each) for each in LEFT_OUT)]


def stripped(wheel: Path, target: Path, dropped: Sequence[str] = VLLM_DROPPED) -> None:
    """Write a wheel without the files that match a pattern; pip installs the rest."""
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as rest:
        for entry in whole.infolist():
            if not any(fnmatch.fnmatch(entry.filename, pattern) for pattern in dropped):
                rest.writestr(entry, whole.read(entry))


def calls(sizes: Mapping[str, int], parts: Sequence[str], most: int = MOST) -> list[list[str]]:
    """Return which files go with which call: the trainer's, each part of vLLM, then the rest; none above `most` bytes.

    Raises:
        ValueError: a file, or the trainer's together, is larger than a call.
    """
    first = [name for name in sizes if name_of(name) in FIRST]
    rest = [name for name in sizes if name not in first and name not in parts]
    made = [first, *([part] for part in parts), []]
    for name in sorted(rest, key=lambda each: -sizes[each]):  # the calls of vLLM's parts have room for some
        room = (call for call in made[1:] if sum(sizes[each] for each in call) + sizes[name] <= most)
        call = next(room, None)
        if call is None:
            made.append(call := [])
        call.append(name)
    for call in made:
        if sum(sizes[name] for name in call) > most:
            raise ValueError(f"{', '.join(call)}: more than {most >> 20} MiB in one call")
    return made


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wanted = missing(resolved(options.vllm, work), options.have.read_text(encoding="utf-8").splitlines())
        download([*wanted, "liger-kernel"], work)
        (vllm,) = work.glob("vllm-*.whl")
        stripped(vllm, work / "stripped")
        halves(work / "stripped", work)
        vllm.unlink()
        files = {path.name: path for path in sorted([*work.glob("*.whl"), *work.glob("vllm.part-*")])}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        parts = [name for name in files if name.startswith("vllm.part-")]
        for number, call in enumerate(calls(sizes, parts), start=1):
            place = options.out / f"call-{number}"
            place.mkdir()
            for name in call:
                shutil.move(files[name], place / name)
            print(f"call {number}: {len(call)} files, {sum(sizes[name] for name in call) / 1e6:.1f} MB")
        print(f"the parts join to {vllm.name}")


def resolved(vllm: str, work: Path) -> list[str]:
    """Return what the `gpu` extra resolves to with one version of vLLM, on the machine's Python and platform."""
    project = work / "pyproject.toml"
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project.write_text(re.sub(r'"vllm>=[^"]*"', f'"vllm=={vllm}"', text), encoding="utf-8")
    platform = ("--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_35")
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "compile", "-q", *platform, "--extra", "gpu"]
    return subprocess.run([*uv, project.name], cwd=work, capture_output=True, text=True, check=True).stdout.splitlines()


def download(wanted: Sequence[str], work: Path) -> None:
    """Fetch the wheels for the machine, and build those of which only the source is published."""
    pip = [sys.executable, "-m", "pip"]
    built = [line for line in wanted if name_of(line) in SOURCE_ALONE]
    platform = [word for each in PLATFORMS for word in ("--platform", each)]
    only = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platform]
    ready = [line for line in wanted if line not in built]
    subprocess.run([*pip, "download", "-q", "--no-deps", *only, "-d", str(work), *ready], check=True)
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(work), *built], check=True)


def halves(wheel: Path, work: Path) -> None:
    """Cut a wheel into as many parts as a call can carry, `vllm.part-00` and so on."""
    content = wheel.read_bytes()
    count = -(-len(content) // MOST)
    size = -(-len(content) // count)
    for number in range(count):
        (work / f"vllm.part-{number:02d}").write_bytes(content[number * size : (number + 1) * size])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_parts.carry", description=__doc__)
    parser.add_argument("--have", type=Path, required=True, help="the machine's own packages, a name a line")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, for call-1, call-2, …")
    parser.add_argument(
        "--vllm", default="0.26.0", help="the newest that pins the machine's torch (default: %(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
