"""Is there what Triton compiles with? Told before training: TRL's loss runs Triton's kernels on a GPU."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from pipeline.errors import UserError


def require_compiler(device: str) -> None:
    """Make sure that a GPU's training will not end at its first step since Triton can't compile its launcher.

    Looks where triton/runtime/build.py does: the compiler that $CC names, else gcc or clang; the headers of this Python
    where its build put them, or where the compiler is told to look.

    Args:
        device: cpu, which needs neither, or cuda.

    Raises:
        UserError: there is no C compiler, or no Python.h.
    """
    if not device.startswith("cuda"):
        return
    named = os.environ.get("CC")
    if not (shutil.which("gcc") or shutil.which("clang") if named is None else shutil.which(named)):
        which = "gcc and clang are not on the PATH" if named is None else f"$CC names {named!r}, which is no program"
        raise UserError(
            f"serve.device={device}: training compiles its kernels (Triton), and there is no C compiler: {which}",
            "install gcc, or name a compiler in the environment variable CC",
        )
    places = _headers()
    if not any((place / "Python.h").is_file() for place in places):
        raise UserError(
            f"serve.device={device}: training compiles its kernels (Triton), and Python's headers are not installed: "
            f"no Python.h in {places[0]}",
            "install them, e.g. the package python3-dev of this Python's version, or use a Python that has them",
        )


def _headers() -> list[Path]:
    scheme = sysconfig.get_default_scheme()
    scheme = "posix_prefix" if scheme == "posix_local" else scheme  # Debian's, as Triton takes it
    told = [os.environ.get(name, "") for name in ("CPATH", "C_INCLUDE_PATH")]
    return [Path(place) for place in (sysconfig.get_path("include", scheme), *":".join(told).split(":")) if place]
