"""Has vLLM imported while this process imports what trains, so that the server starts in half the time.

Only where this process trains and then serves. It takes a core and a gigabyte of main memory, and no device: that is
held, and counted, from the engine's start on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.schema import Config
from pipeline.serve.launch import Ahead
from pipeline.workspace import Workspace

LOG = "server.log"  # in the run's logs


def trains_and_serves(config: Config) -> bool:
    """Say whether a process with this configuration trains and then serves, which a cluster's jobs share out."""
    return {"train", "generate"} <= set(config.stages) and config.cluster.job is None


@contextmanager
def may_start(work: Workspace) -> Iterator[None]:
    """Let the server's process be started ahead, where this one trains and serves; end what nobody needed."""
    if trains_and_serves(work.config):
        work.ahead = Ahead(work.subject, work.config.serve, work.device, work.folder.logs / LOG)
    try:
        yield
    finally:
        if work.ahead is not None:
            work.ahead.end()
            work.ahead = None


def start(work: Workspace) -> None:
    """Start it, where it may be; call it once all that was to be refused is refused."""
    if work.ahead is not None:
        work.ahead.start()


def settle(work: Workspace) -> None:
    """Wait, on a CPU, until it has imported: it shares the cores with what is trained, whose seconds are a price."""
    if work.ahead is not None and work.device == "cpu":
        work.ahead.wait()
