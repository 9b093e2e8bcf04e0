"""A loopback stand-in for a W&B server: the few operations that the real client asks for, kept in memory.

It proves what the client sends and what Holdfast makes of the answers; it does not prove what a real server accepts.
A `Stub` can lose what it is sent in the ways that a real upload fails without an error.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

KEY: Final = "0" * 40  # the shape of a key, and nobody's
ENTITY: Final = "reviewers"
Data = dict[str, Any]


@dataclass
class StubRun:
    """One run as the server keeps it."""

    fields: Data = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    summary: Data = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"


@dataclass
class Stub:
    """What the server holds, what it was asked, and what it loses on purpose."""

    runs: dict[str, StubRun] = field(default_factory=dict)
    views: dict[str, Data] = field(default_factory=dict)
    projects: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)  # every body
    offsets: list[tuple[str, int, int]] = field(default_factory=list)  # run, offset, rows of each piece of history
    refuse_key: bool = False
    dropped: str = ""  # runs whose display name begins like this are accepted and forgotten
    keep_rows: int | None = None  # history rows kept of a run
    lose_file: str = ""  # files whose name ends like this are accepted and forgotten
    refuse_report: bool = False
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def kept(self, name: str) -> StubRun | None:
        run = self.runs.get(name)
        shown = "" if run is None else str(run.fields.get("displayName"))
        return None if self.dropped and shown.startswith(self.dropped) else run

    def graphql(self, query: str, given: Data) -> Data:
        """Answer one operation; an unknown one is remembered and refused."""
        for mark, answer in ANSWERS.items():
            if mark in query:
                self.asked.append(mark)
                return answer(self, given)
        self.unknown.append(query)
        raise LookupError(f"unknown operation: {query[:200]}")


def _viewer(_: Stub, __: Data) -> Data:
    empty: Data = {"edges": []}
    return {
        "viewer": {
            "id": "VXNlcjox",
            "name": "R. Viewer",
            "username": "viewer",
            "entity": ENTITY,
            "flags": "{}",
            "email": "",
            "admin": False,
            "deletedAt": None,
            "teams": empty,
            "apiKeys": empty,
            "__typename": "User",
        },
        "serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None},
    }


def _project_fields(name: str) -> Data:
    return {
        "id": f"p-{name}",
        "internalId": f"p-{name}",
        "name": name,
        "entityName": ENTITY,
        "entity": {"id": "e", "name": ENTITY},
        "createdAt": "2026-01-01T00:00:00",
        "isBenchmark": False,
        "user": None,
        "__typename": "Project",
    }


def _bucket(stub: Stub, name: str, project: str) -> Data:
    run = stub.runs[name]
    return {
        "id": f"id-{name}",
        "name": name,
        "displayName": run.fields.get("displayName"),
        "description": "",
        "config": run.fields.get("config", "{}"),
        "sweepName": None,
        "project": _project_fields(project),
        "historyLineCount": len(run.history),
    }


def _upsert_bucket(stub: Stub, given: Data) -> Data:
    name, project = given["name"], given.get("project") or "uncategorized"
    inserted = name not in stub.runs
    run = stub.runs.setdefault(name, StubRun())
    run.fields |= {key: value for key, value in given.items() if value is not None}
    if given.get("summaryMetrics"):
        run.summary = json.loads(given["summaryMetrics"])
    if project not in stub.projects:
        stub.projects.append(project)
    return {"upsertBucket": {"bucket": _bucket(stub, name, project), "inserted": inserted}}


def _resume(stub: Stub, given: Data) -> Data:
    name = given["name"]
    model: Data = {**_project_fields(given["project"]), "bucket": None}
    if (run := stub.kept(name)) is not None:
        tail = json.dumps(run.history[-1:])
        model["bucket"] = {
            **_bucket(stub, name, given["project"]),
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": tail,
            "eventsTail": "[]",
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }
    return {"model": model}


def _create_files(stub: Stub, given: Data) -> Data:
    files = [{"name": name, "uploadUrl": f"{stub.url}/up/{given['run']}/{name}"} for name in given["files"]]
    return {"createRunFiles": {"runID": f"id-{given['run']}", "uploadHeaders": [], "files": files}}


def _run_node(stub: Stub, name: str) -> Data:
    run = stub.runs[name]
    keys = {key for line in run.history for key in json.loads(line)}
    return {
        "id": f"id-{name}",
        "projectId": "1",
        "tags": [],
        "name": name,
        "displayName": run.fields.get("displayName"),
        "sweepName": None,
        "state": run.state,
        "config": run.fields.get("config", "{}"),
        "group": run.fields.get("groupName"),
        "jobType": run.fields.get("jobType"),
        "commit": None,
        "readOnly": False,
        "createdAt": "2026-01-01T00:00:00",
        "heartbeatAt": "2026-01-01T00:00:00",
        "description": "",
        "notes": None,
        "systemMetrics": "{}",
        "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": len(run.history),
        "user": {"name": "R. Viewer", "username": "viewer"},
        "historyKeys": {"lastStep": len(run.history) - 1, "keys": {key: {} for key in sorted(keys)}},
    }


def _run(stub: Stub, given: Data) -> Data:
    project = _project_fields(given["project"])
    return {"project": {**project, "run": _run_node(stub, given["name"]) if stub.kept(given["name"]) else None}}


def _files(stub: Stub, given: Data) -> Data:
    run = stub.kept(given["name"])
    found = {} if run is None else run.files
    edges = [
        {
            "cursor": name,
            "node": {
                "id": name,
                "name": name,
                "url": "",
                "directUrl": "",
                "sizeBytes": len(content),
                "mimetype": "",
                "updatedAt": None,
                "md5": "",
            },
        }
        for name, content in found.items()
    ]
    page = {"endCursor": None, "hasNextPage": False, "startCursor": None, "hasPreviousPage": False}
    files = {"edges": edges, "pageInfo": page}
    return {
        "project": {**_project_fields(given["project"]), "run": {"id": "r", "fileCount": len(edges), "files": files}}
    }


def _projects(stub: Stub, _: Data) -> Data:
    edges = [{"node": _project_fields(name), "cursor": name} for name in stub.projects]
    page = {"endCursor": None, "hasNextPage": False, "startCursor": None, "hasPreviousPage": False}
    return {"models": {"edges": edges, "pageInfo": page}}


def _view(stub: Stub, given: Data) -> Data:
    return {"view": stub.views.get(given["reportId"])}


def _upsert_view(stub: Stub, given: Data) -> Data:
    if stub.refuse_report:
        raise LookupError("permission denied")
    known = given.get("id")
    name = known or base64.b64encode(f"View:{len(stub.views) + 1}".encode()).decode()
    view = {key: given.get(key) for key in ("type", "name", "displayName", "description", "spec")}
    stub.views[name] = {
        "id": name,
        **view,
        "project": _project_fields(given["projectName"]),
        "createdAt": "2026-01-01T00:00:00",
        "updatedAt": "2026-01-01T00:00:00",
    }
    return {"upsertView": {"view": stub.views[name], "inserted": known is None}}


# By a mark in the operation's text; the first that fits.
ANSWERS: Final[dict[str, Callable[[Stub, Data], Data]]] = {
    "RunResumeStatus": _resume,
    "UpsertBucket": _upsert_bucket,
    "CreateRunFiles": _create_files,
    "upsertView": _upsert_view,
    "SpecificReport": _view,
    "GetProjects": _projects,
    "RunFiles": _files,
    "query Run(": _run,
    "Viewer": _viewer,
    "viewer": _viewer,
}


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _body(self) -> bytes:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            stub.received.append(content)
            return content

        def _answer(self, value: Data, code: int = 200) -> None:
            content = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _authorised(self) -> bool:
            wanted = base64.b64encode(f"api:{KEY}".encode()).decode()
            return not stub.refuse_key and self.headers.get("Authorization") == f"Basic {wanted}"

        def do_GET(self) -> None:
            self._answer({})

        def do_PUT(self) -> None:
            content = self._body()
            with stub.lock:
                _, _, run, name = self.path.split("/", 3)
                if not stub.lose_file or not name.endswith(stub.lose_file):
                    stub.runs[run].files[name] = content
            self._answer({})

        def do_POST(self) -> None:
            content = self._body()
            if not self._authorised():
                self._answer({"errors": [{"message": "invalid API key"}]}, 401)
                return
            with stub.lock:
                if self.path == "/graphql":
                    self._graphql(json.loads(content))
                else:
                    self._stream(json.loads(content))

        def _graphql(self, asked: Data) -> None:
            try:
                self._answer({"data": stub.graphql(asked["query"], asked.get("variables") or {})})
            except LookupError as error:
                self._answer({"data": None, "errors": [{"message": str(error)}]})

        def _stream(self, sent: Data) -> None:
            name = self.path.split("/")[-2]
            run = stub.runs.setdefault(name, StubRun())
            for file, piece in (sent.get("files") or {}).items():
                if file == "wandb-history.jsonl":
                    stub.offsets.append((name, piece["offset"], len(piece["content"])))
                    run.history[piece["offset"] :] = piece["content"]
                    run.history = run.history[: stub.keep_rows]
                elif file == "wandb-summary.json":
                    run.summary = json.loads(piece["content"][-1])
            if sent.get("complete"):
                run.state = "finished"
            self._answer({"exitcode": None, "limits": {}})

    return Handler


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves without a word is none of our business."""


@contextmanager
def wandb_server() -> Iterator[Stub]:
    """Serve a `Stub` on a free port of loopback; `stub.url` is what WANDB_BASE_URL must be."""
    stub = Stub()
    server = _QuietServer(("127.0.0.1", 0), _handler(stub))
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
