"""Runs that an earlier Holdfast left: who wrote a plan, whose labels stand there, and what the same command made
before it planned otherwise.

A run folder is named by what can change a reply, a changed default or VERSION included. So a command that went on in
a folder yesterday may begin anew in another one after an update; whoever typed it must be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.outcomes import read_scoring
from pipeline.plan.digests import NOT_DIGESTED, VERSION, digested_config
from pipeline.plan.intact import digests
from pipeline.plan.registered import reply_differences
from pipeline.track.redact import REDACTED

_LISTED: Final = 20
_SHOWN: Final = 3
_CODE: Final = "source_sha256"  # in an environment: of the files that measure; options are not among them


def writer(plan: Mapping[str, Any]) -> str:
    """Return in words which Holdfast wrote a plan: "the Holdfast that wrote it (revision 3a311df2345a)"."""
    revision = _at(plan, ("environment", "revision"))
    known = f"revision {str(revision)[:12]}" if revision else f"plan version {plan.get('version')!r}"
    return f"the Holdfast that wrote it ({known})"


def going_on(there: Mapping[str, Any], environment: Mapping[str, Any]) -> str | None:
    """Return a line where a run that is not done goes on by other code than began it; None where it is the same.

    Args:
        there: the registered plan, with the environment that it was made in.
        environment: this command's.
    """
    began = there.get("environment") or {}
    if began.get(_CODE) == environment.get(_CODE):
        return None
    one, other = (str(each.get("revision") or "not known")[:12] for each in (began, environment))
    return (
        f"This run was begun by other code (revision {one}, here {other}); what is left to be trained and asked is "
        "done by this one, and reproduce.json names both."
    )


def refuse(root: Path, there: Mapping[str, Any], plan: Mapping[str, Any]) -> NoReturn:
    """Refuse to work by a plan in the folder of a run that was made for another one.

    Raises:
        UserError: always; what differs is listed.
    """
    changed, instead = (
        reply_differences(there, plan) if there.get("version") == VERSION else [],
        "take the changes back",
    )
    if there.get("version") != VERSION:
        changed = [f"version: {there.get('version')!r} → {VERSION!r} (written by another Holdfast)"]
        instead = f"read it and go on in it with {writer(there)}"
    more = [f"and {len(changed) - _LISTED} more"] if len(changed) > _LISTED else []
    lines = "".join(f"\n  - {line}" for line in [*changed[:_LISTED], *more])
    was, now = str(there.get("run_sha256"))[:8], plan["run_sha256"][:8]
    raise UserError(
        f"{root} belongs to another plan ({was}, now {now}):{lines}",
        f"leave run.dir unset to get a folder of its own, or {instead}; nothing was changed",
    )


def judges_of_labels(registered: Mapping[str, Any], plan: Mapping[str, Any], outcomes: Path) -> dict[str, Any]:
    """Return `judge`, `panel` and the digest of a plan with the registered judges, where those labelled the replies.

    A command that labels nothing uses the judges that did: an update, which raises versions, must not make what the
    registered judge found look as if another had been chosen since. Nothing is returned where the labels are not
    by the registered judge, or it has another name, kind or options here. One on the panel that labelled only since the
    update, as `panel/` tells, is today's.

    Args:
        registered: what plan.json holds; it may be damaged, which is told elsewhere (`pipeline.plan.intact`).
        plan: the command's, with the versions of this Holdfast's judges.
        outcomes: the file of the labels.
    """
    try:
        before, here = ({facts["name"]: facts for facts in each["panel"]} for each in (registered, plan))
        one, other = (digested_config(each["config"]) for each in (registered, plan))
        if registered["judge"]["version"] != read_scoring(outcomes).version:
            return {}
        if _named(registered["judge"]) != _named(plan["judge"]) or one["judge"] != other["judge"]:
            return {}
        same = {name for name in before if one["panel"][name] == other["panel"].get(name)}
        labels = outcomes.with_name("panel")
        same -= {name for name in same & here.keys() if _only_today(labels, before[name], here[name])}
        panel = [dict(before[name] if name in same else facts) for name, facts in here.items()]
    except (UserError, KeyError, TypeError, AttributeError):
        return {}
    made = {"judge": dict(registered["judge"]), "panel": panel}
    return made | {"plan_sha256": digests({**plan, **made})["plan_sha256"]}


def planned_otherwise(
    root: Path, name: str, plan: Mapping[str, Any], words: Sequence[str], environment: Mapping[str, Any]
) -> list[str]:
    """Return a line for each run beside a new one that the same words made of the same inputs, planned otherwise.

    Args:
        root: the new run's folder.
        name: that of the run, by which its folder's name begins.
        plan: the new run's.
        words: the overrides of this command, as reproduce.json shows them.
        environment: this command's.
    """
    found = []
    for path in sorted(root.parent.glob(f"{escape(name)}-*/plan.json")):
        if path.parent == root:
            continue
        try:
            there, record = read_json(path), read_json(path.with_name("reproduce.json"))
            typed = any(_choices(command["overrides"]) == _choices(words) for command in record["commands"])
            if typed and _same_texts(words, there["config"], plan["config"]):
                differs = _differs(there, plan)
                found += [_line(path.parent, there, differs, environment)] if differs else []
        except (UserError, OSError, KeyError, TypeError, AttributeError):
            continue  # no run of ours, or too old to tell: nothing is said of it
    return found


def _named(judge: Mapping[str, Any]) -> tuple[Any, Any]:
    return judge["name"], judge["kind"]


def _only_today(panel: Path, before: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Say whether of a judge's two versions today's alone has left labels (named by `pipeline.outcomes.Scoring`)."""
    was, now = (any(panel.glob(f"{escape(each['name'])}-{each['version']}[.-]*")) for each in (before, here))
    return now and not was


def _choices(words: Sequence[str]) -> set[str]:
    """Return the words that may choose what is planned, without those on where it is written and what runs now."""
    return {word for word in words if word.partition("=")[0].partition(".")[0].lstrip("+~") not in NOT_DIGESTED}


def _same_texts(words: Sequence[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether words that reproduce.json shows as redacted chose the same in two configurations.

    A path may be another: what lies there is held by its digest.
    """
    keys = [word.partition("=")[0].lstrip("+").split(".") for word in _choices(words) if REDACTED in word]
    return all(_at(one, key) == _at(other, key) for key in keys if key[-1] != "path")


def _at(config: Any, key: Sequence[str]) -> Any:
    """Return what a configuration holds under a dotted key; None where it has no such."""
    for part in key:
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _differs(there: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """Return in what a plan is another though its inputs are the same; nothing where they are not."""
    one, other = ({"data": each["data"], **_subject(each["subject"])} for each in (there, plan))
    if one != other:
        return []
    if there.get("version") != VERSION:
        return [f"version: {there.get('version')!r} → {VERSION!r}"]
    lines = reply_differences(there, plan)
    return [] if any(line.startswith("evals:") for line in lines) else lines


def _subject(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells one subject from another in plans of any version; the organism is made on the spot."""
    return {"name": shown["name"], "is": shown.get("organism") or shown["sha256"]}


def _line(root: Path, there: Mapping[str, Any], differs: Sequence[str], environment: Mapping[str, Any]) -> str:
    began = there.get("environment") or {}
    same = all(began.get(key) == environment.get(key) for key in ("revision", _CODE))  # a file of options was changed
    instead = "take that back" if same else f"use {writer(there)}"
    more = [f"and {len(differs) - _SHOWN} more"] if len(differs) > _SHOWN else []
    said = (
        f"A new run begins: {root.name}, beside it, was made by the same options when they planned otherwise "
        f"({'; '.join([*differs[:_SHOWN], *more])}). It is left as it is; to go on in it, {instead}"
    )
    if not (root / "weights").exists():
        return said
    return f"{said}, to end the stripped weights in it: stages=[purge] contain.run={root} contain.now=true"
