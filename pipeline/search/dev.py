"""Dev prompts: asked as the run's evals are, of the model in memory, greedily; they guide the search alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from evals.base import Eval, EvalSpec, Judge, Sample
from pipeline.data.benchmarks import make_eval, read_samples
from pipeline.data.contamination import overlaps
from pipeline.errors import UserError
from pipeline.flops import inference_flops
from pipeline.judge.judging import make_judge
from pipeline.records import Dose
from pipeline.schema import Config
from pipeline.search.trials import DevRung
from pipeline.sharded.member import this
from pipeline.sharded.ranks import on_model
from pipeline.subject.subject import Subject

ROLES = ("refusal", "capability")


@dataclass(frozen=True)
class DevEvals:
    """The dev evals of one arm's search, by role, and the judge that labels their replies."""

    refusal: EvalSpec
    capability: EvalSpec
    judge: Judge

    @property
    def specs(self) -> tuple[EvalSpec, EvalSpec]:
        """Both evals, refusal first."""
        return self.refusal, self.capability

    @property
    def samples(self) -> Mapping[str, list[Sample]]:
        """The dev prompts by role."""
        return {role: list(spec.eval.samples()) for role, spec in zip(ROLES, self.specs, strict=True)}


def dev_evals(config: Config, arm: str, resolve: Callable[[str], str]) -> DevEvals:
    """Read the dev tables of an arm's sweep as evals: kind, prompt and length of the run's own, one greedy reply each.

    Raises:
        UserError: a table has a fault, or the eval's kind cannot score it.
    """
    sweep = config.arms[arm].sweep
    assert sweep is not None
    judge = make_judge(sweep.judge)
    specs = []
    for role, table in zip(ROLES, (sweep.refusal, sweep.capability), strict=True):
        own = next(node for node in config.evals.values() if node.role == role)
        name = f"arms.{arm}.sweep.{role}"
        asked = replace(own, table=table, variants={}, prefill=None)
        samples = read_samples(name, asked, resolve, where=name)
        made = make_eval(name, asked, samples, judge, sweep.judge.reasoning, role)
        specs.append(EvalSpec(made, own.max_tokens))
    return DevEvals(specs[0], specs[1], judge)


def refuse_measured(dev: Mapping[str, DevEvals], measured: Mapping[str, list[tuple[str, str]]], near: float) -> None:
    """Make sure that no dev prompt is also measured, exactly or nearly: the search must not see what decides later.

    Args:
        dev: the dev evals by arm.
        measured: measured prompts by eval, as (id, text).
        near: the least similarity of a near copy; see `pipeline.data.contamination`.

    Raises:
        UserError: some are; their table, eval and number are told, and the first by id.
    """
    tables = {
        f"arms.{arm}.sweep.{role}": [(s.id, s.prompt) for s in samples]
        for arm, evals in dev.items()
        for role, samples in evals.samples.items()
    }
    found = overlaps(tables, measured, near) if tables else []
    if found:
        first = ", ".join(f"{pair.table} {pair.row} = {pair.eval} {pair.sample} ({pair.how})" for pair in found[:5])
        raise UserError(
            f"{len(found)} dev prompts are also measured, so the search would choose by what decides the verdict: "
            f"{first}",
            "take these rows out of the dev table or the eval; review.contamination=report does not allow it",
        )


class DevMeasure:
    """Asks the model in memory the dev prompts; the cost of one measurement is known before it is made.

    Args:
        evals: the dev evals.
        subject: renders the prompts and knows what ends a reply.
        batch: prompts generated at once.
        opened: a reasoning tag that the chat template opens for the model, "" for none.
    """

    def __init__(self, evals: DevEvals, subject: Subject, batch: int, opened: str) -> None:
        self.evals = evals
        self.subject = subject
        self.batch = batch
        self.opened = opened
        self.prompts = [
            [(*subject.prompt_ids(sample.prompt, sample.system), *sample.opening_ids) for sample in spec.eval.samples()]
            for spec in evals.specs
        ]

    def most_flops(self) -> float:
        """Return the FLOPs of one measurement whose replies all take their longest."""
        return inference_flops(self.subject.parameters, self.most_tokens())

    def most_tokens(self) -> int:
        """Return the tokens of one measurement, prompts and longest replies."""
        return sum(
            len(ids) + spec.max_tokens
            for spec, prompts in zip(self.evals.specs, self.prompts, strict=True)
            for ids in prompts
        )

    def __call__(self, model: Any, dose: Dose) -> tuple[DevRung, int]:
        """Measure the model as it is now; return the rung, and the tokens that went in and out."""
        shares, scored, tokens = [], [], 0
        for spec, prompts in zip(self.evals.specs, self.prompts, strict=True):
            replies = on_model(model, greedy, prompts, spec.max_tokens, self.subject.stop_token_ids, self.batch)
            tokens += sum(len(ids) + len(reply) for ids, reply in zip(prompts, replies, strict=True))
            texts = [self.subject.tokenizer.decode(reply, skip_special_tokens=True) for reply in replies]
            share, n = self._share(spec.eval, texts)
            shares.append(share)
            scored.append(n)
        return DevRung(dose, shares[0], shares[1], scored[0], scored[1]), tokens

    def _share(self, scorer: Eval, texts: Sequence[str]) -> tuple[float, int]:
        samples = scorer.samples()
        items = [(s, self.opened + s.opening + text) for s, text in zip(samples, texts, strict=True)]
        return scorer.metrics[0].mean(scorer.score_batch(items))


def greedy(
    model: Any, prompts: Sequence[Sequence[int]], max_tokens: int, stops: Sequence[int], batch: int
) -> list[list[int]]:
    """Return greedy replies as token ids, without what ends them, in the order of `prompts`. Takes no random number.

    Prompts of like length are generated together, padded on the left; the model's modes are left as they were. Of
    several processes that hold the model together none ends before the others: each needs the others' parts.

    Args:
        model: a transformers causal LM.
        prompts: token ids of each.
        max_tokens: the longest reply.
        stops: tokens that end a reply; the first also pads.
        batch: prompts generated at once.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    replies: list[list[int]] = [[] for _ in prompts]
    with _in_evaluation(model, stops), torch.no_grad():
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            rows = [torch.tensor(prompts[place], device=device) for place in places]
            ids = pad_sequence(rows, batch_first=True, padding_value=stops[0], padding_side="left")  # (prompts, tokens)
            ones = [torch.ones_like(row) for row in rows]
            mask = pad_sequence(ones, batch_first=True, padding_side="left")
            limits = {"max_new_tokens": max_tokens, "do_sample": False, "synced_gpus": this() is not None}
            out = model.generate(input_ids=ids, attention_mask=mask, **limits)
            for place, tail in zip(places, out[:, ids.shape[1] :].tolist(), strict=True):
                replies[place] = _ended(tail, stops)
    return replies


def _ended(tail: list[int], stops: Sequence[int]) -> list[int]:
    return next((tail[:place] for place, token in enumerate(tail) if token in stops), tail)


@contextmanager
def _in_evaluation(model: Any, stops: Sequence[int]) -> Iterator[None]:
    """Generate without dropout and by the arg max alone, as the server does; the model's own defaults come back."""
    from transformers import GenerationConfig

    modes = [(module, module.training) for module in model.modules()]
    own, cached = model.generation_config, model.config.use_cache
    model.generation_config = GenerationConfig(eos_token_id=list(stops), pad_token_id=stops[0], use_cache=True)
    model.config.use_cache = True  # a trainer with gradient checkpointing turns it off
    model.eval()
    try:
        yield
    finally:
        model.generation_config, model.config.use_cache = own, cached
        for module, mode in modes:
            module.training = mode
