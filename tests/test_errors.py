"""The boundary: what a user may see of a fault is one message and an exit code."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from pipeline.errors import InstrumentError, UserError, boundary


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (UserError("a key is wrong", "mend it"), 2, "holdfast: a key is wrong\n  → mend it"),
        (InstrumentError("the server died"), 1, "holdfast: the server died"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "no space left on the disk"),
        (OSError(errno.EFBIG, "File too large"), 2, "a file would be larger than it may be here"),
        (Exception("No space left on device (os error 28)"), 2, "no space left on the disk"),
        (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), 2, "raise the limit"),
        (SafetensorError("I/O error: Disk quota exceeded (os error 122)"), 2, "→ free some space"),
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


@pytest.mark.parametrize("last", [AttributeError("no attribute"), UserError("the configuration cannot be composed")])
def test_an_interrupt_that_a_library_turned_into_an_error_is_told_as_an_interrupt(
    last: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """As OmegaConf does, where Ctrl-C comes while it holds a flag: its clean-up fails, and that is formatted anew."""

    def library() -> None:
        try:
            try:
                raise KeyboardInterrupt
            finally:
                raise ValueError("half made")
        except ValueError:
            raise last from None

    with pytest.raises(SystemExit) as end, boundary():
        library()
    assert end.value.code == 130
    assert capsys.readouterr().err.startswith("holdfast: interrupted")


def test_a_full_disk_that_a_writer_in_rust_meets_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    words = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(SystemExit) as end, boundary():
        words.save("/dev/full")
    assert end.value.code == 2
    assert "no space left on the disk" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [ZeroDivisionError(), OSError(errno.EIO, "I/O"), Exception("it broke (os error 5)")])
def test_a_fault_of_the_code_is_not_hidden(fault: Exception) -> None:
    with pytest.raises(type(fault)), boundary():
        raise fault
