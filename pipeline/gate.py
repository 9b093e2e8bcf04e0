"""The verdict as an exit code, for CI: 0 holds, 1 collapses, 2 inconclusive.

1 is also what a failed instrument ends with, and 2 what a user's error ends with. Those say `holdfast: …` on stderr;
a verdict says `holdfast: gate: …`. Whoever must tell them apart looks for that line, or at verdict.json.
"""

from __future__ import annotations

import sys
from typing import Final

from pipeline.files import read_json
from pipeline.plan.registered import deciding
from pipeline.store import RunFolder
from pipeline.verdict import COLLAPSES, HOLDS, INCONCLUSIVE

CODES: Final = {HOLDS: 0, COLLAPSES: 1, INCONCLUSIVE: 2}


def gate(folder: RunFolder) -> None:
    """Say the verdict of a finished run on stderr and leave with its exit code; return where that is 0.

    Raises:
        SystemExit: 1 for `collapses`, 2 for `inconclusive`.
        UserError: there is no verdict.json, or it is damaged.
    """
    verdict = read_json(folder.verdict)
    word = verdict["verdict"]
    changed = deciding(verdict.get("post_hoc") or {})
    aside = f"; not as registered: {', '.join(changed)}" if changed else ""
    print(f"holdfast: gate: {word} (exit code {CODES[word]}): the verdict of a finished run{aside}", file=sys.stderr)
    if CODES[word]:
        raise SystemExit(CODES[word])
