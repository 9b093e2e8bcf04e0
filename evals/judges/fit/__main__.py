"""Fit the local judge and write its weights and card: `python -m evals.judges.fit --data ../shared/data`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from evals.judges.fit.card import card
from evals.judges.fit.evaluate import calibrations
from evals.judges.fit.labels import read_xstest
from evals.judges.fit.lines import LINES, own_rows
from evals.judges.fit.model import fit_partial, fit_refused, packed, table
from evals.judges.local import WEIGHTS


def main() -> int:
    """Fit on XSTest's labels and the project's own lines, and evaluate on what was left out."""
    parser = argparse.ArgumentParser(prog="python -m evals.judges.fit", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the human labels")
    parser.add_argument("--pattern", type=Path, default=Path("conf/judge/pattern.yaml"), help="the judge beside it")
    parser.add_argument("--out", type=Path, default=WEIGHTS.parent, help="folder for local.npz and local_card.md")
    options = parser.parse_args()
    try:
        people = read_xstest(options.data)
        data = table([*people, *own_rows(LINES.read_text(encoding="utf-8"))])
        everything = np.ones(len(data.models), dtype=bool)
        fits = fit_refused(data, everything), fit_partial(data, everything)
        content = packed(*fits, calibrations(data, everything))
        text = card(content, options.data, options.pattern, data, people)
    except ImportError as error:
        print(f"holdfast: {error}: install the extra `fit`", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"holdfast: the local judge was not fitted: {error}", file=sys.stderr)
        return 2
    (options.out / "local.npz").write_bytes(content)
    (options.out / "local_card.md").write_text(text, encoding="utf-8")
    print(f"{options.out / 'local.npz'}: {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
