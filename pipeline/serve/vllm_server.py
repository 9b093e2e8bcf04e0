"""Starts vLLM's own OpenAI-compatible server with the command line that it is given; the server itself is vLLM's.

Run as `python -P interpreter.py vllm_server.py OPTIONS`. On a CPU vLLM insists on spawning its engine's process, which
then imports everything a second time (8 of 21 s of a start, docs/LOG.md); here the engine is forked, as vLLM does on
other devices. At an architecture that it meets for the first time vLLM looks in a process that imports everything once
more, lest a GPU be touched; here there is none. Its multi-LoRA operator for a CPU is replaced too (`cpu_lora.py`),
experts get a CPU's kernels (`cpu_experts.py`), and an older vLLM opens no store to the network (`lone_worker.py`).

Started ahead of time (`launch.py`) it imports what the server and its engine need, and waits for its options.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

FORK = "HOLDFAST_FORK_ENGINE"  # set by `pipeline.serve.device` where no device is in use yet that a fork would break
LORA_BY_ADAPTER = "HOLDFAST_LORA_BY_ADAPTER"  # serve.cpu_lora_by_adapter, set on a CPU only
EXPERTS = "HOLDFAST_CPU_EXPERTS"  # set on a CPU only, where the model is a mixture of experts
AHEAD = "HOLDFAST_AHEAD"  # started ahead of time: the folder in which it is told what to do
READY, OPTIONS = "ready", "options"  # files there: it has imported; what it is told
POLL_S = 0.05

_MODULE = "vllm.entrypoints.openai.api_server"
_NEWER = "vllm.entrypoints.launchers.api_server.entry"  # from 0.29 on; 0.33 warns of the older
# What a start imports beside; a name that this vLLM lacks is left out. On a GPU its worker's modules are left to the
# engine's process: vLLM spawns it instead of forking, should any of them touch the device.
_ENGINE = ("vllm.v1.engine.async_llm", "vllm.v1.engine.core", "vllm.v1.executor")
_CPU_WORKER = ("vllm.v1.worker.cpu_worker", "vllm.v1.worker.cpu_model_runner", "vllm.lora.worker_manager")


def main() -> None:
    """Be the server."""
    if os.environ.get(FORK) == "1":
        import vllm.v1.engine.utils as engine

        if hasattr(engine, "get_mp_context"):  # else this vLLM starts its engine otherwise: left as it is
            engine.get_mp_context = lambda: multiprocessing.get_context("fork")

        from vllm.model_executor.models import registry

        if hasattr(registry, "_run_in_subprocess"):  # else likewise
            registry._run_in_subprocess = lambda look: look()

        from pipeline.serve import lone_worker

        lone_worker.install()
    if os.environ.get(LORA_BY_ADAPTER) == "1":
        from pipeline.serve import cpu_lora

        print("multi-LoRA operator:", "by adapter" if cpu_lora.install() else "vLLM's own", flush=True)
    if os.environ.get(EXPERTS) == "1":
        from pipeline.serve import cpu_experts

        print("experts' kernels:", "a CPU's" if cpu_experts.install() else "vLLM's choice", flush=True)
    entry = _entry()
    if place := os.environ.pop(AHEAD, None):
        import_all()
        sys.argv[1:] = _told(Path(place))
    if entry is None:
        runpy.run_module(_MODULE, run_name="__main__")
    else:
        entry.main()


def _entry() -> Any:
    """Return vLLM's server where this vLLM has it; None: in the older place, before 0.29 the only one."""
    try:
        return importlib.import_module(_NEWER)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("vllm.entrypoints"):
            raise  # it is there, and something else is missing
    return None


def import_all() -> None:
    """Import what a start imports, without touching a device."""
    server = () if _entry() else (_MODULE,)
    for name in (*server, *_ENGINE, *(_CPU_WORKER if os.environ.get(FORK) == "1" else ())):
        with contextlib.suppress(ImportError):  # what is amiss is told by the start
            importlib.import_module(name)


def _told(place: Path) -> list[str]:
    """Say that all is imported; wait for the options and return them.

    It looks for a file: a pipe would be left in the run folder by a kill, and stop whoever reads or copies that.
    """
    (place / READY).touch()
    while not (place / OPTIONS).exists():
        time.sleep(POLL_S)
    told = json.loads((place / OPTIONS).read_text(encoding="utf-8"))
    return [str(option) for option in told]


if __name__ in ("__main__", "__mp_main__"):  # vLLM's further servers are spawned, and answer chats too
    from pipeline.subject.chat_date import hold_still

    hold_still()

if __name__ == "__main__":  # a spawned engine imports this file, and must not be a server too
    main()
