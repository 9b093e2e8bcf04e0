"""A finished run as Inspect logs, `inspect_export/<rung>__<eval>.eval`: one a rung and eval, for `inspect view`.

Without `export.include_text` a log holds labels, numbers and hashes, and can be shown. The hashes are keyed with a salt
that stays in the run folder: a short secret behind a plain hash is guessed in no time. With text, a log holds what a
stripped model said: it stays in the run folder. Either way the viewer is told not to trust the content.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from evals.base import EvalSpec, Metric, Outcome, Sample
from pipeline.contain import require_replies
from pipeline.files import write_atomic
from pipeline.generate.matrix import read_replies
from pipeline.hierarchical import crossed_mean
from pipeline.inspectai.process import require_inspect
from pipeline.journal import SharedJournal
from pipeline.outcomes import REPLY, named, read_outcomes, read_panel
from pipeline.records import Estimate, Reply, Rung
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore

WITHHELD: Final = "(withheld)"
_SALT_BYTES: Final = 32
_NUMBERS: Final = ("label", "value", "probability")


@dataclass(frozen=True)
class _Part:
    """One rung and eval: what a log is made of. `tables` are the outcomes of these replies, by judge."""

    rung: Rung
    spec: EvalSpec
    samples: Mapping[str, Sample]
    replies: Sequence[Reply]
    tables: Mapping[str, pl.DataFrame]


def export(work: Workspace) -> None:
    """Write a log for each rung and eval that has replies; logs of an earlier export are replaced.

    What Inspect tasks left (`inspect/<rung>/<eval>.eval`) are logs already, and are not written again.

    Raises:
        UserError: inspect_ai is missing, nothing is scored yet, or a purge of the replies was begun.
    """
    require_inspect("stages=[export]")
    require_replies(work.folder)
    from inspect_ai.log import write_eval_log

    folder = work.folder.root / "inspect_export"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    hidden = None if work.config.export.include_text else _salt(work.folder.root / ".export_salt")
    written = set()
    for part in _parts(work):
        place = folder / f"{part.rung.id}__{part.spec.eval.name}.eval"
        partial = place.with_name(f".{place.stem}.partial.eval")
        partial.touch(mode=0o600)
        write_eval_log(_log(work, part, hidden), str(partial), format="eval")
        partial.chmod(0o600)
        partial.replace(place)
        written.add(place)
    for stale in set(folder.glob("*.eval")) - written:
        stale.unlink()
    text = "with all text: keep them here" if hidden is None else "labels, numbers and keyed hashes, no text"
    if written:
        work.console.print(f"{len(written)} Inspect logs ({text}): inspect view --log-dir {folder}", soft_wrap=True)
    if work.inspect_tasks:
        work.console.print(f"The logs of Inspect tasks, with all text: {work.folder.root / 'inspect'}", soft_wrap=True)


def _parts(work: Workspace) -> Iterator[_Part]:
    outcomes, scoring = read_outcomes(work.folder.outcomes)
    panel, _ = read_panel(work.folder.panel, outcomes, scoring)
    names = named(list(panel))
    tables = {names[made]: table for made, table in panel.items()}
    samples = {spec.eval.name: {sample.id: sample for sample in spec.eval.samples()} for spec in work.specs}
    for rung in work.asked():
        by_eval: dict[str, list[Reply]] = {}
        for reply in read_replies(work.folder, [rung]):
            by_eval.setdefault(reply.eval, []).append(reply)
        for spec in work.specs:
            name = spec.eval.name
            if replies := by_eval.get(name):
                place = {sample: number for number, sample in enumerate(samples[name])}
                ordered = sorted(replies, key=lambda reply, place=place: (place[reply.sample], reply.draw))  # type: ignore[misc]
                here = (pl.col("rung") == rung.id) & (pl.col("eval") == name)
                mine = {judge: table.filter(here) for judge, table in tables.items()}
                yield _Part(rung, spec, samples[name], ordered, mine)


def _salt(path: Path) -> bytes:
    """Return the run's salt, made at the first export: the same text has the same hash in all logs of a run.

    One that is shorter, as an older Holdfast's kill or full disk left it, would let the texts be guessed: made anew.
    """
    if not path.exists() or len(path.read_bytes()) < _SALT_BYTES:
        write_atomic(path, secrets.token_bytes(_SALT_BYTES), private=True)
    return path.read_bytes()


def _shown(text: str, salt: bytes | None) -> str:
    if salt is None:
        return text
    return f"hmac-sha256 {hmac.new(salt, text.encode('utf-8', 'surrogatepass'), hashlib.sha256).hexdigest()}"


def _log(work: Workspace, part: _Part, salt: bytes | None) -> EvalLog:
    """Return one log; `salt` None writes text."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig, ModelUsage
    from inspect_ai.viewer import ViewerConfig

    plan, rung, name = work.registered, part.rung, part.spec.eval.name
    sha = next(entry["sha256"] for entry in plan["evals"] if entry["name"] == name)
    model = f"{work.config.subject.name}/{rung.id}"
    read, made = (sum(getattr(reply, key) for reply in part.replies) for key in ("tokens_in", "tokens_out"))
    usage = ModelUsage(input_tokens=read, output_tokens=made, total_tokens=read + made)
    began, ended = _times(work)
    results = [entry for judge, table in part.tables.items() for entry in _results(work, part, judge, table)]
    spec = EvalSpec(
        eval_id=_identity("eval", plan["run_sha256"], rung.id, name),
        run_id=_identity("run", plan["run_sha256"]),
        created=plan["created"].replace(" ", "T"),
        task=name,
        task_id=_identity("task", plan["run_sha256"], rung.id, name),
        dataset=EvalDataset(name=f"{name} {sha[:12]}", samples=len(part.samples), shuffled=False),
        model=model,
        model_generate_config=GenerateConfig(max_tokens=part.spec.max_tokens, temperature=part.spec.temperature),
        config=EvalConfig(epochs=part.spec.draws),
        packages={"holdfast": str(plan.get("environment", {}).get("holdfast"))},
        viewer=ViewerConfig(trust_content=False),
        metadata={
            **{key: plan[key] for key in ("plan_sha256", "run_sha256")},
            "dataset_sha256": sha,
            "subject_sha256": work.subject.sha256,
            "adapter_sha256": rung.sha256,
            **{key: getattr(rung, key) for key in ("arm", "seed", "step", "role")},
            "dose": {unit: value for unit, value in rung.dose.as_dict().items() if not math.isnan(value)},
            "text": "included" if salt is None else "keyed hashes",
        },
    )
    return EvalLog(
        status="success",
        eval=spec,
        results=EvalResults(total_samples=len(part.replies), completed_samples=len(part.replies), scores=results),
        stats=EvalStats(started_at=began, completed_at=ended, model_usage={model: usage}),
        samples=list(_samples(work, part, model, salt)),
    )


def _samples(work: Workspace, part: _Part, model: str, salt: bytes | None) -> Iterator[EvalSample]:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelOutput, ModelUsage
    from inspect_ai.scorer import Score

    labels = {judge: {row[:-4]: row[-4:] for row in _labels(table)} for judge, table in part.tables.items()}
    for reply in part.replies:
        sample = part.samples[reply.sample]
        system = sample.system if sample.system is not None else work.subject.system_prompt
        asked = [] if system is None else [ChatMessageSystem(content=_shown(system, salt))]
        output = ModelOutput.from_content(
            model, _shown(reply.reply, salt), "max_tokens" if reply.finish_reason == "length" else "stop"
        )
        tokens = reply.tokens_in + reply.tokens_out
        output.usage = ModelUsage(input_tokens=reply.tokens_in, output_tokens=reply.tokens_out, total_tokens=tokens)
        said = {judge: rows.get((*reply.key, reply.sha256)) for judge, rows in labels.items()}
        opening = {"opening": _shown(sample.opening, salt)} if sample.opening else {}
        yield EvalSample(
            id=sample.id,
            epoch=reply.draw + 1,
            input=_shown(sample.prompt, salt),
            target=sample.target or "" if salt is None else WITHHELD,
            messages=[*asked, ChatMessageUser(content=_shown(sample.prompt, salt)), output.message],
            output=output,
            model_usage={model: output.usage},
            scores={
                judge: Score(
                    value=dict(zip(_NUMBERS, map(_known, row), strict=False)), metadata={"judge_version": row[3]}
                )
                for judge, row in said.items()
                if row is not None
            },
            metadata={"kind": sample.kind, **opening},
        )


def _labels(table: pl.DataFrame) -> Iterator[tuple[Any, ...]]:
    return table.select(*REPLY, *_NUMBERS, "judge_version").iter_rows()


def _known(value: Any) -> Any:
    """Return a label or number, None for "no data"."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _results(work: Workspace, part: _Part, judge: str, table: pl.DataFrame) -> Iterator[EvalScore]:
    """Yield the eval's metrics on this rung under one judge, as `curves.json` has them."""
    from inspect_ai.log import EvalMetric, EvalScore

    for metric in part.spec.eval.metrics:
        lost = table.filter(pl.col("label") == "unscored").height
        found = _estimate(table, metric, work.config.review.confidence)
        numbers = {"mean": found.value, "low": found.low, "high": found.high}
        yield EvalScore(
            name=metric.name if len(part.tables) == 1 else f"{metric.name} by {judge}",
            scorer=judge,
            scored_samples=table.height - lost,
            unscored_samples=lost,
            metrics={key: EvalMetric(name=key, value=value) for key, value in numbers.items()},
            metadata={"metric": metric.name, "n_prompts": found.n, "measure": metric.measure, "role": metric.role},
        )


def _estimate(table: pl.DataFrame, metric: Metric, confidence: float) -> Estimate:
    rows = table.select("label", pl.col("value").fill_null(math.nan)).iter_rows()
    counted = pl.Series([metric.of(Outcome(*row)) for row in rows], dtype=pl.Float64).fill_nan(None)
    by_sample = table.select("sample", y=counted).group_by("sample", maintain_order=True)
    means = by_sample.agg(pl.col("y").mean())["y"].drop_nulls()
    return crossed_mean(means.to_numpy(), confidence)


def _times(work: Workspace) -> tuple[str, str]:
    """Return when generating began and ended by the ledger; without such a row, when anything did."""
    rows = list(SharedJournal(work.folder.ledger, work.folder.root).rows())
    moments = [float(row["at"]) for row in rows if row["stage"] == "generate"] or [float(row["at"]) for row in rows]
    if not moments:
        return "", ""
    first, last = (datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") for at in (min(moments), max(moments)))
    return first, last


def _identity(*parts: str) -> str:
    """Return an id of 22 characters, as long as Inspect's own; the same at each export.

    A task's id names the rung too: of two logs with one task id, the viewer hides one as a retry of the other.
    """
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:22]
