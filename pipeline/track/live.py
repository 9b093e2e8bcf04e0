"""The tracker's live curves: a rung's metrics as soon as its last reply is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evals.base import EvalSpec
from evals.reasoning import parse_tags
from pipeline.generate.matrix import read_replies
from pipeline.judge.judging import EndpointJudge
from pipeline.records import Reply, Rung
from pipeline.track.tracker import Tracker
from pipeline.workspace import Workspace


class LiveCurves:
    """Scores a rung as soon as its last reply is there, for the tracker alone; the score stage does it in earnest."""

    def __init__(self, work: Workspace, tracker: Tracker, rungs: Sequence[Rung], cells_a_rung: int) -> None:
        # A judge behind an endpoint is asked once, by the score stage: not while this server has the device.
        self.cheap = not isinstance(work.judge, EndpointJudge)
        self.specs: Mapping[str, EvalSpec] = {spec.eval.name: spec for spec in work.specs}
        self.samples = {spec.eval.name: {s.id: s for s in spec.eval.samples()} for spec in work.specs}
        self.rungs = {rung.id: rung for rung in rungs}
        self.opened = work.subject.opened(parse_tags(work.config.judge.reasoning))  # by the chat template
        self.needed = cells_a_rung
        self.report: Callable[..., None] = tracker.rung
        self.waiting: dict[str, list[Reply]] = {}
        for reply in read_replies(work.folder, rungs):
            self.waiting.setdefault(reply.rung, []).append(reply)
        self.waiting = {name: replies for name, replies in self.waiting.items() if len(replies) < cells_a_rung}

    def add(self, replies: Sequence[Reply]) -> None:
        """Take new replies of one rung; report the rung's metrics once all are there."""
        if not self.cheap:
            return
        name = replies[0].rung
        there = self.waiting.setdefault(name, [])
        there += replies
        rung = self.rungs[name]
        if len(there) < self.needed or rung.role != "rung":
            return
        values: dict[str, float] = {}
        for spec in self.specs.values():
            mine = [reply for reply in there if reply.eval == spec.eval.name]
            samples = [self.samples[reply.eval][reply.sample] for reply in mine]
            texts = [self.opened + s.opening + reply.reply for s, reply in zip(samples, mine, strict=True)]
            outcomes = spec.eval.score_batch(list(zip(samples, texts, strict=True)))
            for metric in spec.eval.metrics:
                mean, n = metric.mean(outcomes)
                if n:
                    values[metric.name] = mean
        self.report(rung.arm, rung.seed, rung.dose, values)
        del self.waiting[name]
