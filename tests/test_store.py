import errno
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import journal as journals
from pipeline import store
from pipeline.errors import UserError
from pipeline.files import canonical, digest, file_sha256, read_json, require_room, write_atomic, write_json
from pipeline.generate.matrix import journal as replies_of
from pipeline.journal import Journal, SharedJournal
from pipeline.records import Dose, Rung
from pipeline.rungs import ZERO_RUNG, base_rung, read_rungs, row
from pipeline.store import RunFolder

ROWS = [{"n": 1, "text": "é\u2028\n"}, {"n": 2, "nested": {"b": [1, None], "a": True}}]
JSON_ROW = st.dictionaries(st.text('ab\n"\\é\u2028', max_size=3), st.integers() | st.text("x\n\r\u2029", max_size=5))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A real limit of the kernel: a write beyond `size` bytes is cut short, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_rows_come_back_as_they_were_appended_and_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "folder" / "rows.jsonl")
    assert list(journal.rows()) == []
    journal.append(ROWS[:1])
    journal.append([])
    journal.append(iter(ROWS[1:]))
    assert list(journal.rows()) == ROWS
    assert journal.path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("torn", [b'{"n": 3, "te', b'{"n": 3}', b"\xff\xfe", b"x" * 10_000])
def test_torn_last_line_is_passed_over_and_cut_off_by_the_next_append(tmp_path: Path, torn: bytes) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.append(ROWS)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + torn)
    assert list(journal.rows()) == ROWS
    journal.append([{"n": 4}])
    assert journal.path.read_bytes() == whole + b'{"n":4}\n'


def test_whole_rows_are_counted_and_none_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has half a million replies, and `stages=[status]` is asked again and again."""
    journal = Journal(tmp_path / "rows.jsonl")
    assert journal.count() == 0
    journal.append(ROWS)
    with journal.path.open("ab") as file:
        file.write(b'{"torn": 1')
    whole = sum(1 for _ in journal.rows())

    def reads(*_: object) -> None:
        raise AssertionError("reads a row")

    monkeypatch.setattr(json, "loads", reads)
    assert journal.count() == whole == len(ROWS)
    assert SharedJournal(journal.path, tmp_path).count() == whole


def test_file_of_one_torn_line_has_no_rows_and_can_be_appended_to(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.path.write_bytes(b'{"n": ')
    assert list(journal.rows()) == []
    journal.append(ROWS)
    assert list(journal.rows()) == ROWS


def test_broken_line_in_the_middle_is_told_with_file_and_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.path.write_bytes(b'{"n":1}\nnot json\n{"n":3}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: not JSON") as caught:
        list(journal.rows())
    assert "bring it back" in caught.value.remedy
    with pytest.raises(UserError) as caught:
        list(Journal(journal.path, made_again=True).rows())
    assert "remove it and run the same command again" in caught.value.remedy


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(JSON_ROW, max_size=3) | st.integers(0, 200), max_size=8))
def test_no_sequence_of_appends_and_truncations_loses_a_whole_row(
    tmp_path_factory: pytest.TempPathFactory, actions: list[list[dict[str, Any]] | int]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "rows.jsonl")
    expected: list[dict[str, Any]] = []
    for action in actions:
        if isinstance(action, list):
            journal.append(action)
            expected += action
        elif journal.path.exists():  # a kill cuts `action` bytes off the end
            size = max(0, journal.path.stat().st_size - action)
            os.truncate(journal.path, size)
            ends = [len(b"".join(canonical(row) + b"\n" for row in expected[:n])) for n in range(len(expected) + 1)]
            expected = expected[: sum(end <= size for end in ends) - 1]
        assert list(journal.rows()) == expected


def test_write_cut_short_leaves_none_of_the_rows(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.append(ROWS)
    whole = journal.path.read_bytes()
    # 100 bytes fit, 150 are wanted: what did not fit would fit once the file is cut back, and must not follow then.
    with largest_file(len(whole) + 100), pytest.raises(OSError, match="too large") as caught:
        journal.append([{"text": "x" * 30}, {"text": "y" * 80}])
    assert caught.value.errno == errno.EFBIG
    assert journal.path.read_bytes() == whole
    journal.append([{"n": 3}])
    assert list(journal.rows()) == [*ROWS, {"n": 3}]


def test_full_disk_leaves_none_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.append(ROWS)
    whole = journal.path.read_bytes()
    real, calls = os.write, []

    def write(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:7])

    with monkeypatch.context() as patch:
        patch.setattr(journals.os, "write", write)
        with pytest.raises(OSError, match="No space") as caught:
            journal.append([{"n": 3}, {"n": 4}])
    assert caught.value.errno == errno.ENOSPC
    assert len(calls) == 2
    assert journal.path.read_bytes() == whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_atomic_write_that_fails_leaves_the_old_file_and_no_partial(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomic(path, "old")
    (tmp_path / f".file.json.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space") as caught:
        write_atomic(path, b"new" * 10_000)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_atomic_write_replaces_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomic(path, "one é")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert len(list(path.parent.iterdir())) == 1


def test_json_files_refuse_nan_and_are_sorted(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"b": None, "a": [1.5]})
    assert list(read_json(path)) == ["a", "b"]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": [1.5], "b": None}


def test_a_folder_in_the_place_of_json_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is damaged"):
        read_json(tmp_path)


def test_missing_and_damaged_json_are_told_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing") as missing:
        read_json(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"plan\.json is damaged") as damaged:
        read_json(tmp_path / "plan.json")
    assert "stage" in missing.value.remedy
    assert "delete" in damaged.value.remedy


def test_digests_know_the_content_and_not_the_order_of_keys(tmp_path: Path) -> None:
    assert canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_second_process_cannot_take_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.errors import boundary\n"
        "from pipeline.store import RunFolder\n"
        "with boundary():\n    with RunFolder(Path(sys.argv[1])).locked():\n        print('taken')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with RunFolder(tmp_path / "run").locked():
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (second.returncode, second.stdout) == (2, "")
    assert "another holdfast is working in" in second.stderr
    assert "Traceback" not in second.stderr
    third = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (third.returncode, third.stdout) == (0, "taken\n")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lustre mounted without `flock` says ENOSYS, NFS without its lock daemon ENOLCK."""
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        pass

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(store.fcntl, "flock", refuse)
    for held in (folder.locked, folder.undisturbed, RunFolder(folder.root, "a-s0").locked):
        with pytest.raises(UserError, match="this file system gives no locks") as caught, held():
            pass
        assert "mount it with flock" in caught.value.remedy
        assert "run.root=" in caught.value.remedy


def test_another_fault_of_a_lock_is_not_taken_for_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store.fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"), RunFolder(tmp_path).locked():
        pass


def test_a_lock_that_another_holds_is_waited_for_as_long_as_patience_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.store import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n    print('held', flush=True)\n    time.sleep(1.5)\n"
    )
    monkeypatch.setattr(store, "LOCK_POLL_S", 0.05)
    whole, task = RunFolder(tmp_path), RunFolder(tmp_path, "a-s0")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        whole.patience_s = 0.2
        with pytest.raises(UserError, match="another holdfast is working in"), whole.locked():
            pass
        task.patience_s = 30.0
        with task.locked():  # what it shares with other tasks is free again
            assert other.wait(20) == 0


def test_run_folder_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.root: cannot write") as caught, RunFolder(tmp_path / "file").locked():
        pass
    assert "run.root=" in caught.value.remedy


def test_a_folder_of_somebody_elses_files_is_no_run_folder(tmp_path: Path) -> None:
    """A run's `weights/`, `replies/` and `logs/` are destroyed in the end: theirs would go with them."""
    theirs = tmp_path / "weights" / "base" / "model.safetensors"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    told = r"no run folder: it has weights and no plan\.json"
    with pytest.raises(UserError, match=told), RunFolder(tmp_path).locked():
        pass
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "weights/base/model.safetensors"
    ]


def test_a_folder_that_a_kill_left_before_its_plan_was_written_is_taken(tmp_path: Path) -> None:
    for name in (".lock", ".plan.json.77.partial"):
        (tmp_path / name).touch()
    with RunFolder(tmp_path).locked():
        assert not (tmp_path / ".plan.json.77.partial").exists()


def test_what_a_kill_left_half_written_goes_when_the_folder_is_taken(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.plan.touch()
    left = [folder.root / ".verdict.json.77.partial", folder.root / "panel" / ".x.parquet.77.partial"]
    kept = folder.root / "partial.json"
    for path in (*left, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with folder.locked():
        assert not any(path.exists() for path in left)
        assert kept.exists()


def test_read_only_file_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    told = r"run\.root: cannot write .*Read-only file system"
    with pytest.raises(UserError, match=told), RunFolder(tmp_path / "run").locked():
        pass


def test_room_is_looked_for_and_nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_room(tmp_path)
    assert list(tmp_path.iterdir()) == []

    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        require_room(tmp_path)


def test_private_folders_are_their_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir(mode=0o755)
    folder = RunFolder(tmp_path).private("arm", "s0")
    assert folder == tmp_path / "weights" / "arm" / "s0"
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o700


def test_replies_and_logs_are_their_owners_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.plan.touch()
    old = os.umask(0o022)
    try:
        with folder.locked():
            assert not folder.replies.exists()
            assert not folder.logs.exists()
            replies_of(folder, "base").append(ROWS)
            assert mode(folder.replies) == 0o700
        folder.logs.mkdir()
        folder.replies.chmod(0o755)  # both as an earlier Holdfast left them
        with RunFolder(tmp_path, "a/0").locked():
            assert (mode(folder.replies), mode(folder.logs)) == (0o700, 0o700)
        assert mode(tmp_path / "tasks") == 0o755
    finally:
        os.umask(old)


def test_a_private_file_is_its_owners_alone_and_the_next_one_as_usual(tmp_path: Path) -> None:
    path, old = tmp_path / "file", os.umask(0o022)
    try:
        write_atomic(path, "one")
        assert mode(path) == 0o644
        write_atomic(path, "two", private=True)
        assert (mode(path), path.read_text()) == (0o600, "two")
        write_atomic(path, "three")
        assert mode(path) == 0o644
    finally:
        os.umask(old)


def test_rows_are_json_lines_that_any_reader_understands(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.append(ROWS)
    assert [json.loads(line) for line in journal.path.read_text(encoding="utf-8").split("\n")[:-1]] == ROWS


def test_rungs_are_read_as_written_rung_0_first_and_why_a_ladder_ended_on_its_last(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    first, second = (Rung(f"a-0-{n}", "a", 0, n, dose=Dose(n, 16 * n, 100 * n, 1e9 * n, 0.5 * n)) for n in (1, 2))
    priced = replace(second, dose=replace(second.dose, usd=0.1))
    others = [Rung(ZERO_RUNG, "", -1, 0, role="control"), Rung("a-1-1", "a", 1, 1), base_rung("ab")]
    folder.rungs.append([row(rung) for rung in (second, *others, first, priced)])

    class Ledger:
        def ending(self, stage: str, arm: str, seed: int) -> str | None:
            return "budget" if (stage, arm, seed) in (("train", "a", 0), ("train", "b", 0)) else None

    found = read_rungs(folder, Ledger(), [("a", 0), ("a", 1), ("b", 0)])  # type: ignore[arg-type]
    assert [rung.id for rung in found] == ["base", ZERO_RUNG, "a-0-1", "a-0-2", "a-1-1"]
    assert [rung.reason for rung in found if rung.last] == ["budget"]
    assert (found[0].seed, found[0].base_sha256) == (-1, "ab")
    assert (found[2].dose.flops, math.isnan(found[2].dose.usd)) == (1e9, True)
    assert found[3] == replace(priced, last=True, reason="budget")  # the later row counts
    folder.rungs.append([row(priced) | {"void": True}])
    found = read_rungs(folder, Ledger(), [("a", 0)])  # type: ignore[arg-type]
    assert [(rung.id, rung.last) for rung in found if rung.role == "rung"] == [("a-0-1", True)]


@pytest.mark.parametrize("text", ["[1]", "3", "null", '"plan"'])
def test_a_file_that_holds_something_else_than_an_object_is_damaged(tmp_path: Path, text: str):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UserError, match=r"plan\.json is damaged: it holds no JSON object"):
        read_json(tmp_path / "plan.json")
    (tmp_path / "jobs.json").write_text("{}")
    with pytest.raises(UserError, match=r"jobs\.json is damaged: it holds no JSON array"):
        read_json(tmp_path / "jobs.json", list)
