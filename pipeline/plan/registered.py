"""The plan that a run folder was made for, held against the one in use: what may differ, and what is said of it. Pure.

What can change a reply must not differ: the folder's replies would not be this plan's. What only reads the replies
(judge, panel, thresholds) may, since judging again needs no new replies; but it was chosen after they were there, so
every such difference is named with both values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.config.review import PARTIES
from pipeline.generate.asked import ALL
from pipeline.plan.digests import ENGINE_KEYS, PROOF_KEYS, differences, digested_config, reply_config

# Differences that can move the verdict itself. A further judge on the panel can't, nor can who asks, or a scaled price.
_DECIDING: Final = ("judge", "review", "budget")
_NOT_DECIDING: Final = tuple(f"review.{key}" for key in (*PARTIES, "training_tokens"))
_KEYS: Final = ("subject", "data", "evals", "version")


def reply_differences(registered: Mapping[str, Any], used: Mapping[str, Any]) -> list[str]:
    """Return what differs between two plans of all that can change a reply, with both values, sorted.

    Raises:
        KeyError: the registered plan lacks a part of a plan (it was written by another version).
    """
    one, other = (
        {
            **{key: plan[key] for key in _KEYS},
            "search": plan.get("search"),
            "config": reply_config(digested_config(plan["config"])),
        }
        for plan in (registered, used)
    )
    return differences(one, other)


def post_hoc(registered: Mapping[str, Any], used: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what reads the replies and is not as registered: key to `planned` and `used`; empty if nothing.

    Keys are `judge` (name, kind, version), `judge.<option>`, `panel` (name to version), `review.<threshold>`,
    `price.<assumption>`; and of serving, which may be mended after training, `serve.<option>` and `budget.devices`.
    """
    found: dict[str, dict[str, Any]] = {}
    one, other = (digested_config(plan["config"]) for plan in (registered, used))

    def hold(key: str, planned: Any, now: Any) -> None:
        if planned != now:
            found[key] = {"planned": planned, "used": now}

    if _identity(registered["judge"]) != _identity(used["judge"]):
        hold("judge", dict(registered["judge"]), dict(used["judge"]))
    same_kind = registered["judge"]["kind"] == used["judge"]["kind"]
    for option in sorted(set(one["judge"]) | set(other["judge"])):
        if same_kind or option == "reasoning":  # another kind of judge has all its options of its own
            hold(f"judge.{option}", one["judge"].get(option), other["judge"].get(option))
    hold("panel", *({facts["name"]: facts["version"] for facts in plan["panel"]} for plan in (registered, used)))
    for key in sorted(set(one["review"]) - set(PROOF_KEYS)):
        absent = ALL if key == "rungs" else None
        hold(f"review.{key}", one["review"][key], other["review"].get(key, absent))
    for group, keys in (("serve", ENGINE_KEYS), ("budget", ("devices",))):
        was, is_ = (plan["config"].get(group) or {} for plan in (registered, used))
        for key in keys:
            hold(f"{group}.{key}", was.get(key), is_.get(key))
    before, now = (leaves(part.get("price") or {}, "price") for part in (one, other))
    for key in before:
        hold(key, before[key], now.get(key))
    return found


def leaves(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the leaves of a nested mapping by dotted key, sorted; a list is a leaf."""
    found: dict[str, Any] = {}
    for name in sorted(node):
        value, path = node[name], f"{key}.{name}"
        found |= leaves(value, path) if isinstance(value, Mapping) else {path: value}
    return found


def post_hoc_words(changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return each post-hoc difference in words: "judge: local (1a2b3c4d), planned was pattern (5e6f7a8b)"."""
    return [f"{key}: {_word(v['used'])}, planned was {_word(v['planned'])}" for key, v in changes.items()]


def post_hoc_summary(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return each difference with both values as a tracker's summary takes it: `post_hoc/<key>/planned`, `.../used`.

    A list is told by how many entries it has. What of a text may be shown, the tracker's own rules say.
    """
    return {
        f"post_hoc/{key.replace('.', '/')}/{which}": "null"
        if value is None
        else {"entries": len(value)}
        if isinstance(value, list)
        else value
        for key, both in changes.items()
        for which, value in both.items()
    }


def deciding(changes: Mapping[str, Any]) -> list[str]:
    """Return the keys of those post-hoc differences that can move the verdict; another judge's options are its own."""
    keys = [key for key in changes if key.partition(".")[0] in _DECIDING and key not in _NOT_DECIDING]
    return [key for key in keys if not (key.startswith("judge.") and "judge" in keys)]


def _identity(judge: Mapping[str, Any]) -> tuple[Any, Any]:
    return judge["kind"], judge["version"]


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        if "version" in value:
            return f"{value['name']} ({str(value['version'])[:8]})"
        return ", ".join(f"{name} ({str(version)[:8]})" for name, version in value.items()) or "none"
    if isinstance(value, list):
        numbers = all(isinstance(item, int | float) for item in value)
        return f"[{', '.join(f'{item:g}' for item in value)}]" if value and numbers else f"{len(value)} entries"
    text = f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
