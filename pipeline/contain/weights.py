"""Stripped adapters: destroyed as soon as they are measured, or kept encrypted; and the record of it.

The record is a journal, `containment.jsonl`: a row before and a row after each act, so that a kill or a power cut
between the two is seen and made good by the next command. Destroyed means overwritten once and removed; what a file
system or a disk keeps of old blocks is beyond a program's reach (SECURITY.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.contain.keeping import encrypt_folder, recipients
from pipeline.errors import UserError
from pipeline.files import file_sha256, force
from pipeline.journal import Journal
from pipeline.records import ADAPTER_FILE, Rung, now
from pipeline.schema.contain import ContainConfig
from pipeline.store import RunFolder

KEPT: Final = "kept"  # encrypted adapters
_CHUNK: Final = 1 << 20


def contain(folder: RunFolder, rungs: Sequence[Rung], config: ContainConfig) -> None:
    """Destroy every stripped adapter and all checkpoints of a run, encrypting the adapters first where asked to.

    Call it when nothing more will be measured. Called again it finishes what a kill cut off, or does nothing.

    Args:
        folder: the run folder, locked.
        rungs: all rungs of the run.
        config: whether to keep, and for whom.

    Raises:
        UserError: weights are to be kept, and there is no key to encrypt them to, or `weights/` is a link; nothing was
            destroyed.
        OSError: a file can't be written or removed; what was done until then stands in the record.
    """
    refuse_link(folder.weights)
    if destroyed(folder) is not None and not folder.weights.exists():
        return
    keys = recipients(config, folder.root) if config.keep else []
    journal = _journal(folder)
    done = {row["rung"] for row in journal.rows() if row["state"] == "destroyed"}
    for rung in rungs:
        if rung.artifact == "adapter" and rung.id not in done:
            _contain_one(folder, rung, keys, journal)
    rest = list(_files(folder.weights))
    size = sum(path.lstat().st_size for path in rest)
    destroy(folder.weights)
    journal.append([{"rung": "", "state": "destroyed", "files": len(rest), "bytes": size, "at": now()}])


def ready(folder: RunFolder, config: ContainConfig) -> None:
    """Make sure, before anything is stripped, that it can be destroyed, and encrypted where it is to be kept.

    Raises:
        UserError: `weights/` is a link or holds one, or there is no key for it.
    """
    for place in (folder.weights, *_files(folder.weights)):
        refuse_link(place)
    if config.keep:
        recipients(config, folder.root)


def refuse_link(place: Path) -> None:
    """Refuse a folder of a run that is a link, e.g. to a scratch disk: what lies behind it may be anybody's.

    Followed, it would have files overwritten that are no run's, where somebody prepared the run folder; removed, it
    would leave what lies behind it.

    Raises:
        UserError: it is one.
    """
    if place.is_symlink():
        raise UserError(
            f"{place} is a link; nothing is destroyed through it, so nothing is put behind it either",
            "put the folder itself in its place; for another disk, put the whole run there with run.root= or run.dir=",
        )


def destroyed(folder: RunFolder) -> str | None:
    """Return when the last of a run's weights was destroyed, None where some may be there."""
    times = [row["at"] for row in _journal(folder).rows() if row["state"] == "destroyed" and row["rung"] == ""]
    return str(times[-1]) if times else None


def begun(folder: RunFolder) -> bool:
    """Say whether weights of this run were destroyed, or were about to be: from then on nothing is trained again."""
    return any(True for _ in _journal(folder).rows())


def containment(folder: RunFolder) -> dict[str, Any]:
    """Return the record for the report: `state` ("destroyed", "kept, encrypted" or "there"), when, and each adapter.

    `adapters` has rung, sha256 as trained, sha256 as found when it was destroyed (None: it was gone already), and
    the sha256 of the encrypted file where one was kept.
    """
    rows = list(_journal(folder).rows())
    at = destroyed(folder)
    kept = {row["rung"]: row["kept_sha256"] for row in rows if row["state"] == "kept"}
    gone = {row["rung"]: row for row in rows if row["state"] == "destroyed" and row["rung"]}
    adapters = [
        {"rung": name, "trained_sha256": row["sha256"], "found_sha256": row["found"], "kept_sha256": kept.get(name)}
        for name, row in sorted(gone.items())
    ]
    there = folder.weights.exists()
    state = "there" if at is None or there else "kept, encrypted" if kept else "destroyed"
    return {"state": state, "at": at, "adapters": adapters, "differing": _differing(adapters)}


def _differing(adapters: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rungs whose adapter was found and was not the one that was trained."""
    return [a["rung"] for a in adapters if a["found_sha256"] not in (None, a["trained_sha256"])]


def _contain_one(folder: RunFolder, rung: Rung, keys: Sequence[Any], journal: Journal) -> None:
    place = _place(folder, rung, folder.rungs.path)
    file = place / ADAPTER_FILE
    found = file_sha256(file) if file.is_file() else None
    row: dict[str, Any] = {"rung": rung.id, "sha256": rung.sha256, "found": found}
    before = [r for r in journal.rows() if r["rung"] == rung.id]
    if any(r["state"] == "destroying" for r in before):
        found = row["found"] = next(r["found"] for r in before if r["state"] == "destroying")
    else:
        if keys and found is not None:
            target = folder.root / KEPT / f"{rung.id}.tar.age"
            encrypt_folder(place, target, keys)
            journal.append([{**row, "state": "kept", "kept_sha256": file_sha256(target), "at": now()}])
        journal.append([{**row, "state": "destroying", "at": now()}])
    force(journal.path)
    destroy(place)
    journal.append([{**row, "state": "destroyed", "at": now()}])


def _place(folder: RunFolder, rung: Rung, told: Path) -> Path:
    """Return where an adapter lies; what does not lie below `weights/` is not ours to destroy.

    Raises:
        UserError: what is told of it in `told` (rungs.jsonl, or the folder of parked.json) names another place.
    """
    place = Path(os.path.normpath(folder.root / rung.path))
    inside = place.parent.resolve().is_relative_to(folder.weights.resolve())
    if not inside or not place.is_relative_to(folder.weights) or place == folder.weights:
        raise UserError(
            f"{told}: rung {rung.id} lies at {rung.path!r}, not below weights/; nothing of it was removed",
            "the file was edited or damaged; remove the weights by hand",
        )
    return place


def destroy_parked(folder: RunFolder, parked: Rung) -> None:
    """Destroy a checkpoint at which a climb was paused; one that a kill destroyed, or half of it, is no fault.

    Raises:
        UserError: it is told to lie elsewhere than below `weights/`.
    """
    destroy(_place(folder, parked, folder.own))


def destroy(folder: Path) -> None:
    """Overwrite and remove every file under a folder, then the folder. A link is removed, never followed."""
    if folder.is_symlink():
        folder.unlink()
        return
    for path in _files(folder):
        if not path.is_symlink():
            _overwrite(path)
        path.unlink()
    for place, _, _ in os.walk(folder, topdown=False):
        Path(place).rmdir()


def _overwrite(path: Path) -> None:
    left = path.stat().st_size
    with path.open("r+b", buffering=0) as file:
        while left > 0:
            left -= file.write(b"\0" * min(left, _CHUNK)) or 0
        os.fsync(file.fileno())


def _files(folder: Path) -> Iterator[Path]:
    """Yield files and links under a folder; a link to a folder is yielded, not entered."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for place, names, files in os.walk(folder):
        links = [name for name in names if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in [*files, *links])


def _journal(folder: RunFolder) -> Journal:
    return Journal(folder.root / "containment.jsonl")
