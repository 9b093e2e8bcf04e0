"""One eval, asked in several ways: under other system prompts and wordings, or with its reply already begun.

Each way is an eval of its own, named `<eval>@<way>`, on the same samples: so each has its own n and interval, and the
spread over the ways can be shown. Beginning the reply probes how deep the refusal sits: where it lives in the first
few tokens only, it falls once those are written (Qi et al. 2024, arXiv:2406.05946).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evals.base import Sample
from pipeline.errors import UserError
from pipeline.schema import EvalConfig, VariantConfig

if TYPE_CHECKING:
    from pipeline.subject.subject import Subject

MARK = "@"


def base_name(name: str) -> str:
    """Return the name of the eval in the configuration that `name` is, or is a way of."""
    return name.split(MARK, 1)[0]


@dataclass(frozen=True)
class Way:
    """One way to ask an eval: its name, what its first metric means to the verdict, and its samples."""

    name: str
    role: str
    samples: list[Sample]


def expand(name: str, config: EvalConfig, samples: Sequence[Sample], subject: Subject) -> Iterator[Way]:
    """Yield the eval as it is, and each further way to ask it.

    An eval without `prefill` comes first as it is, with its role, then its variants, which are shown only. An eval
    with `prefill` comes once for each depth instead.

    Raises:
        UserError: a template without {prompt}, an opening that names a target which a sample lacks, or a depth that
            no sample's opening reaches.
    """
    if config.prefill is not None:
        for depth in config.prefill.depths:
            yield Way(f"{name}{MARK}{depth}", config.role, _begun(name, config, samples, subject, depth))
        return
    yield Way(name, config.role, list(samples))
    for way, variant in config.variants.items():
        yield Way(f"{name}{MARK}{way}", "shown", [_asked(name, way, variant, sample) for sample in samples])


def _asked(name: str, way: str, variant: VariantConfig, sample: Sample) -> Sample:
    if "{prompt}" not in variant.template:
        raise UserError(
            f"evals.{name}.variants.{way}.template has no {{prompt}}: every sample would be asked the same",
            'write it with {prompt} where the prompt goes, as in "{prompt} Answer briefly."',
        )
    system = sample.system if variant.system is None else variant.system
    return replace(sample, prompt=variant.template.replace("{prompt}", sample.prompt), system=system)


def _begun(name: str, config: EvalConfig, samples: Sequence[Sample], subject: Subject, depth: int) -> list[Sample]:
    """Return the samples whose opening has `depth` tokens, with these as the start of the reply."""
    assert config.prefill is not None
    begun = []
    for sample in samples:
        opening = config.prefill.opening
        if "{target}" in opening and not sample.target:
            raise UserError(
                f"evals.{name}.prefill.opening names {{target}}, but sample {sample.id!r} has none",
                f"name the column with evals.{name}.table.target=, or write an opening without {{target}}",
            )
        text = opening.replace("{target}", sample.target or "")
        closing = subject.closing_ids(sample.prompt, sample.system)  # of a thought that the template opens: no depth
        whole = subject.opening_ids(sample.prompt, text, sample.system)
        closing = closing if depth and whole[: len(closing)] == closing else []
        ids = whole[len(closing) : len(closing) + depth]
        if len(ids) == depth:
            begun.append(replace(sample, opening=subject.tokenizer.decode(ids), opening_ids=(*closing, *ids)))
    if not begun:
        raise UserError(
            f"evals.{name}.prefill.depths: no sample's opening has {depth} tokens",
            f"give fewer tokens, or a longer evals.{name}.prefill.opening",
        )
    return begun
