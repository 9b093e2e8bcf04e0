"""What a process that trains sets up first, and gives back at the end."""

from __future__ import annotations

import atexit
import gc
import os
import warnings

from pipeline.subject.subject import TINY


def prepare_process(parameters: int, device: str, threads: int | None = None) -> None:
    """Set this process up for many short fine-tunes; call it once the subject is loaded.

    - Threads: the configured number of torch's CPU threads, or one for a tiny model. Its operators are too short to
      share: a second thread mostly waits, and where other work runs beside it the waiting costs many times the work
      (docs/LOG.md, 2026-11-21).
    - Garbage: what is alive now stays alive, and need not be walked again. Accelerate collects at the start of every
      training, which took a tenth of the demo's fine-tune.
    - Libraries: no bars and notices of their own; no question to the hub at each save.

    Args:
        parameters: of the subject.
        device: cpu or cuda.
        threads: torch's CPU threads; None: the choice above.
    """
    import torch

    if threads is None and device == "cpu" and parameters < TINY:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    quiet_libraries()
    gc.collect()
    gc.freeze()
    # Frozen objects are never collected, and libraries written in C++ complain of them when the process ends.
    atexit.register(gc.unfreeze)


def release(device: str) -> None:
    """Give the device's memory back once the model is no longer used; call it when no name holds the model any more.

    A frozen object in a cycle of references (a model is one) is never collected, and torch keeps what was freed for
    itself: vLLM, in a process of its own, would find the device full.
    """
    gc.unfreeze()
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


def quiet_libraries() -> None:
    """Keep the libraries' own bars and notices off the screen; faults still raise."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # Of PEFT's own use of an older name, at each adapter; no matter to who runs a review.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
