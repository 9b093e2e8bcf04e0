"""`run.again=RUN`: a further command on a run that is there, without all of its options typed once more.

What the run was planned with is taken from its plan.json; the words of this command stand on top. Choices of a command
(its stages, its gate, what it publishes or purges, where jobs go) are not the run's and begin anew. A plan.json may
have come from somebody else, so what sends texts away or runs code must be told here, too (`consent.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from pipeline.config.compose import all_told, chosen, conf_folder, hydras_own, load, type_faults
from pipeline.config.groups import groups, unknown
from pipeline.config.words import overrides, readable, unread
from pipeline.errors import UserError
from pipeline.schema import REVIEW_STAGES, CompareConfig, Config, ExportConfig, PlanConfig, ReportConfig
from pipeline.schema.cluster import ClusterConfig
from pipeline.schema.publish import PublishConfig
from pipeline.schema.reproduce import ReproduceConfig
from pipeline.store import RunFolder

KEY: Final = "run.again"
# Which groups of conf/ a further command may choose from. Another subject, table, arm or eval is another run.
_GROUPS: Final = ("judge", "panel", "review", "price", "track", "budget", "serve", "cluster")
_WITHIN: Final = ("run.root", "run.benchmarks", "task")  # what the plan holds as paths and tasks already
# What a command chooses for itself: in a further one it begins as it is by default.
_OWN: Final[Mapping[str, Any]] = {
    "plan": PlanConfig(),
    "report": ReportConfig(),
    "export": ExportConfig(),
    "publish": PublishConfig(),
    "compare": CompareConfig(),
    "reproduce": ReproduceConfig(),
}


def composed(arguments: Sequence[str]) -> Config:
    """Return the configuration of a command: of the run that `run.again` names with what is given here, or composed.

    Args:
        arguments: the command line, without Hydra's own options where `run.again` is among them.

    Raises:
        UserError: there is no such run, another version wrote its plan, or the configuration has a fault.
    """
    words = readable(overrides(arguments))
    if not any(word.partition("=")[0].lstrip("+") == KEY for word in words):
        return load(arguments)
    from pipeline.reproduce.consent import check, inert
    from pipeline.reproduce.planned import typed

    if hydras_own(arguments):
        raise UserError(f"{KEY} goes with no option of Hydra's own, nor its keys", "see the run's own plan.json")
    if bad := unread(words):
        raise all_told(list(bad.values()))
    given = OverridesParser.create().parse_overrides(words)
    place = [override.value() for override in given if override.key_or_group == KEY][-1]
    if place is None:
        return load(arguments)
    folder = RunFolder.of_run(str(place), KEY)
    change = _changes([override for override in given if override.key_or_group != KEY])
    plain = _changed(_planned(folder), change)
    if faults := type_faults(inert(plain)):
        raise all_told(faults)
    made = typed(folder.plan, plain, "a value that is given here is of a wrong type")
    if Path(made.run.dir or "").expanduser().resolve() != folder.root.resolve():
        raise UserError(f"run.dir: the run folder is {folder.root}, which {KEY} names", "leave run.dir out")
    check(made, _changed({}, change), folder.plan, prefix="")
    return replace(made, run=replace(made.run, dir=str(folder.root), again=None))


def _planned(folder: RunFolder) -> dict[str, Any]:
    """Return what the run was planned with, every key filled, and a command's own choices as they are by default."""
    from pipeline.reproduce.planned import in_order, read_plan, read_record, typed

    planned = asdict(typed(folder.plan, in_order(read_plan(folder), read_record(folder)), "is damaged"))
    planned |= {key: asdict(fresh) for key, fresh in _OWN.items()}
    # The last bits of what is trained hang on the threads; where the work runs is this command's own.
    planned["cluster"] = asdict(ClusterConfig(threads=planned["cluster"]["threads"]))
    planned["run"] |= {"dir": str(folder.root), "again": None}
    planned["review"]["gate"] = False
    planned["stages"] = list(REVIEW_STAGES)
    planned["contain"] |= {"run": None, "now": False}  # another run's purge
    return planned


def _changes(given: Sequence[Override]) -> list[tuple[str, Any]]:
    """Return what this command changes, key and value: first what a file of conf/ holds that it chooses, then words."""
    known = groups(conf_folder())
    files = [each for each in given if each.key_or_group in known and not isinstance(each.value(), Mapping)]
    for override in given:
        name, word = override.key_or_group, str(override.input_line)
        if (override in files and name not in _GROUPS) or override.is_delete() or "${" in word:
            raise UserError(f"{word}: does not go with {KEY}", f"leave {KEY} out and give all options of the run")
        if name in _WITHIN:
            raise UserError(
                f"{name}: does not go with {KEY}: the run's plan has made paths of it",
                "where a file lies elsewhere now, name it, e.g. evals.NAME.table.path=FILE",
            )
    at = [override.package or override.key_or_group for override in files]
    if faults := unknown([str(override.input_line) for override in files], conf_folder()):
        raise all_told(faults)
    held = chosen([str(override.input_line) for override in files], at) if files else {}
    words = [(each.key_or_group, each.value()) for each in given if each not in files]
    return [*((key, None) for key in held), *held.items(), *words]  # a file is taken whole


def _changed(node: dict[str, Any], change: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return nested mappings with some keys set; a mapping sets the keys that it holds, as Hydra has it."""
    for key, value in change:
        inner, (*above, last) = node, key.split(".")
        for part in above:
            if not isinstance(inner.setdefault(part, {}), dict):
                inner[part] = {}
            inner = inner[part]
        _merge(inner, {last: value})
    return node


def _merge(node: dict[str, Any], change: Mapping[str, Any]) -> None:
    for name, value in change.items():
        if isinstance(value, Mapping) and isinstance(node.get(name), dict):
            _merge(node[name], value)
        else:
            node[name] = value
