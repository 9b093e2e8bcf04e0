"""Before training: does the engine start that is to serve what is about to be trained, and does it take its adapters?

What serving lacks is else found once all is trained: an architecture that this vLLM does not serve, or not with
adapters; a kernel that cannot be built; memory. So adapters of zeros are served with the subject, as many as the plan
has rungs and of its ranks and modules. Under each kind of them the subject has to answer as it does without. What it
costs stands in the ledger, as stage `rehearse`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from pipeline.budget import REHEARSE
from pipeline.contain.weights import destroy
from pipeline.errors import InstrumentError
from pipeline.files import digest
from pipeline.generate.ahead import trains_and_serves
from pipeline.generate.proof import WIDEST, difference
from pipeline.generate.stage import server_of
from pipeline.ledger import STARTING, Attempt
from pipeline.plan.make import tasks
from pipeline.serve.server import BASE_NAME, served_logprobs
from pipeline.subject.empty import without_weights
from pipeline.train.before import check_base
from pipeline.workspace import Workspace

ASKED: Final = 2  # canaries
LONG_S: Final = 1200.0  # of estimated training, from which a start of some two minutes is worth it


def rehearse(work: Workspace) -> None:
    """Serve adapters of zeros before anything is trained, where `serve.rehearse` says so; once a run.

    Raises:
        UserError: what is to be mended before anything is trained or served here.
        InstrumentError: the server does not start, or an adapter of zeros changes its answers.
    """
    if not _wanted(work):
        return
    check_base(work)
    folder = work.folder.private(REHEARSE)
    try:
        with work.ledger.attempt(REHEARSE) as attempt:
            attempt.detail = STARTING
            kinds = dict(_zeros(work, folder))
            seconds = _serve(work, kinds, attempt)
            attempt.detail = "served"
    except InstrumentError as error:
        raise InstrumentError(f"nothing was trained, since it could not be served (serve.rehearse): {error}") from None
    finally:
        destroy(folder)
    work.console.print(
        f"Rehearsed: the engine serves the subject with {len(kinds)} kind{'s' if len(kinds) > 1 else ''} of adapters "
        f"({seconds:,.0f} device-seconds)."
    )


def _wanted(work: Workspace) -> bool:
    """Say whether to rehearse: this process trains and serves, and has done nothing of either."""
    asked = work.config.serve.rehearse
    if not trains_and_serves(work.config) or not (_is_long(work) if asked is None else asked):
        return False
    return all(row["stage"] == REHEARSE and row["status"] != "done" for row in work.ledger.attempts())


def _is_long(work: Workspace) -> bool:
    """Say whether training is estimated to take longer than `LONG_S`, at the assumed FLOP/s."""
    estimate = work.plan["estimate"]
    return bool(estimate["training_flops"] > LONG_S * estimate["assumed_flops_per_second"])


def _zeros(work: Workspace, folder: Path) -> Iterator[tuple[str, Path]]:
    """Save an adapter of zeros for each kind that the plan has; yield its name and folder."""
    from pipeline.arms.lora import adapter_on

    kinds = {digest(asdict(arm.lora)): arm.lora for arm in work.config.arms.values()}
    for number, lora in enumerate(kinds[key] for key in sorted(kinds)):
        model = without_weights(work.subject)
        place = folder / str(number)
        _save_zeros(adapter_on(model, lora), place)
        yield f"{REHEARSE}-{number}", place


def _save_zeros(adapted: Any, place: Path) -> None:
    import torch

    zeros = {
        name: torch.zeros(weight.shape, dtype=weight.dtype)
        for name, weight in adapted.state_dict().items()
        if "lora_" in name
    }
    adapted.save_pretrained(place, state_dict=zeros, save_embedding_layers=False)


def _serve(work: Workspace, kinds: Mapping[str, Path], attempt: Attempt) -> float:
    """Start the engine as `generate` will and ask it; return the device-seconds until it was asked."""
    adapters = dict(kinds)
    rungs = sum(len(task.rungs) for task in tasks(work.config))
    for number, place in zip(range(len(kinds), rungs), cycle(kinds.values()), strict=False):
        adapters[f"{REHEARSE}-{number}"] = place  # as much host memory, and as many slots on the device
    tolerance = work.config.review.logit_tolerance
    with server_of(work, adapters, work.config.arms, "rehearsal.log", attempt) as server:
        attempt.detail = ""
        prompts = work.canaries.prompts[:ASKED]
        with server.client() as client:
            base = served_logprobs(client, BASE_NAME, prompts)
            for name in kinds:
                off = difference(base, served_logprobs(client, name, prompts))
                if not off <= WIDEST * tolerance:
                    raise InstrumentError(
                        "under an adapter of zeros the served subject answers otherwise than without (a "
                        f"log-probability is off by {off:.3g}, review.logit_tolerance={tolerance:g})"
                    )
        return attempt.device_seconds()
