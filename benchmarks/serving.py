"""(b) Generation through our server against the engine's own limit: vLLM in process, all requests handed over at once.

As a script (`python -m benchmarks.serving FILE`) it is the in-process side, in a process of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from benchmarks.child import Child, answer_lines
from benchmarks.common import (
    RANK,
    Line,
    Result,
    Sizes,
    adapter_rungs,
    alternate,
    eval_specs,
    make_adapters,
    make_subject,
    paired_ratio,
    serve_config,
    write_replies,
)
from pipeline.generate.matrix import Cell, matrix
from pipeline.records import Rung
from pipeline.schema import ServeConfig
from pipeline.serve import cpu_lora, vllm_server
from pipeline.serve.adapters import adapted_modules
from pipeline.serve.device import environment, resolve_device
from pipeline.serve.server import MAX_CPU_ADAPTERS, Server, lora_rank
from pipeline.serve.width import Load, is_eager, slots
from pipeline.subject.subject import Subject

WARM_UP = 4  # requests to each adapter


def measure(sizes: Sizes, root: Path) -> Result:
    """Measure both sides on the same requests, warm, in turn; seconds from the first request to the last reply."""
    subject, config = make_subject(root), serve_config()
    rungs = adapter_rungs(make_adapters(subject, root, sizes.adapters))
    cells = requests(subject, rungs, sizes.requests)
    warm = [cell for rung in rungs for cell in [c for c in cells if c.rung == rung.id][:WARM_UP]]
    adapters = {rung.id: Path(rung.path) for rung in rungs}
    runs = 0
    with (
        Server(subject, adapters, [RANK] * len(rungs), config, root / "server.log") as server,
        Engine(subject, config, rungs, root) as engine,
    ):

        def through_server(work: Sequence[Cell] = cells) -> float:
            nonlocal runs
            runs += 1
            return write_replies(server, config, subject, root / f"run-{runs}", rungs, work)

        through_server(warm)
        engine.generate(warm)
        seconds = alternate({"server": through_server, "engine": lambda: engine.generate(cells)}, sizes.repeats)
    return _result(seconds, len(cells), len(rungs))


def requests(subject: Subject, rungs: Sequence[Rung], count: int) -> list[Cell]:
    """Return `count` greedy requests, the same ones to each rung, rung by rung."""
    each, over = divmod(count, len(rungs))
    if over:
        raise ValueError(f"{count} requests cannot be shared out evenly over {len(rungs)} adapters")
    cells = matrix(rungs, eval_specs(-(-each // 3)), subject)
    return [cell for rung in rungs for cell in [c for c in cells if c.rung == rung.id][:each]]


def engine_options(subject: Subject, config: ServeConfig, folders: Sequence[Path]) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM` that stand for the server's command line (`pipeline.serve.server`)."""
    adapters = len(folders)
    shared = slots(config, adapters, Load())
    return {
        "model": str(subject.path),
        "dtype": subject.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "enforce_eager": is_eager(config, adapters, Load()),
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "generation_config": "vllm",
        "enable_lora": True,
        "max_loras": shared,
        "max_lora_rank": lora_rank([RANK]),
        "max_cpu_loras": max(shared, min(adapters, MAX_CPU_ADAPTERS)),
        "lora_target_modules": adapted_modules(folders),
    }


class Engine:
    """`vllm.LLM` in a child process, up inside `with`."""

    def __init__(self, subject: Subject, config: ServeConfig, rungs: Sequence[Rung], root: Path) -> None:
        job = {
            "options": engine_options(subject, config, [Path(rung.path) for rung in rungs]),
            "adapters": {rung.id: rung.path for rung in rungs},
            "stop_token_ids": list(subject.stop_token_ids),
        }
        like_the_server = environment(subject, config, resolve_device(config.device))
        self._child = Child("benchmarks.serving", job, root, like_the_server)

    def __enter__(self) -> Engine:
        """Start the engine and wait until it is up."""
        self._child.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the engine."""
        self._child.__exit__(kind, error, trace)

    def generate(self, cells: Sequence[Cell]) -> float:
        """Return the seconds of `LLM.generate` on the cells, checked for one reply each."""
        answer = self._child.ask([[c.rung, list(c.prompt_ids), c.max_tokens] for c in cells])
        if answer["replies"] != len(cells):
            raise RuntimeError(f"{answer['replies']} replies to {len(cells)} requests: nothing was measured")
        return float(answer["seconds"])


def start(job: Mapping[str, Any]) -> Callable[[Any], Mapping[str, Any]]:
    """Start the engine in the child; return what generates the requests of a question."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    if os.environ.get(vllm_server.LORA_BY_ADAPTER) == "1":  # as in the server
        cpu_lora.install()
    engine = LLM(**job["options"])
    adapters = {
        name: LoRARequest(name, number, path) for number, (name, path) in enumerate(job["adapters"].items(), start=1)
    }

    def generate(asked: Sequence[tuple[str, list[int], int]]) -> dict[str, Any]:
        prompts = [{"prompt_token_ids": ids} for _, ids, _ in asked]
        loras = [adapters[name] for name, _, _ in asked]
        sampling = [
            SamplingParams(temperature=0.0, max_tokens=most, stop_token_ids=job["stop_token_ids"])
            for _, _, most in asked
        ]
        began = time.perf_counter()
        replies = engine.generate(prompts, sampling, lora_request=loras, use_tqdm=False)
        seconds = time.perf_counter() - began
        tokens = sum(len(reply.outputs[0].token_ids) for reply in replies)
        return {"seconds": seconds, "replies": len(replies), "tokens": tokens}

    return generate


def _result(seconds: dict[str, list[float]], requests: int, adapters: int) -> Result:
    lines = (
        Line("the engine in process", median(seconds["engine"]), "LLM.generate alone, engine warm"),
        Line(
            "our server",
            median(seconds["server"]),
            "requests over HTTP, budget, ledger, replies written",
            paired_ratio(seconds, "server", "engine"),
            "engine",
            "<= 1.15",
        ),
    )
    title = f"{requests} requests over {adapters} adapters, medians of {len(seconds['server'])} turns"
    return Result("b", title, lines, seconds)


if __name__ == "__main__":
    answer_lines(start)
