"""The boundary: what a user may see of a fault is one message and an exit code."""

from __future__ import annotations

import errno

import pytest

from pipeline.errors import InstrumentError, UserError, boundary


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (UserError("a key is wrong", "mend it"), 2, "holdfast: a key is wrong\n  → mend it"),
        (InstrumentError("the server died"), 1, "holdfast: the server died"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "no space left on the disk"),
        (KeyboardInterrupt(), 130, "holdfast: interrupted\n  → run the same command again"),
    ],
)
def test_a_fault_is_one_message_and_an_exit_code(
    fault: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, boundary():
        raise fault
    assert end.value.code == code
    told = capsys.readouterr().err
    assert said in told
    assert told.count("holdfast:") == 1


def test_a_fault_of_the_code_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), boundary():
        raise ZeroDivisionError
