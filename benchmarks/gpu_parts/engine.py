"""`vllm.LLM` in a process of its own, that is asked in JSON lines: so that its memory is free again when it ends.

As a script (`python -m benchmarks.gpu_parts.engine JOB.json`) it is the child. It needs vLLM and the standard library.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.child import Child, answer_lines


@dataclass(frozen=True)
class Request:
    """One greedy request: an adapter's name ("": the base), the prompt's token ids, how many tokens to write."""

    adapter: str
    prompt: tuple[int, ...]
    tokens: int


@dataclass
class Engine:
    """An engine that is up inside `with`; `started_s` are the wall seconds from nothing to up.

    Every request writes all its tokens (`ignore_eos`), so that two sides always do the same work.
    """

    options: Mapping[str, Any]
    root: Path
    adapters: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    started_s: float = float("nan")

    def __enter__(self) -> Engine:
        """Start the engine and wait until it is up.

        Raises:
            RuntimeError: it ended; the reason in its log is in the message.
        """
        began = time.perf_counter()
        adapters = {name: str(path) for name, path in self.adapters.items()}
        job = {"options": dict(self.options), "adapters": adapters}
        self._child = Child("benchmarks.gpu_parts.engine", job, self.root, self.environment).__enter__()
        self.started_s = time.perf_counter() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the engine."""
        self._child.__exit__(kind, error, trace)

    def generate(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Return `seconds` of `LLM.generate`, `tokens` written, and a digest of each reply's tokens (`replies`).

        Raises:
            RuntimeError: fewer tokens than asked for were written.
        """
        answer = self._child.ask(
            {"do": "generate", "requests": [[r.adapter, list(r.prompt), r.tokens] for r in requests]}
        )
        if answer["tokens"] != sum(request.tokens for request in requests):
            raise RuntimeError(f"{answer['tokens']} tokens written to {len(requests)} requests: nothing was measured")
        return answer

    def sleep(self) -> float:
        """Give the device's memory back but for the weights, which go to host memory (level 1); return seconds."""
        return float(self._child.ask({"do": "sleep"})["seconds"])

    def wake(self) -> float:
        """Take the memory again; return seconds."""
        return float(self._child.ask({"do": "wake"})["seconds"])


def start(job: Mapping[str, Any]) -> Callable[[Any], Mapping[str, Any]]:
    """Start the engine in the child; return what answers a question."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    engine = LLM(**job["options"])
    adapters = {name: LoRARequest(name, n, path) for n, (name, path) in enumerate(job["adapters"].items(), start=1)}

    def generate(asked: Sequence[tuple[str, list[int], int]]) -> dict[str, Any]:
        prompts = [{"prompt_token_ids": ids} for _, ids, _ in asked]
        sampling = [SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False) for *_, n in asked]
        loras: Any = [adapters.get(name) for name, *_ in asked]
        began = time.perf_counter()
        replies = engine.generate(prompts, sampling, lora_request=loras if adapters else None, use_tqdm=False)
        seconds = time.perf_counter() - began
        ids = [reply.outputs[0].token_ids for reply in replies]
        digests = [hashlib.sha256(repr(list(each)).encode()).hexdigest()[:12] for each in ids]
        return {"seconds": seconds, "tokens": sum(map(len, ids)), "replies": digests}

    def timed(work: Callable[[], object]) -> dict[str, Any]:
        began = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - began}

    def answer(question: Mapping[str, Any]) -> dict[str, Any]:
        if question["do"] == "generate":
            return generate(question["requests"])
        return timed((lambda: engine.sleep(level=1)) if question["do"] == "sleep" else engine.wake_up)

    return answer


if __name__ == "__main__":
    answer_lines(start)
