import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import guard

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the guard reads /proc")

# A child with a child of its own; both write their process ids and sleep.
FAMILY = (
    "import os, subprocess, sys, time\n"
    "code = 'import os, sys, time; open(sys.argv[1], \"w\").write(str(os.getpid())); time.sleep(120)'\n"
    "subprocess.Popen([sys.executable, '-c', code, sys.argv[2]])\n"
    "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
    "time.sleep(120)\n"
)
STUBBORN = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
    "time.sleep(120)\n"
)


def guarded(*command: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, guard.__file__, *command], stdin=subprocess.PIPE, start_new_session=True)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def within(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return true()


def pid_in(file: Path) -> int:
    assert within(30, lambda: file.exists() and file.read_text() != ""), f"{file.name} was never written"
    return int(file.read_text())


def test_sigkill_of_the_parent_ends_child_and_grandchild(tmp_path: Path) -> None:
    child_file, grandchild_file = tmp_path / "child", tmp_path / "grandchild"
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE, start_new_session=True)\n"
        "time.sleep(120)\n"
    )
    family = [sys.executable, "-c", FAMILY, str(child_file), str(grandchild_file)]
    parent = subprocess.Popen([sys.executable, "-c", code, guard.__file__, *family])
    child, grandchild = pid_in(child_file), pid_in(grandchild_file)
    assert alive(child)
    assert alive(grandchild)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert within(8, lambda: not alive(child) and not alive(grandchild))


def test_closing_the_pipe_ends_the_group_with_code_143(tmp_path: Path) -> None:
    process = guarded(sys.executable, "-c", FAMILY, str(tmp_path / "child"), str(tmp_path / "grandchild"))
    pids = pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=8) == 143
    assert not any(map(alive, pids))


@pytest.mark.parametrize("code", [0, 3])
def test_the_childs_exit_code_is_the_guards(code: int) -> None:
    process = guarded(sys.executable, "-c", f"raise SystemExit({code})")
    assert process.wait(timeout=30) == code


def test_what_the_child_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    leaves = FAMILY.replace("time.sleep(120)\n", "").replace(
        "open(sys.argv[1], 'w')", "\nwhile not os.path.exists(sys.argv[2]): time.sleep(0.02)\nopen(sys.argv[1], 'w')"
    )
    process = guarded(sys.executable, "-c", leaves, str(tmp_path / "child"), str(tmp_path / "grandchild"))
    assert process.wait(timeout=30) == 0
    assert not alive(pid_in(tmp_path / "grandchild"))


SOCKET = f"import os; at = os.environ['{guard.SOCKETS}']; os.mknod(at + '/socket'); print(at, flush=True)\n"


def with_socket(code: str, *words: str) -> "tuple[subprocess.Popen[str], Path]":
    """Start a guarded child with a socket; return the guard and the folder of the child's sockets."""
    process = subprocess.Popen(
        [sys.executable, guard.__file__, sys.executable, "-c", SOCKET + code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert folder.name.startswith("hf-")
    return process, folder


def test_the_folder_of_the_childs_sockets_goes_with_it() -> None:
    process, folder = with_socket("")
    assert process.wait(timeout=10) == 0
    assert not folder.exists()


def test_a_child_that_ignores_sigterm_is_killed_and_its_sockets_go(tmp_path: Path) -> None:
    process, folder = with_socket(STUBBORN, str(tmp_path / "child"))
    child = pid_in(tmp_path / "child")
    assert folder.exists()
    assert process.stdin is not None
    began = time.monotonic()
    process.stdin.close()
    assert process.wait(timeout=guard.GRACE_S + 10) == -signal.SIGKILL
    assert time.monotonic() - began >= guard.GRACE_S - 0.5, "SIGTERM comes first, with time to act on it"
    assert within(2, lambda: not alive(child))
    assert not folder.exists()


def test_ctrl_c_at_the_terminal_does_not_end_the_guard_before_the_rest(tmp_path: Path) -> None:
    process = guarded(sys.executable, "-c", STUBBORN.replace("SIGTERM", "SIGINT"), str(tmp_path / "child"))
    child = pid_in(tmp_path / "child")
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    assert alive(child)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=8) == 143
    assert not alive(child)


def test_what_a_guard_that_was_killed_alone_leaves_is_ended_by_its_parent(tmp_path: Path) -> None:
    """A server with stripped adapters would stay up: nobody watches the pipe any more."""
    process = guarded(sys.executable, "-c", FAMILY, str(tmp_path / "child"), str(tmp_path / "grandchild"))
    pids = pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert all(map(alive, pids))
    guard.end(process)
    assert within(2, lambda: not any(map(alive, pids)))
    guard.end(process)  # where all is over, nothing is left to do


def test_its_parent_ends_it_and_all_that_it_started(tmp_path: Path) -> None:
    process = guarded(sys.executable, "-c", FAMILY, str(tmp_path / "child"), str(tmp_path / "grandchild"))
    pids = pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")
    guard.end(process)
    assert process.returncode == 143
    assert not any(map(alive, pids))


def test_the_end_of_a_log_is_told_and_a_log_that_is_gone_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\ntwo\n\xff three\n")
    assert guard.tail(tmp_path / "log", 2) == "    two\n    \ufffd three"
    assert guard.tail(tmp_path / "nowhere", 2) == ""
