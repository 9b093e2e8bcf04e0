"""A real HTTP server on loopback that speaks OpenAI's API as a judge does, for tests of the client's side."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

YES_NO = {"yes": -0.1, "no": -2.4}


def question(body: dict[str, Any]) -> str:
    """Return what was asked, whichever way."""
    return str(body["prompt"]) if "prompt" in body else "\n".join(each["content"] for each in body["messages"])


class Judges:
    """`answer` gives the judge's words from the request's body; `faults` are (status, headers) to answer first."""

    def __init__(self, answer: Callable[[dict[str, Any]], str]) -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.faults: list[tuple[int, dict[str, str]]] = []
        self.always: tuple[int, dict[str, Any]] | None = None  # a status and an error to answer everything with
        self.logprobs = True
        self.delay_s = 0.0
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            self.paths.append(handler.path)
            fault = self.faults.pop() if self.faults else None
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.delay_s)
        with self._lock:
            self.at_once -= 1
        headers: dict[str, str] = {}
        if self.always is not None:
            status, told = self.always[0], {"error": self.always[1]}
        elif fault is not None:
            status, headers = fault
            told = {"error": {"message": question(body), "type": "of_the_engine"}}
        else:
            status, told = 200, self._told(body)
        sent = json.dumps(told).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(sent)))
        # A client may have stopped waiting: the traceback of its thread would stand in another test's output.
        with contextlib.suppress(ConnectionError):
            handler.end_headers()
            handler.wfile.write(sent)

    def _told(self, body: dict[str, Any]) -> dict[str, Any]:
        text = self.answer(body)
        tokens = [text[:3], text[3:]] if len(text) > 3 else [text]
        if "prompt" in body:
            told: dict[str, Any] = {"index": 0, "text": text, "finish_reason": "stop"}
            if body.get("logprobs") and self.logprobs:
                alternatives = [YES_NO if token in YES_NO else {token: -0.1} for token in tokens]
                told["logprobs"] = {
                    "tokens": tokens,
                    "token_logprobs": [YES_NO.get(token, 0.0) for token in tokens],
                    "top_logprobs": alternatives,
                }
        else:
            told = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            if body.get("logprobs") and self.logprobs:
                tops = [[{"token": token, "logprob": -0.1}, {"token": "0", "logprob": -2.4}] for token in tokens]
                told["logprobs"] = {
                    "content": [
                        {"token": token, "logprob": -0.1, "top_logprobs": top}
                        for token, top in zip(tokens, tops, strict=True)
                    ]
                }
        return {"choices": [told]}
