"""Starts vLLM's own OpenAI-compatible server with the command line that it is given; the server itself is vLLM's.

Run as `python -P interpreter.py vllm_server.py OPTIONS`. On a CPU vLLM insists on spawning its engine's process, which
then imports everything a second time (8 of 21 s of a start, docs/LOG.md); here the engine is forked, as vLLM does on
other devices. At an architecture that it meets for the first time vLLM looks in a process that imports everything once
more, lest a GPU be touched; here there is none. Its multi-LoRA operator for a CPU is replaced too (`cpu_lora.py`),
experts get a CPU's kernels (`cpu_experts.py`), and an older vLLM opens no store to the network (`lone_worker.py`).
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy

FORK = "HOLDFAST_FORK_ENGINE"  # set by `pipeline.serve.device` where no device is in use yet that a fork would break
LORA_BY_ADAPTER = "HOLDFAST_LORA_BY_ADAPTER"  # serve.cpu_lora_by_adapter, set on a CPU only
EXPERTS = "HOLDFAST_CPU_EXPERTS"  # set on a CPU only, where the model is a mixture of experts


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
    _serve()


def _serve() -> None:
    """Run vLLM's server where this vLLM has it: 0.33 warns of the older place, before 0.29 there was no other."""
    try:
        entry = importlib.import_module("vllm.entrypoints.launchers.api_server.entry")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("vllm.entrypoints"):
            raise  # it is there, and something else is missing
        runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
    else:
        entry.main()


if __name__ in ("__main__", "__mp_main__"):  # vLLM's further servers are spawned, and answer chats too
    from pipeline.subject.chat_date import hold_still

    hold_still()

if __name__ == "__main__":  # a spawned engine imports this file, and must not be a server too
    main()
