"""`holdfast WORDS` within the test's own process."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import huggingface_hub.constants as hub
import pytest

from pipeline.__main__ import main


def run_main(words: Iterable[str], monkeypatch: pytest.MonkeyPatch, capture: Any, code: int = 0) -> Any:
    """Run the command line, expect an exit code, and return what was said: `out` and `err`, never a traceback.

    Args:
        capture: the test's `capsys` or `capfd`.
        code: the expected exit code; 0: `main` returns.
    """
    monkeypatch.setattr(sys, "argv", ["holdfast", *words])
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", hub.HF_HUB_OFFLINE)  # a run seals it; tests that follow want it back
    if code:
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
    else:
        main()
    said = capture.readouterr()
    assert "Traceback" not in said.err, said.err
    return said
