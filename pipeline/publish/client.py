"""The process that asks a W&B server: a question a line as JSON on stdin, an answer a line as JSON on stdout.

A process of its own, as the tracker's: W&B's settings and temporary files stay in it, and if it hangs it can be ended.
The key is read by W&B's own client from the environment or ~/.netrc; it is in no argument, answer or log.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from pipeline import interpreter

_REACH_S: Final = 15.0
_ASK_S: Final = 60


class RefusalError(Exception):
    """A failure that has a name: `unreachable`, `no key`, `refused` or `failed`."""

    def __init__(self, kind: str, said: object) -> None:
        super().__init__(f"{said}")
        self.kind = kind


@cache
def _api() -> Any:
    """Return W&B's public client, logged in once.

    Raises:
        RefusalError: the server cannot be reached, there is no key, or the server does not take it.
    """
    import httpx
    import wandb

    server = wandb.setup().settings.base_url
    try:
        httpx.get(server, timeout=_REACH_S)  # any answer will do; W&B's client would call this "busy" after 20 s
    except httpx.TransportError as error:
        raise RefusalError("unreachable", f"{server}: {error}") from None
    try:
        return wandb.Api(timeout=_ASK_S)
    except wandb.errors.UsageError as error:
        raise RefusalError("no key", error) from None
    except wandb.errors.AuthenticationError as error:
        raise RefusalError("refused", error) from None


def who(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entity to publish to (the account's own where none is asked for) and the server's address."""
    api = _api()
    entity = asked["entity"] or api.default_entity
    if not entity:
        raise RefusalError("refused", "the account has no default entity; name one with publish.entity=")
    return {"entity": entity, "server": api.settings["base_url"]}


def runs(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each run id how many rows, which metrics, which summary and which files the server has, or null."""
    api = _api()
    api.flush()  # it would tell again what it was told before
    return {run: _run(api, f"{asked['entity']}/{asked['project']}/{run}") for run in asked["runs"]}


def _run(api: Any, path: str) -> dict[str, Any] | None:
    from wandb.apis.public.runs import RunNotFoundError
    from wandb.errors import CommError

    try:
        run = api.run(path)
    except CommError as error:
        if isinstance(error.exc, RunNotFoundError):
            return None
        raise
    keys = run.history_keys or {}
    return {
        "rows": int(run.history_line_count or 0),
        "metrics": sorted(keys.get("keys", {})),
        "summary": _flat(run.summary_metrics or {}),
        "files": {file.name: int(file.size) for file in run.files()},
    }


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def save(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Save a page as a W&B Report; in place of report `id`, where that is given and still there.

    Returns:
        `id` and `url` of the report, and `anew`: whether it is a new one.
    """
    from wandb_workspaces._graphql import execute_graphql
    from wandb_workspaces.reports.v2 import gql

    from pipeline.publish.board import build
    from pipeline.track.redact import slug

    api = _api()
    report = build(asked["page"], asked["entity"], asked["project"])
    known = asked["id"]
    if known and execute_graphql(api, gql.view_report, {"reportId": known}).get("view"):
        report.id = known
    anew = not report.id
    report.save(draft=asked["draft"])
    report.title = slug(report.title)  # the address is made of it; a / in it would lead elsewhere
    return {"id": report.id, "url": report.url, "anew": anew}


_QUESTIONS: Final[dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {"who": who, "runs": runs, "save": save}


def _is_the_servers(error: Exception) -> bool:
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    return isinstance(error, wandb.errors.Error | WandbApiFailedError | OSError)


def _reply(asked: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"answer": _QUESTIONS[asked["ask"]](asked)}
    except RefusalError as refusal:
        return {"error": refusal.kind, "said": str(refusal)}
    except Exception as error:
        kind = "failed" if _is_the_servers(error) else "broken"
        return {"error": kind, "said": f"{type(error).__name__}: {error}"}


def main() -> int:
    """Answer until the input ends: `{"answer": …}`, or `{"error": KIND, "said": …}`."""
    # W&B must neither prompt on our input nor print among our answers.
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in questions:
        print(json.dumps(_reply(json.loads(line))), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    interpreter.run(lambda: sys.exit(main()))
