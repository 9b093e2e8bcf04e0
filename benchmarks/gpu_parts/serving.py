"""(c) what a start of vLLM costs, (f) sleep and wake, with made-up weights; what (b), mixing.py, shares with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.gpu_parts.call import Call, Once, Shared, scratch
from benchmarks.gpu_parts.engine import Engine, Request
from benchmarks.gpu_parts.models import save_config
from benchmarks.gpu_parts.record import Figure, Wanted

REPEATS: Final = 3
STARTS: Final = {  # in this order: the second finds what the first compiled
    "graphs-cold": "CUDA graphs and compiled kernels, caches empty",
    "graphs-warm": "the same, caches warm (as from the second start on)",
    "graphs-few": "the same with a quarter of the graphs, 13 up to 256 replies",
    "eager": "serve.enforce_eager=true: neither",
}
FEW: Final = (1, 2, 4, 8, 16, *range(32, 257, 32))  # vLLM captures 51, up to 512


@dataclass(frozen=True)
class Load:
    """Requests of one round: their number, and tokens in and out of each."""

    requests: int = 512
    tokens_in: int = 256
    tokens_out: int = 128

    def spread(self, adapters: Sequence[str]) -> list[Request]:
        """Return the requests, dealt out to the adapters in turn; to the base where there are none.

        The first request of every adapter is the same, so that replies can be told apart by the adapter alone.
        """
        names = list(adapters) or [""]
        same = tuple(3 + place % 200 for place in range(self.tokens_in))
        made = []
        for number in range(self.requests):
            prompt = same if number < len(names) else (3 + number % 400, *same[1:])
            made.append(Request(names[number % len(names)], prompt, self.tokens_out))
        return made


def load_of(call: Call) -> Load:
    """Return the call's load."""
    return Load(8, 8, 4) if call.short else Load()


def options_of(call: Call, folder: Path, **more: Any) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM`: made-up weights, no tokenizer, else as `pipeline.serve` starts the server."""
    load = load_of(call)
    options: dict[str, Any] = {
        "model": str(folder),
        "dtype": call.dtype,
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "max_model_len": load.tokens_in + load.tokens_out + 16,
        "max_num_seqs": 256,
        "enable_prefix_caching": False,  # prompts are alike here, and a cache would answer for the model
        "generation_config": "vllm",
        "enforce_eager": call.short,
    }
    if call.device.startswith("cuda"):
        options["gpu_memory_utilization"] = 0.85
    return options | more


def environment_of(call: Call) -> dict[str, str]:
    """Return what the engine's process needs in its environment beside the machine's."""
    return (
        {} if call.device.startswith("cuda") else {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    )


def rate(
    want: Wanted, engine: Engine, requests: Sequence[Request], adapters: int = 0, base: float = float("nan")
) -> Figure:
    """Return the tokens written a second, the median of `REPEATS` rounds after a warm-up round.

    Raises:
        RuntimeError: two adapters answered the same prompt alike: they are ignored, and the figure would mean nothing.
    """
    answers = [engine.generate(requests) for _ in range(REPEATS + 1)][1:]
    distinct = len(set(answers[0]["replies"][: max(1, adapters)]))
    if distinct < adapters:
        raise RuntimeError(f"{adapters} adapters gave {distinct} different replies to one prompt: some are ignored")
    seconds = [answer["seconds"] for answer in answers]
    rate = answers[0]["tokens"] / median(seconds)
    raw = {"seconds": seconds, "tokens": answers[0]["tokens"], "requests": len(requests), "start_s": engine.started_s}
    return Figure(want, rate, rate / base, raw=raw)


# --- (c)


def wanted_starts(shapes: Sequence[str]) -> list[Wanted]:
    return [_start(name, kind) for name in shapes for kind in STARTS]


def _start(name: str, kind: str) -> Wanted:
    return Wanted("c", f"{name}-{kind}", f"{name}: {STARTS[kind]}", "s", "of the warm start")


def starts(call: Call) -> Iterator[tuple[Wanted, Callable[[], Figure]]]:
    """Yield every figure of (c): from nothing to up, weights made up, so without reading them from a disk.

    One start before them is not counted: the first after an installation compiles Python's modules and reads libraries
    from the disk, whichever way it is of.
    """
    first = Once(partial(_first_start, call))
    for name in call.shapes:
        root = scratch(call, f"c-{name}")
        warm: list[float] = []
        for kind in STARTS:
            yield _start(name, kind), partial(_started, call, name, kind, root, first, warm)


def _first_start(call: Call) -> None:
    """Start an engine once; its caches are its own, so that the cold start still finds none."""
    root = scratch(call, "c-first")
    options = options_of(call, save_config(call.shape(call.shapes[0]), root / "model", call.dtype), enforce_eager=True)
    with Engine(options, root / "engine", environment=_with_caches(call, root)):
        pass


def _with_caches(call: Call, root: Path) -> dict[str, str]:
    """Return the environment of an engine that keeps what it compiles in `root`."""
    caches = {"VLLM_CACHE_ROOT": "vllm", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    return {**environment_of(call), **{key: str(root / name) for key, name in caches.items()}}


def _started(call: Call, name: str, kind: str, root: Path, first: Once[None], warm: list[float]) -> Figure:
    first()
    folder = save_config(call.shape(name), root / "model", call.dtype)
    few = {"compilation_config": {"cudagraph_capture_sizes": list(FEW)}} if kind == "graphs-few" else {}
    options = options_of(call, folder, enforce_eager=kind == "eager" or call.short, **few)
    with Engine(options, root / kind, environment=_with_caches(call, root)) as engine:
        figure = rate(_start(name, kind), engine, load_of(call).spread([]))
    if kind == "graphs-warm":
        warm.append(engine.started_s)
    of = warm[0] if warm else float("nan")  # the cold start comes first: its ratio is the reader's to take
    return Figure(
        figure.wanted, engine.started_s, engine.started_s / of, f"then {figure.value:,.0f} tokens/s", figure.raw
    )


# --- (f)


def wanted_sleep(shapes: Sequence[str]) -> list[Wanted]:
    return [want for name in shapes for want in _sleep(name)]


def _sleep(name: str) -> tuple[Wanted, Wanted, Wanted]:
    of = "of the engine's start"
    return (
        Wanted("f", f"{name}-sleep", f"{name}: sleep (level 1) and wake", "s", of),
        Wanted("f", f"{name}-start", f"{name}: another start, caches warm", "s"),
        Wanted("f", f"{name}-free", f"{name}: device memory free for training while it sleeps", "GiB", "of all"),
    )


def sleeping(call: Call) -> Iterator[tuple[Wanted, Callable[[], Figure]]]:
    """Yield every figure of (f): what training between two measurements costs, with and without sleep mode."""
    for name in call.shapes:
        slept = Once(partial(_slept, call, name))
        for want in _sleep(name):
            yield want, Shared(slept, itemgetter(want.key))


def slept_between(engine: Engine, load: Load, memory: Callable[[], tuple[int, int]]) -> tuple[float, int, int, float]:
    """Let the engine sleep once, after a round of work, and wake it.

    One request that is asked alone, before and after, tells whether it is the same engine still: in 16 bits a reply
    depends on the batch that it shares, and no two rounds share their batches alike.

    Returns:
        Seconds to fall asleep, the bytes that `memory` then gives as free and as all, seconds to wake.

    Raises:
        RuntimeError: it answers otherwise than before.
    """
    requests = load.spread([])
    engine.generate(requests)
    before = engine.generate(requests[:1])["replies"]
    asleep = engine.sleep()
    free, whole = memory()
    awake = engine.wake()
    if engine.generate(requests[:1])["replies"] != before:
        raise RuntimeError("the engine answers otherwise after its sleep: nothing was measured")
    return asleep, free, whole, awake


def _slept(call: Call, name: str) -> dict[str, Figure]:
    import torch

    if not call.device.startswith("cuda"):
        raise RuntimeError("vLLM's sleep mode needs a CUDA device")
    root, load = scratch(call, f"f-{name}"), load_of(call)
    folder = save_config(call.shape(name), root / "model", call.dtype)
    slept, started, memory = _sleep(name)
    options = options_of(call, folder, enable_sleep_mode=True)
    with Engine(options, root / "first"):
        pass  # fills the caches
    with Engine(options, root / "second") as engine:
        asleep, free, whole, awake = slept_between(engine, load, torch.cuda.mem_get_info)
        start = engine.started_s
    return {
        slept.key: Figure(slept, asleep + awake, (asleep + awake) / start, raw={"sleep_s": asleep, "wake_s": awake}),
        started.key: Figure(started, start),
        memory.key: Figure(memory, free / 2**30, free / whole),
    }
