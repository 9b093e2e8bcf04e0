"""The words of a command line as reproduce.json may hold them: keys, numbers, known words; no path, text or secret.

What a run did stands in plan.json in full. Here it is told which choices were made by whom: by a named experiment, or
by hand. What may stand there is decided by the rules that W&B's files follow (`pipeline.track.redact`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from pipeline.config.compose import conf_folder, hydras_own
from pipeline.track.redact import REDACTED, redacted

_KEY: Final = re.compile(r"[A-Za-z]\w{0,63}(\.[A-Za-z]\w{0,63})*")

_typed: list[str] = []


def typed(words: Sequence[str]) -> None:
    """Keep the overrides of the command that begins."""
    _typed[:] = [word for word in words if not hydras_own([word])]


def given() -> list[str]:
    """Return the overrides of the command that runs, as typed; none where no command line started it."""
    return list(_typed)


def shown(overrides: Sequence[str], conf: Path | None = None) -> list[str]:
    """Return each override with its value, or with "redacted" in place of what no rule allows."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        return [REDACTED] * len(overrides)  # nothing that Hydra does not read can have run
    return [_word(override, conf or conf_folder()) for override in parsed]


def _word(override: Override, conf: Path) -> str:
    key = override.key_or_group
    if not _KEY.fullmatch(key):
        return REDACTED
    if override.is_delete():
        return f"~{key}"
    return f"{key}={_text(_value(key, override.value(), conf))}"


def _value(key: str, value: Any, conf: Path) -> Any:
    choices = {path.stem for path in (conf / key).glob("*.yaml")}
    if choices and all(
        isinstance(choice, str) and choice in choices for choice in (value if isinstance(value, list) else [value])
    ):
        return value
    *above, last = key.split(".")
    nested: Any = {last: value}
    for part in reversed(above):
        nested = {part: nested}
    kept: Any = redacted(nested)
    for part in (*above, last):
        if not isinstance(kept, Mapping):  # redacted as a whole, by a name above
            return REDACTED
        kept = kept[part]
    return kept


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace('"', "")
