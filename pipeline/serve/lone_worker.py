"""Lets an engine of one worker on a CPU meet itself by a file, as vLLM does from 0.28 or 0.29 on.

An older one opens torch's store for it, which listens at every address of the machine, whatever vLLM is told, and asks
for no key. Installed by `vllm_server.py` in the server's process only.
"""

from __future__ import annotations

import os
import tempfile
from uuid import uuid4

from pipeline.serve.replaced import has, replace

EXECUTOR = "vllm.v1.executor.uniproc_executor"
OWN = "get_file_store_init_method"  # where this vLLM meets by a file itself
ADDRESS = "get_distributed_init_method"


def install() -> bool:
    """Name a file of its own for each engine instead of an address; False where there is no need."""
    needed = not has(EXECUTOR, OWN)
    return needed and replace(EXECUTOR, ADDRESS, lambda _: _file)


def _file(*_: object) -> str:
    # Where vLLM's sockets are, which the server's owner removes; torch leaves the file when its process is ended.
    return f"file://{os.environ.get('VLLM_RPC_BASE_PATH') or tempfile.gettempdir()}/holdfast_engine_{uuid4().hex}"
