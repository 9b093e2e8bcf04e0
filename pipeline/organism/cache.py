"""The organism's cache: one folder per recipe, complete or absent, checked by hash, made by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.files import flock, user_cache
from pipeline.schema import OrganismConfig

FORMAT: Final = 3  # raise it when the code gives another organism for the same recipe
MANIFEST: Final = "manifest.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OrganismFolder:
    """A complete organism: `model` is a Hugging Face folder, `data` holds its questions as JSONL."""

    root: Path

    @property
    def model(self) -> Path:
        """Weights (safetensors), configuration, tokenizer and chat template."""
        return self.root / "model"

    @property
    def data(self) -> Path:
        """The questions: compliance, benign, refusal, over_refusal, capability and the dev ones."""
        return self.root / "data"


def recipe_digest(config: OrganismConfig) -> str:
    """SHA-256 (hex) of the recipe and of the format version; it names the cache folder."""
    recipe = {"format": FORMAT, **asdict(config)}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def cache_root() -> Path:
    """The folder `organism` in the user's cache (`pipeline.files.user_cache`)."""
    return user_cache() / "organism"


def cached(config: OrganismConfig, make: Callable[[Path], dict[str, Any]]) -> OrganismFolder:
    """Return the recipe's folder from the cache, or let `make` fill one.

    Args:
        config: the recipe.
        make: fills an empty folder and returns what the manifest shall record about it.

    The folder is filled beside its place and renamed when complete, under a lock: a process that was killed
    leaves nothing that looks complete, and of two at once the second waits and finds the first one's.
    """
    digest = recipe_digest(config)
    parent = cache_root()
    parent.mkdir(parents=True, exist_ok=True)
    home = parent / digest
    with _locked(parent / f"{digest}.lock"):
        damage = find_damage(home)
        if damage is None:
            return OrganismFolder(home)
        if home.exists():
            logger.warning("the cached organism %s is damaged (%s): making it again", digest[:8], damage)
        for left in parent.glob(f"{digest}.making-*"):  # of a process killed earlier; the lock is ours
            shutil.rmtree(left)
        making = Path(tempfile.mkdtemp(prefix=f"{digest}.making-", dir=parent))
        try:
            record = make(making)
            _write_manifest(making, {"recipe_sha256": digest, "format": FORMAT, "recipe": asdict(config), **record})
            if home.exists():
                shutil.rmtree(home)
            making.rename(home)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
    return OrganismFolder(home)


def find_damage(root: Path) -> str | None:
    """Say what is wrong with a folder against its manifest (every file hashed); None if it is whole."""
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        expected: dict[str, str] = manifest["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError):  # truncated, or not a manifest at all
        return f"{MANIFEST} cannot be read"
    if manifest.get("recipe_sha256") != root.name:
        return f"{MANIFEST} is of another recipe"
    found = _hashes(root)
    wrong = dict.fromkeys(expected.keys() - found.keys(), "is missing")
    wrong |= dict.fromkeys(found.keys() - expected.keys(), "does not belong to it")
    wrong |= {name: "was changed" for name in expected.keys() & found.keys() if found[name] != expected[name]}
    return "; ".join(f"{name} {why}" for name, why in sorted(wrong.items())) or None


def _write_manifest(root: Path, record: dict[str, Any]) -> None:
    text = json.dumps({**record, "files": _hashes(root)}, indent=2)
    (root / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and path != root / MANIFEST)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; the system frees it when the process ends, however it ends."""
    with path.open("w") as handle:
        try:
            flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, "XDG_CACHE_HOME=")
        except BlockingIOError:
            logger.info("another process is making this organism: waiting for it")
            flock(handle, fcntl.LOCK_EX, "XDG_CACHE_HOME=")
        yield
