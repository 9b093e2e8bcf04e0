"""What a result hangs on beside its plan: versions, the source, the machine. Neither host name nor path nor user."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from pipeline.files import file_sha256

ROOT: Final = Path(__file__).parents[2]  # the checkout, or the folder that the packages are installed in
# Packages that take part in making a result, and W&B, which does not.
PACKAGES: Final = (
    *("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "safetensors"),
    *("numpy", "scipy", "statsmodels", "polars", "datasketch", "langdetect", "nltk", "optuna", "inspect-ai", "wandb"),
)
# Pages, tables for people, and trackers: they show results and make none.
SHOWING: Final = ("compare", "publish", "report", "reproduce")
# Instructions by which the libraries choose their kernels: x86's, then ARM's.
KERNEL_FLAGS: Final = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "bf16", "i8mm", "sve"),
)
# Variables of the environment that choose threads or kernels; no other is read, since others hold keys and paths.
VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_ATTENTION_BACKEND")


def environment(device: str | None, subject_sha256: str, *, touched: bool = True) -> dict[str, Any]:
    """Return the environment of this process, JSON-ready; what cannot be found out is None.

    Args:
        device: cpu or cuda; None where only another process can tell.
        subject_sha256: digest of the opened subject's files: the organism is made on the spot, so it may differ
            between machines.
        touched: whether this process works on the device; if not, what this machine has is not told.
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "device": device,
        "subject_sha256": subject_sha256,
        "holdfast": installed("holdfast"),
        "revision": _git("rev-parse", "HEAD"),
        "dirty": _dirty(),
        "source_sha256": source_sha256(),
        "vllm": installed("vllm") or installed("vllm-cpu"),
        "vllm_build": next((name for name in ("vllm", "vllm-cpu") if installed(name)), None),
        **{name: installed(name) for name in PACKAGES},
        "machine": _machine() | (_cuda() if device == "cuda" and touched else {}),
    }


@functools.cache
def installed(package: str) -> str | None:
    """Return the version of an installed package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def source_sha256(root: Path = ROOT) -> str:
    """Return the SHA-256 (hex) of the files that measure: `evals/` whole, `pipeline/` without what only shows.

    It tells whether two checkouts measure alike where their revisions do not: a commit may change a page alone, a
    changed file may not be committed, an installed package has no revision.
    """
    lines = "".join(f"{path.relative_to(root).as_posix()} {file_sha256(path)}\n" for path in _measuring(root))
    return hashlib.sha256(lines.encode()).hexdigest()


def _measuring(root: Path) -> Iterator[Path]:
    yield from sorted(p for p in (root / "evals").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    for path in sorted((root / "pipeline").rglob("*.py")):
        first = path.relative_to(root / "pipeline").parts[0]
        if first not in SHOWING and not first.startswith("track"):
            yield path


def _machine() -> dict[str, Any]:
    cpu, flags = _cpu()
    libc = " ".join(platform.libc_ver()).strip()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "cpu": cpu,
        "cpu_flags": flags,
        "cpus_usable": usable,
        "os": _os(),
        "libc": libc or None,
        **{name.lower(): os.environ.get(name) for name in VARIABLES},
    }


def _cpu(info: Path = Path("/proc/cpuinfo")) -> tuple[str | None, list[str]]:
    """Return the CPU's model and those of its flags that choose kernels; off Linux what `platform` knows, and none."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None, []
    pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    first = dict(reversed(pairs))  # the first CPU's
    flags = set((first.get("flags") or first.get("Features") or "").split())
    return first.get("model name") or platform.processor() or None, [flag for flag in KERNEL_FLAGS if flag in flags]


def _os() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return f"{platform.system()} {platform.release()}"


def _cuda() -> dict[str, Any]:
    """Return name and CUDA's version of the device; {} where there is none (a dry reproduction)."""
    if (installed("torch") or "").endswith("+cpu"):
        return {}
    import torch

    if not torch.cuda.is_available():
        return {}
    return {"device_name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


def _dirty() -> bool | None:
    """Say whether the checkout had changes that were not committed; None where there is no checkout."""
    said = _git("status", "--porcelain", "--untracked-files=no")
    return None if said is None else bool(said)


def _git(*words: str) -> str | None:
    """Return what git says of the checkout that Holdfast runs from, None where there is none or git is not there."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
