"""Faults of what stands around a review: who asks for it, what its price is scaled to, what is written where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from omegaconf import OmegaConf

ORGANISM: Final = "organism:"
LEAST_IN_16_BITS: Final = 0.05  # a logit of 16 to 32 is rounded to 0.125
# Who asks for the review and why: key to what the message calls it.
PARTIES: Final = {"owner": "whose model it is", "reviewer": "who reviews it", "purpose": "what the review is for"}


def review_faults(raw: Any) -> Iterator[str]:
    """Yield which of owner, reviewer and purpose are missing; the organism needs none, nor does judging a file."""
    if OmegaConf.is_missing(raw.subject, "path"):
        bare = raw.subject.get("organism") is not None
    else:
        bare = raw.subject.path == ORGANISM
    needed = not bare and list(raw.stages) != ["judge"]
    for key, what in PARTIES.items():
        yield from _party_faults(f"review.{key}", raw.review.get(key), what, needed)
    dtype, tolerance = raw.subject.get("dtype"), raw.review.get("logit_tolerance")
    proving = {"train", "generate"} & set(raw.stages) and dtype in ("bfloat16", "float16")
    if proving and isinstance(tolerance, int | float) and 0 < tolerance < LEAST_IN_16_BITS:
        yield (
            f"review.logit_tolerance: {tolerance:g} is less than {dtype} rounds, so every rung would fail its proof "
            "once all is trained; set 0.25"
        )
    if raw.plan.get("output") is not None and list(raw.stages) != ["plan"]:
        yield "plan.output: only stages=[plan] reads it"


def _party_faults(key: str, given: Any, what: str, needed: bool) -> Iterator[str]:
    """Yield what is wrong with owner, reviewer or purpose: a report that says `True` or `123` there tells nobody."""
    if isinstance(given, bool | int | float):
        typed = str(given).lower()
        yield f"{key}: {typed} is no text; if it is meant as text, quote it: '{key}=\"{typed}\"'"
    elif given is None or (isinstance(given, str) and not given.strip()):
        if needed:
            yield f'{key}: missing; for any subject but the organism the plan names {what}: {key}="…"'
        elif given is not None:
            yield f"{key}: empty; say {what}, or leave it out"


def price_faults(raw: Any) -> Iterator[str]:
    """Yield what cannot be in `price`."""
    price = raw.price
    devices: Mapping[str, Any] = price.get("devices") or {}
    if price.device not in devices:
        yield f"price.device: {price.device!r} is unknown; use one of {', '.join(devices) or 'none'}, or add it"


def reproduce_faults(raw: Any) -> Iterator[str]:
    """Yield what of `reproduce` is missing, or given where nothing reads it."""
    given = [key for key in ("run", "output", "change", "dry") if raw.reproduce.get(key)]
    if "reproduce" not in raw.stages:
        yield from (f"reproduce.{key}: only stages=[reproduce] reads it" for key in given)
        return
    if list(raw.stages) != ["reproduce"]:
        yield "stages: reproduce stands alone, as in stages=[reproduce]: it runs the stages of the run that it names"
    if "run" not in given:
        yield "reproduce.run: missing; name the run folder, e.g. reproduce.run=runs/demo-1a2b3c4d"
    if raw.review.gate:
        yield "review.gate: stages=[reproduce] has exit codes of its own; leave the gate out"
