"""Whether plan.json still is what was written before anything ran: who edits it makes what is post hoc vanish. Pure.

Its two digests cover all that can change a reply, and how the replies are read; both can be taken again from its own
content. reproduce.json, beside it from the first command on, has the digest of the whole. Who edits all of them by hand
is not found out: this is against slips, and a digest that was published holds against the rest. What a digest leaves
out may therefore change with the plan's VERSION alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.errors import UserError
from pipeline.files import digest
from pipeline.plan.digests import plan_digests

_NAMED: Final = ("organism", "hub")  # what of a subject stands in the digests, if it is no local folder (`identity`)


def require_as_written(path: Path, plan: Mapping[str, Any], record: Mapping[str, Any] | None) -> None:
    """Refuse to take for registered what is not what was written.

    Args:
        path: where plan.json lies, for the error.
        plan: its content, of this version.
        record: reproduce.json; None: there is none yet.

    Raises:
        UserError: it was changed.
    """
    if what := _changed(plan, record):
        raise UserError(
            f"{path} was changed since it was written: {what}",
            "bring the old file back, or start afresh with run.dir=; another judge or threshold is given on the "
            "command line, and the verdict then names it as post hoc",
        )


def digests(plan: Mapping[str, Any]) -> dict[str, str]:
    """Return `run_sha256` and `plan_sha256` as `make_plan` takes them, from the content of a plan.

    Raises:
        KeyError: it lacks a part of a plan.
    """
    measured = {
        **{key: plan[key] for key in ("data", "evals")},
        "search": {arm: _searched(found) for arm, found in plan["search"].items()},
        "subject": _subject(plan["subject"]),
    }
    judges = [(facts["kind"], facts["version"]) for facts in (plan["judge"], *plan["panel"])]
    return plan_digests(plan["config"], measured, judges)


def _changed(plan: Mapping[str, Any], record: Mapping[str, Any] | None) -> str:
    try:
        made = digests(plan)
    except (KeyError, TypeError, AttributeError) as error:
        return f"it lacks a part of a plan ({error})"
    for key, value in made.items():
        if plan.get(key) != value:
            return f"its content has the {key} {value[:8]}, and it names {str(plan.get(key))[:8]}"
    kept = (record or {}).get("plan_file_sha256")
    return "" if kept in (None, digest(plan)) else "reproduce.json has another digest of it"


def _subject(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what names the subject in the digests (`pipeline.subject.folder.identity`)."""
    named = next((name for name in _NAMED if name in shown), "sha256")
    keys = (named, *(["revision"] if named == "hub" else []), *(["chat_template"] if "chat_template" in shown else []))
    return {key: shown[key] for key in keys}


def _searched(found: Mapping[str, Any]) -> dict[str, Any]:
    judge = [found["judge"]["kind"], found["judge"]["version"]]
    return {**{role: table["sha256"] for role, table in found["dev"].items()}, "judge": judge}
