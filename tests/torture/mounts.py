"""Places that go wrong: a small file system that fills up, a folder that turns read-only."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture.case import Case


def can_mount() -> bool:
    """Say whether this process may mount (root, and not in a container that forbids it)."""
    place = Path(f"/tmp/holdfast-mount-{os.getpid()}")
    place.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", str(place)], check=True)
        return done.returncode == 0
    except FileNotFoundError:
        return False
    finally:
        place.rmdir()


@contextlib.contextmanager
def tmpfs(case: Case, room: int) -> Iterator[Callable[[], None]]:
    """Move the case's runs onto a tmpfs with `room` bytes left; what is handed out gives it 256 MiB."""
    place = case.run.parent
    place.mkdir(parents=True, exist_ok=True)
    held = case.folder / "held"
    shutil.move(place, held)
    place.mkdir()
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in held.rglob("*") if path.is_file())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={used + room + 65536}", "tmpfs", str(place)], check=True)
    try:
        shutil.copytree(held, place, dirs_exist_ok=True)
        shutil.rmtree(held)
        yield lambda: subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True) and None
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextlib.contextmanager
def readonly_mount(place: Path) -> Iterator[None]:
    """Make a folder read-only, for root too where a mount can be had."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
            yield
        finally:
            subprocess.run(["umount", str(place)], check=True)
        return
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o700)
