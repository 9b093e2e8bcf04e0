"""A process that ends at once ends as any other: codes, output, threads and what was registered to run at exit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import interpreter

HEAD = """
import atexit, gc, sys, threading, time
class Last:
    def __del__(self): print("taken apart")
keep = Last()
keep.itself = keep
atexit.register(print, "at exit")
"""


def ran(tmp_path: Path, script: str, *words: str) -> "subprocess.CompletedProcess[str]":
    path = tmp_path / "script.py"
    path.write_text(HEAD + script)
    return subprocess.run(
        interpreter.command(str(path), *words), cwd=tmp_path, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("end", "code"), [("", 0), ("sys.exit()", 0), ("sys.exit(2)", 2), ("sys.exit(True)", 1), ("sys.exit(256 + 3)", 3)]
)
def test_it_ends_with_its_code_after_all_that_runs_at_exit_and_takes_nothing_apart(
    tmp_path: Path, end: str, code: int
) -> None:
    done = ran(tmp_path, "print('said', end=' ')\n" + end)
    assert (done.returncode, done.stdout, done.stderr) == (code, "said at exit\n", "")


def test_a_fault_that_nobody_caught_and_a_code_that_is_a_sentence_end_it_as_ever(tmp_path: Path) -> None:
    fault = ran(tmp_path, "raise KeyError('here')")
    assert (fault.returncode, fault.stdout) == (1, "at exit\ntaken apart\n")
    assert fault.stderr.endswith("KeyError: 'here'\n")
    said = ran(tmp_path, "sys.exit('a sentence')")
    assert (said.returncode, said.stderr) == (1, "a sentence\n")


def test_a_thread_is_waited_for_and_a_signal_is_a_signal(tmp_path: Path) -> None:
    thread = "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()"
    assert ran(tmp_path, thread).stdout == "thread\nat exit\n"
    assert ran(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGTERM)").returncode == -signal.SIGTERM
    assert ran(tmp_path, "raise KeyboardInterrupt").returncode == -signal.SIGINT


INTERRUPTED = """
import os, signal
signal.signal(signal.SIGINT, signal.{before})  # what starts the tests may ignore it, and that is inherited
def last():
    for _ in range({presses}):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
    print("all done")
atexit.register(last)
{end}
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("sys.exit(130)", 130)])
def test_ctrl_c_breaks_nothing_off_once_the_work_is_done(tmp_path: Path, end: str, code: int) -> None:
    done = ran(tmp_path, INTERRUPTED.format(before="default_int_handler", presses=1, end=end))
    assert (done.returncode, done.stdout, done.stderr) == (code, "all done\nat exit\n", "")


def test_ctrl_c_pressed_again_ends_what_hangs_at_exit_unless_it_was_to_be_ignored(tmp_path: Path) -> None:
    done = ran(tmp_path, INTERRUPTED.format(before="default_int_handler", presses=2, end=""))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    done = ran(tmp_path, INTERRUPTED.format(before="SIG_IGN", presses=2, end=""))
    assert (done.returncode, done.stdout, done.stderr) == (0, "all done\nat exit\n", "")


def test_the_script_is_the_main_one_and_gets_its_words(tmp_path: Path) -> None:
    done = ran(tmp_path, "print(__name__, sys.argv[1:], gc.get_threshold()[0] > 700, sys.path[0])", "a", "-m")
    assert done.stdout.startswith("__main__ ['a', '-m'] True ")
    assert str(tmp_path) not in done.stdout
    assert str(Path(interpreter.__file__).parent) not in done.stdout


def test_a_process_that_it_spawns_finds_the_script_and_is_not_one_itself(tmp_path: Path) -> None:
    """As vLLM's server spawns its engine on a GPU."""
    spawns = """
import multiprocessing
def answer(queue): queue.put(6 * 7)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=answer, args=(queue,))
    child.start()
    print(queue.get(timeout=60))
    child.join()
"""
    done = ran(tmp_path, spawns)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines().count("42") == 1


def test_a_pipe_that_nobody_reads_any_more_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("import time; time.sleep(0.5); print('x')")
    words = interpreter.command(str(path))
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(words, env=plain, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


def test_the_command_line_is_run_so() -> None:
    script = "import sys; from pipeline.__main__ import command; sys.argv = ['holdfast', '--nothing']; command()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--nothing" in done.stderr
