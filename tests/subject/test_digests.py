"""The digest of a large file is kept until the file changes; what stands in the cache is never trusted blindly."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.files import digest, file_sha256
from pipeline.subject import digests
from pipeline.subject.digests import folder_sha256, kept_sha256

Read = list[Path]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """The files that were really read, with a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen: Read = []

    def noted(path: Path) -> str:
        seen.append(path)
        return file_sha256(path)

    monkeypatch.setattr(digests, "file_sha256", noted)
    monkeypatch.setattr(digests, "SETTLED_S", -1.0)  # files of a test are new
    return seen


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "holdfast" / "digests").glob("*"))


def test_a_large_file_is_read_once(tmp_path: Path, read: Read) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 100)
    wanted = sha256(b"w" * 100).hexdigest()
    assert [kept_sha256(file, large=100) for _ in range(3)] == [wanted] * 3
    link = tmp_path / "link"
    link.symlink_to(file)
    assert kept_sha256(link, large=100) == wanted, "as the Hub's cache has it"
    assert len(read) == 1


def test_a_file_that_was_just_written_is_not_kept(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SETTLED_S", 60.0)
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 100)
    assert [kept_sha256(file, large=100) for _ in range(2)] == [sha256(b"w" * 100).hexdigest()] * 2
    assert len(read) == 2
    assert not kept(tmp_path)


def test_a_small_file_is_read_each_time_and_leaves_nothing(tmp_path: Path, read: Read) -> None:
    file = tmp_path / "config"
    file.write_bytes(b"w" * 99)
    assert kept_sha256(file, large=100) == kept_sha256(file, large=100)
    assert len(read) == 2
    assert not kept(tmp_path)


def rewrite(file: Path) -> None:
    """Other bytes in place, with the size and the times as they were."""
    seen = file.stat()
    with file.open("r+b") as there:
        there.write(b"x" * 100)
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"x" * 100)
    other.replace(file)


@pytest.mark.parametrize("change", [rewrite, replace])
def test_a_changed_file_is_read_again(change: Callable[[Path], None], tmp_path: Path, read: Read) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 100)
    before = kept_sha256(file, large=100)
    change(file)
    assert kept_sha256(file, large=100) == sha256(b"x" * 100).hexdigest() != before


@pytest.mark.parametrize("damage", [b"", b"0123", b"\xff\xfe" * 32, b"z" * 64])
def test_a_damaged_cache_is_passed_over(damage: bytes, tmp_path: Path, read: Read) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 100)
    wanted = kept_sha256(file, large=100)
    (place,) = kept(tmp_path)
    place.write_bytes(damage)
    assert kept_sha256(file, large=100) == wanted
    assert kept_sha256(file, large=100) == wanted
    assert len(read) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, read: Read) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 100)
    assert kept_sha256(file, large=100) == kept_sha256(file, large=100)
    assert len(read) == 2


def test_a_file_that_is_written_meanwhile_is_not_kept(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 100)

    def slowly(path: Path) -> str:
        found = file_sha256(path)
        with path.open("ab") as there:
            there.write(b"more")
        return found

    monkeypatch.setattr(digests, "file_sha256", slowly)
    kept_sha256(file, large=100)
    assert not kept(tmp_path)


def test_a_folders_digest_is_that_of_its_files(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "notes.md"):
        (tmp_path / name).write_text(name)
    wanted = {name: sha256(name.encode()).hexdigest() for name in ("model.safetensors", "config.json")}
    assert folder_sha256(tmp_path) == digest(wanted)
