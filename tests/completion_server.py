"""A real HTTP server on loopback that speaks /v1/completions as vLLM does, for tests of the client's side."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from pipeline.generate.matrix import prompt_sha256


def text_of(model: str, ids: list[int] | tuple[int, ...], seed: int | None) -> str:
    return f"{model} {prompt_sha256(list(ids))[:8]} {seed}"


class Completions:
    """A reply depends on model, prompt and seed alone; `faults` are status codes to answer first."""

    group = None  # a thread of the test's own process

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.faults: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                status = outer.faults.pop() if outer.faults else 200
                answer = json.dumps(outer.answer(body) if status == 200 else {"error": "of the engine"}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()
        self.up = True

    @staticmethod
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        choices = [
            {
                "index": i,
                "text": text_of(body["model"], ids, body.get("seed")),
                "finish_reason": "stop",
                "token_ids": [3],
            }
            for i, ids in enumerate(body["prompt"])
        ]
        return {"choices": choices[::-1]}  # in no order that a client may trust

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.http.server_port}", timeout=10, trust_env=False)

    def alive(self) -> bool:
        return self.up

    def answers(self) -> bool:
        return self.up

    def tail(self) -> str:
        return "    the end of the log"

    def stop(self) -> None:
        if self.up:
            self.http.shutdown()
            self.thread.join()
            self.http.server_close()
            self.up = False
