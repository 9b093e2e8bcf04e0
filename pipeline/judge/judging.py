"""From the configuration of a judge to the judge: a language model gets its endpoint and cache, the rest is pure."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from evals.base import Judge, Judgement
from evals.judges import JUDGES
from pipeline.errors import UserError
from pipeline.schema import JudgeConfig, ServeConfig

if TYPE_CHECKING:  # what an endpoint needs must not slow down a command that asks none
    from evals.judges.llm import Ask, LlmJudge
    from evals.judges.llm_read import Verdict
    from pipeline.judge.cache import VerdictCache
    from pipeline.judge.server import Hold

LLM = "llm"


class EndpointJudge:
    """A language model as judge: verdicts that are known are taken from the cache, the rest is asked for, once each.

    `counts` says how many replies came to which verdict: the reasons of `evals.judges.llm_read.Reason`, and `cached`
    for those that were not asked now. `on_verdicts` is told each time how many more replies have theirs.

    Args:
        inner: question, reading, and who asks.
        cache: verdicts of earlier runs; None keeps none.
        close: ends what was started for this judge.
    """

    def __init__(self, inner: LlmJudge, cache: VerdictCache | None, close: Callable[[], None] | None = None) -> None:
        self.name = inner.name
        self.version = inner.version
        self.measures = inner.measures
        self.counts: Counter[str] = Counter()
        self.on_verdicts: Callable[[int], object] = _untold
        self._inner = inner
        self._cache = cache
        self._close = close

    def judge(self, items: Sequence[tuple[str, str]]) -> list[Judgement]:
        """Judge (prompt, answer) pairs; one judgement each, in order. What fails is `unscored`, and asked again later.

        Raises:
            UserError: the endpoint can't be used, or nothing is answered; verdicts had so far are kept.
        """
        known = self._known(items)
        times = Counter(items)
        left = [item for item in times if item not in known]
        cached = sum(times[item] for item in known)
        self.counts["cached"] += cached
        self.on_verdicts(cached)
        for place, verdict in self._inner.verdicts(left):
            known[left[place]] = verdict
            self._keep(left[place], verdict)
            self.on_verdicts(times[left[place]])
        verdicts = [known[item] for item in items]
        self.counts.update(verdict.reason for verdict in verdicts)
        return [verdict.judgement for verdict in verdicts]

    def close(self) -> None:
        """End the server where one was started for this judge; a later question starts it again."""
        if self._close is not None:
            self._close()

    def _known(self, items: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Verdict]:
        if self._cache is None:
            return {}
        with _told_as_user(self._cache):
            self._cache.refresh()
        found = {item: self._cache.get(self._cache.key(*item)) for item in dict.fromkeys(items)}
        return {item: verdict for item, verdict in found.items() if verdict is not None}

    def _keep(self, item: tuple[str, str], verdict: Verdict) -> None:
        if self._cache is not None:
            with _told_as_user(self._cache):
                self._cache.add(self._cache.key(*item), verdict)


def make_judge(config: JudgeConfig, serve: ServeConfig | None = None, hold: Hold | None = None) -> Judge:
    """Return the judge that `config` describes. Nothing is asked, started or downloaded yet.

    Args:
        config: the judge, of any kind.
        serve: the engine settings for a judge that Holdfast serves itself; their defaults where none are given.
        hold: opens the ledger's attempt for its server; None: nobody counts.

    Raises:
        UserError: its options make no sense, such as a pattern that is no regular expression; an endpoint is missing,
            lies on another machine without `allow_remote`, or its key is not in the environment.
    """
    try:
        return _llm_judge(config, serve, hold) if config.kind == LLM else JUDGES[config.kind](config)
    except ValueError as error:
        raise UserError(f"judge {config.name or config.kind}: {error}", "mend its options") from None


def close_judge(judge: Judge) -> None:
    """End what was started for a judge, where anything was."""
    if isinstance(judge, EndpointJudge):
        judge.close()


@contextmanager
def closing_judge(judge: Judge, console: Console) -> Iterator[None]:
    """Ask a judge within: then say what an endpoint's verdicts came to, and end what was started for it."""
    try:
        yield
    finally:
        close_judge(judge)
    if isinstance(judge, EndpointJudge):
        console.print(f"judge {judge.name}: {told(judge.counts)}", highlight=False)


def told(counts: Mapping[str, int]) -> str:
    """Return what an `EndpointJudge` counted, in words; the unscored with their reasons."""
    judged = sum(counts.get(reason, 0) for reason in ("judged", "degenerate", "unparseable", "contradictory", "failed"))
    reasons = {
        "unparseable": "answers without the form",
        "contradictory": "answers that no rule reads",
        "failed": "questions without an answer",
    }
    lost = {word: counts[key] for key, word in reasons.items() if counts.get(key)}
    unscored = f"{sum(lost.values())} unscored" + (
        f" ({', '.join(f'{count} {word}' for word, count in lost.items())})" if lost else ""
    )
    return f"{judged} replies, {counts.get('cached', 0)} of them known before, {unscored}"


def _untold(count: int) -> None:
    """Nobody asks how far it is."""


@contextmanager
def _told_as_user(cache: VerdictCache) -> Iterator[None]:
    """Tell a cache that can't be used as what the user can mend; a full disk is told at the boundary."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the judge's verdicts cannot be kept in {cache.path}: {error.strerror}",
            "name another cache folder with XDG_CACHE_HOME, or set judge.llm.cache=false",
        ) from None


def _llm_judge(config: JudgeConfig, serve: ServeConfig | None, hold: Hold | None) -> EndpointJudge:
    from evals.judges.llm import LlmJudge
    from evals.judges.llm_text import Template
    from pipeline.judge.cache import VerdictCache
    from pipeline.judge.endpoint import Endpoint, api_key, checked_url, client_for

    llm = config.llm
    if llm is None:
        raise ValueError(
            "kind is llm, but there is no `llm`: start from a file of conf/judge/, e.g. judge=strongreject"
        )
    weights, close = "", None
    if llm.serve:
        from pipeline.judge.server import MODEL, JudgeServer

        server = JudgeServer(llm, serve, Template(llm), hold)
        weights, close = server.weights, server.close
        where = f"the judge's own server (log: {server.log})"
        ask: Ask = Endpoint(llm, server.connect, MODEL, where, server.at_once).ask
    else:
        url, key = checked_url(llm), api_key(llm)
        ask = Endpoint(llm, lambda: client_for(llm, url, key), llm.served_as or llm.model, str(url)).ask
    inner = LlmJudge(llm, ask, name=config.name or LLM, max_repeat=config.max_repeat, weights=weights)
    return EndpointJudge(inner, VerdictCache(inner.digest) if llm.cache else None, close)
