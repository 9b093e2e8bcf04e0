"""Stripped weights: destroyed or encrypted, recorded, wherever a kill comes; never anything else of the disk."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contain import contain, containment, destroyed, ready, weights
from pipeline.contain.keeping import encrypt_folder
from pipeline.errors import UserError
from pipeline.files import file_sha256
from pipeline.journal import Journal
from pipeline.records import ADAPTER_FILE, Rung
from pipeline.schema.contain import ContainConfig
from pipeline.store import RunFolder

DESTROY = ContainConfig()
NAMES = ("arm-s0-00001", "arm-s0-00002")


def stripped(root: Path) -> tuple[RunFolder, list[Rung]]:
    """Return a run folder with two adapters and a checkpoint, and its rungs."""
    folder = RunFolder(root)
    rungs = [Rung("base", "", -1, 0, role="base", artifact="none")]
    for number, name in enumerate(NAMES, start=1):
        place = folder.private(name)
        (place / ADAPTER_FILE).write_bytes(os.urandom(3000) + name.encode())
        (place / "adapter_config.json").write_text("{}")
        sha = file_sha256(place / ADAPTER_FILE)
        rungs.append(Rung(name, "arm", 0, number, path=f"weights/{name}", sha256=sha))
    (folder.private("checkpoints", "arm-s0") / "optimizer.pt").write_bytes(b"state")
    return folder, rungs


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunFolder, list[Rung]]:
    return stripped(tmp_path / "run")


def test_nothing_is_left_and_the_record_names_every_adapter_by_its_digest(run: tuple[RunFolder, list[Rung]]) -> None:
    folder, rungs = run
    contain(folder, rungs, DESTROY)
    assert not folder.weights.exists()
    record = containment(folder)
    assert (record["state"], record["differing"]) == ("destroyed", [])
    found = {a["rung"]: (a["trained_sha256"], a["found_sha256"], a["kept_sha256"]) for a in record["adapters"]}
    assert found == {rung.id: (rung.sha256, rung.sha256, None) for rung in rungs[1:]}
    assert destroyed(folder) == record["at"]


def test_before_that_the_record_says_that_they_are_there(run: tuple[RunFolder, list[Rung]]) -> None:
    assert containment(run[0])["state"] == "there"
    assert destroyed(run[0]) is None


def test_the_bytes_are_overwritten_before_the_file_goes(run: tuple[RunFolder, list[Rung]], tmp_path: Path) -> None:
    folder, rungs = run
    second_name = tmp_path / "hard link"
    os.link(folder.root / rungs[1].path / ADAPTER_FILE, second_name)
    contain(folder, rungs, DESTROY)
    assert set(second_name.read_bytes()) == {0}


def test_an_adapter_that_is_not_the_trained_one_is_named(run: tuple[RunFolder, list[Rung]]) -> None:
    folder, rungs = run
    (folder.root / rungs[1].path / ADAPTER_FILE).write_bytes(b"another")
    contain(folder, rungs, DESTROY)
    assert containment(folder)["differing"] == [NAMES[0]]


@settings(max_examples=40, deadline=None)
@given(acts=st.integers(0, 12), keep=st.booleans())
def test_a_kill_between_any_two_acts_is_made_good_by_the_next_command(
    acts: int, keep: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("killed")
    folder, rungs = stripped(root / "run")
    key = pyrage.x25519.Identity.generate()
    (root / "keys").write_text(str(key.to_public()))
    config = ContainConfig(keep=keep, recipients=str(root / "keys") if keep else None)
    left = acts

    class Killed(BaseException):
        pass

    def dying(act):
        def wrapped(*args, **kwargs):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return act(*args, **kwargs)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "destroy", dying(weights.destroy))
        patch.setattr(Journal, "append", dying(Journal.append))
        patch.setattr(weights, "_overwrite", dying(weights._overwrite))
        with contextlib.suppress(Killed):
            contain(folder, rungs, config)
    contain(folder, rungs, config)
    record = containment(folder)
    assert not folder.weights.exists()
    assert [a["rung"] for a in record["adapters"]] == list(NAMES)
    assert all(a["found_sha256"] == a["trained_sha256"] for a in record["adapters"])
    assert record["state"] == ("kept, encrypted" if keep else "destroyed")
    if keep:
        assert {name: opened(folder, name, key) for name in NAMES} == {r.id: r.sha256 for r in rungs[1:]}


def opened(folder: RunFolder, name: str, key: pyrage.x25519.Identity) -> str:
    """Return the sha256 of a kept adapter."""
    import hashlib

    plain = pyrage.decrypt((folder.root / weights.KEPT / f"{name}.tar.age").read_bytes(), [key])
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        member = tar.extractfile(ADAPTER_FILE)
        assert member is not None
        return hashlib.sha256(member.read()).hexdigest()


@pytest.mark.parametrize("path", ["", ".", "weights", "../outside", "weights/../../outside", "replies"])
def test_nothing_outside_the_weights_is_ever_removed(
    path: str, run: tuple[RunFolder, list[Rung]], tmp_path: Path
) -> None:
    folder, rungs = run
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ADAPTER_FILE).write_bytes(b"mine")
    folder.replies.mkdir()
    (folder.replies / "a.jsonl").write_text("mine")
    with pytest.raises(UserError, match="not below weights/"):
        contain(folder, [replace(rungs[1], path=path)], DESTROY)
    assert (outside / ADAPTER_FILE).read_bytes() == b"mine"
    assert (folder.replies / "a.jsonl").read_text() == "mine"


def test_links_are_removed_and_never_followed(run: tuple[RunFolder, list[Rung]], tmp_path: Path) -> None:
    folder, rungs = run
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"mine")
    (folder.weights / "link").symlink_to(outside)
    (folder.root / rungs[1].path / "link").symlink_to(outside / "precious")
    contain(folder, rungs, DESTROY)
    assert not folder.weights.exists()
    assert (outside / "precious").read_bytes() == b"mine"


def test_an_adapter_behind_a_linked_folder_is_refused(run: tuple[RunFolder, list[Rung]], tmp_path: Path) -> None:
    folder, rungs = run
    outside = tmp_path / "outside" / "a"
    outside.mkdir(parents=True)
    (outside / ADAPTER_FILE).write_bytes(b"mine")
    (folder.weights / "link").symlink_to(outside.parent)
    with pytest.raises(UserError, match="not below weights/"):
        contain(folder, [replace(rungs[1], path="weights/link/a")], DESTROY)
    assert (outside / ADAPTER_FILE).read_bytes() == b"mine"


def test_weights_behind_a_link_are_refused_before_anything_is_stripped(tmp_path: Path) -> None:
    """A scratch disk: its checkpoints would outlive the link."""
    folder, scratch = RunFolder(tmp_path / "run"), tmp_path / "scratch"
    scratch.mkdir()
    folder.root.mkdir()
    folder.weights.symlink_to(scratch)
    with pytest.raises(UserError, match="weights is a link") as error:
        ready(folder, DESTROY)
    assert "run.root=" in error.value.remedy
    folder.weights.unlink()
    folder.private()
    (folder.weights / "arm").symlink_to(scratch)
    with pytest.raises(UserError, match="weights/arm is a link"):
        ready(folder, DESTROY)


def test_what_lies_behind_linked_weights_is_neither_overwritten_nor_left_unsaid(
    run: tuple[RunFolder, list[Rung]], tmp_path: Path
) -> None:
    """Who prepared a run folder could have any file overwritten by whoever purges it."""
    folder, rungs = run
    behind = tmp_path / "scratch"
    folder.weights.rename(behind)
    folder.weights.symlink_to(behind)
    before = {path: path.read_bytes() for path in behind.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="weights is a link"):
        contain(folder, rungs, DESTROY)
    assert {path: path.read_bytes() for path in behind.rglob("*") if path.is_file()} == before
    assert not (folder.root / "containment.jsonl").exists()
    folder.weights.unlink()
    behind.rename(folder.weights)  # as the remedy says
    contain(folder, rungs, DESTROY)
    assert containment(folder)["state"] == "destroyed"


def test_the_record_is_on_the_disk_before_what_it_tells_of_is_destroyed(
    run: tuple[RunFolder, list[Rung]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut would leave overwritten adapters of which nothing says that they were to be."""
    folder, rungs = run
    record, safe = folder.root / "containment.jsonl", dict[Path, int]()
    key = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("HOLDFAST_AGE_RECIPIENTS", str(key.to_public()))
    sync, overwrite, told = os.fsync, weights._overwrite, list[str]()

    def fsync(file: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{file}"))
        safe[place] = os.fstat(file).st_size
        sync(file)

    def checked(path: Path) -> None:
        rung = path.parent.name
        if rung in NAMES:
            assert safe[record] == record.stat().st_size, "the row before this act"
            assert f'"rung":"{rung}"' in record.read_text()
            assert folder.root in safe, "the record's name"
            kept = folder.root / weights.KEPT / f"{rung}.tar.age"
            assert safe[kept] == kept.stat().st_size
            assert kept.parent in safe
            told.append(rung)
        overwrite(path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(weights, "_overwrite", checked)
    contain(folder, rungs, ContainConfig(keep=True))
    assert set(told) == set(NAMES)


def test_what_is_kept_is_readable_by_its_owner_alone_and_opened_by_the_key_alone(
    run: tuple[RunFolder, list[Rung]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rungs = run
    key, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    monkeypatch.setenv("HOLDFAST_AGE_RECIPIENTS", f"# reviewer\n{key.to_public()}\n")
    contain(folder, rungs, ContainConfig(keep=True))
    assert not folder.weights.exists()
    for rung in rungs[1:]:
        file = folder.root / weights.KEPT / f"{rung.id}.tar.age"
        assert file.stat().st_mode & 0o077 == 0
        assert rung.id.encode() not in file.read_bytes(), "no plain text"
        assert opened(folder, rung.id, key) == rung.sha256
    with pytest.raises(pyrage.DecryptError):
        opened(folder, NAMES[0], other)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no key to encrypt"),
        ("age1nonsense", "key 1 is not an age public key"),
        ("AGE-SECRET-KEY-1QQQ", "holds a secret key"),
        ("# nothing\n", "no key to encrypt"),
    ],
)
def test_without_a_key_nothing_is_stripped_at_all(
    content: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOLDFAST_AGE_RECIPIENTS", raising=False)
    config = ContainConfig(keep=True)
    if content is not None:
        (tmp_path / "keys").write_text(content)
        config.recipients = str(tmp_path / "keys")
    with pytest.raises(UserError, match=said):
        ready(RunFolder(tmp_path / "run"), config)


def test_keys_in_the_run_folder_are_refused(run: tuple[RunFolder, list[Rung]]) -> None:
    folder, _ = run
    (folder.root / "keys").write_text(str(pyrage.x25519.Identity.generate().to_public()))
    with pytest.raises(UserError, match="lies in the run folder"):
        ready(folder, ContainConfig(keep=True, recipients=str(folder.root / "keys")))


def test_a_failed_encryption_leaves_no_file_and_destroys_nothing(
    run: tuple[RunFolder, list[Rung]], tmp_path: Path
) -> None:
    folder, rungs = run
    key = pyrage.x25519.Identity.generate().to_public()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((NotADirectoryError, FileExistsError)):
        encrypt_folder(folder.root / rungs[1].path, tmp_path / "file" / "x.age", [key])
    assert (folder.root / rungs[1].path / ADAPTER_FILE).exists()
