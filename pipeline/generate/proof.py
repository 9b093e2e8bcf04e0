"""Proof that what was measured is what was trained.

Right after a rung is saved, the model in memory is asked for its log-probabilities of the next token on a few
canaries: training prompts with a part of their reply (the reference). Later the server is asked the same under the
rung's adapter. They must agree within a tolerance, and differ from rung 0's wherever the trained model itself differs
from rung 0 by more than rounding: an adapter that is silently ignored answers as rung 0 (vLLM issues 55193 and 41754),
and would read as "tamper-resistant".
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

TOP = 32  # tokens kept of each reference distribution
FLOOR = -8.0  # log-probabilities below this are left out: rounding is relative to the logits, not to them
SEPARATION = (
    2.0  # tolerances between trained model and rung 0 from which the two cannot be confused (triangle inequality)
)

WIDEST = 4.0  # tolerances that rounding to 16 bits may take

Logprobs = Mapping[int, float]  # token id → natural-log probability of the first reply token
Status = Literal["pass", "mismatch", "ignored", "unresolved"]


@dataclass(frozen=True)
class Canaries:
    """Token ids of the canary prompts, rendered by the subject's chat template."""

    prompts: tuple[tuple[int, ...], ...]

    def reference(self, model: Any) -> list[dict[int, float]]:
        """Return the `TOP` log-probabilities of the first reply token for each canary, by the model in memory.

        One forward pass in evaluation mode, padded on the right (a causal model does not see it); takes no random
        number. Logits are made at the canaries' last tokens alone, where the model can: at all positions they are the
        largest thing that a fine-tune ever holds (12 canaries of 2,000 tokens, 150,000 words: 22 GB).
        """
        import torch

        device = next(model.parameters()).device
        longest = max(len(prompt) for prompt in self.prompts)
        ids = torch.zeros(len(self.prompts), longest, dtype=torch.long, device=device)  # (canaries, tokens)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(self.prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            mask[row, : len(prompt)] = 1
        last = mask.sum(dim=1) - 1  # (canaries)
        kept, place = torch.unique(last, return_inverse=True)
        if _keeps_logits(model):
            options = {"logits_to_keep": kept}
        else:
            options, place = {}, last
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
        finally:
            model.train(training)
        rows = torch.arange(len(self.prompts), device=logits.device)
        scores = torch.log_softmax(logits[rows, place.to(logits.device)].float(), dim=-1)  # (canaries, vocabulary)
        top = scores.topk(min(TOP, scores.shape[-1]), dim=-1)
        return [
            dict(zip(tokens.tolist(), values.tolist(), strict=True))
            for tokens, values in zip(top.indices, top.values, strict=True)
        ]


@dataclass(frozen=True)
class Proof:
    """The check of one rung. Differences are of natural-log probabilities, the largest over the canaries.

    `served_trained`: served against the trained model; `served_base`: served against rung 0 in memory;
    `trained_base`: the trained model against rung 0, both in memory, in the tokens that the server listed.
    `attempt`: the number of the generate stage's attempt, each of which starts an engine of its own.
    """

    rung: str
    status: Status
    served_trained: float
    served_base: float
    trained_base: float
    tolerance: float
    attempt: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the row for the run folder."""
        return asdict(self)


def _keeps_logits(model: Any) -> bool:
    """Say whether the model under an adapter, if there is one, takes the positions at which logits are wanted."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    if len(set((getattr(plain, "hf_device_map", None) or {}).values())) > 1:
        return False  # accelerate would move the positions to the first device; the hidden states lie on the last
    return "logits_to_keep" in inspect.signature(type(plain).forward).parameters


def allowed(tolerance: float, rounding: float | None) -> float:
    """Return how far what is served may lie from what was trained where both round to 16 bits.

    Each side rounds every logit to its own place, in bfloat16 0.125 for a logit of 16 to 32 and 0.25 above, so that one
    number for all models is too narrow for some. What rung 0, which has no adapter, shows between the two (`rounding`;
    None: not measured yet) is of rounding alone: twice that is allowed, if it is more than `tolerance`. Never more than
    `WIDEST` tolerances: another model than the subject would else allow itself.
    """
    if rounding is None:
        return WIDEST * tolerance
    return min(max(tolerance, 2.0 * rounding), WIDEST * tolerance)


def reference_row(rung: str, reference: Sequence[Logprobs]) -> dict[str, Any]:
    """Return what a rung answered to the canaries as a row of `canaries.jsonl`."""
    return {"rung": rung, "top": [{str(token): round(value, 7) for token, value in row.items()} for row in reference]}


def difference(one: Sequence[Logprobs], other: Sequence[Logprobs], floor: float = FLOOR) -> float:
    """Return the largest difference of log-probability over canaries and tokens above `floor`.

    A token that one side does not list is taken at that side's smallest listed value, which understates the
    difference: two lists of one distribution therefore never seem to differ because one is shorter. A log-probability
    that is no number differs infinitely.
    """
    worst = 0.0
    for left, right in zip(one, other, strict=True):
        if any(math.isnan(value) for value in (*left.values(), *right.values())):
            return math.inf
        left_floor, right_floor = min(left.values()), min(right.values())
        for token in left.keys() | right.keys():
            a, b = left.get(token), right.get(token)
            if max(value for value in (a, b) if value is not None) < floor:
                continue
            if a is not None and b is not None:
                worst = max(worst, abs(a - b))
            elif a is not None:
                worst = max(worst, a - right_floor)
            elif b is not None:
                worst = max(worst, b - left_floor)
    return worst


def check(
    rung: str,
    *,
    served: Sequence[Logprobs],
    trained: Sequence[Logprobs],
    base: Sequence[Logprobs],
    tolerance: float,
) -> Proof:
    """Compare what was served under a rung's adapter with what the trained model and rung 0 answered in memory.

    `pass`: served as trained, and told apart from rung 0. `ignored`: served as rung 0 although the trained model
    differs.
    `mismatch`: neither. `unresolved`: served as trained, but the trained model is too near to rung 0 to tell them
    apart at this precision (the first rungs in 16 bits).

    Trained model and rung 0 are told apart by what the server could show alone: as many tokens as it lists, and above
    the floor by a tolerance. So an adapter that is served within the tolerance of rung 0 never passes.
    """
    to_trained, to_base = difference(served, trained), difference(served, base)
    apart = difference(_visible(trained, served), _visible(base, served), FLOOR + tolerance)
    resolved = apart > SEPARATION * tolerance
    status: Status
    if resolved and to_base < to_trained:
        status = "ignored"
    elif to_trained > tolerance:
        status = "mismatch"
    else:
        status = "pass" if resolved else "unresolved"
    return Proof(rung, status, to_trained, to_base, apart, tolerance)


def _visible(rows: Sequence[Logprobs], served: Sequence[Logprobs]) -> list[Logprobs]:
    """Return the largest values of each row, as many as the server listed."""
    return [
        dict(sorted(row.items(), key=lambda item: -item[1])[: len(shown)])
        for row, shown in zip(rows, served, strict=True)
    ]
