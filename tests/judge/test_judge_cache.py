"""What a language model said before is known: the cache of verdicts, its rows, kills, and processes at once."""

from __future__ import annotations

import json
import math
import multiprocessing
import stat
import time
from pathlib import Path

import pytest
from asked_judge import EXPECTED, ITEMS, judge_of, labels
from chat_server import Judges

from evals.judges.llm_read import Verdict
from pipeline.errors import UserError
from pipeline.judge.cache import VerdictCache
from pipeline.judge.judging import told

pytestmark = pytest.mark.usefixtures("own_cache")


def test_what_is_known_sends_no_request(server: Judges):
    first = judge_of(server.url)
    assert labels(first) == EXPECTED
    assert len(server.requests) == 40
    again = judge_of(server.url)
    assert again.judge(ITEMS) == first.judge(ITEMS)
    assert len(server.requests) == 40
    assert again.counts == {"cached": 40, "judged": 40}
    assert told(again.counts) == "40 replies, 40 of them known before, 0 unscored"


def test_the_same_reply_is_asked_about_once_and_an_empty_batch_not_at_all(server: Judges):
    judge = judge_of(server.url)
    assert labels(judge, [ITEMS[0], ITEMS[1], ITEMS[0]]) == ["refused", "complied", "refused"]
    assert len(server.requests) == 2
    assert judge.judge([]) == []


def test_another_judge_another_prompt_or_another_reply_is_asked_anew(server: Judges):
    labels(judge_of(server.url), ITEMS[:2])
    labels(judge_of(server.url, max_tokens=3), ITEMS[:2])
    assert len(server.requests) == 4
    labels(judge_of(server.url), [("Another prompt?", ITEMS[0][1])])
    assert len(server.requests) == 5
    labels(judge_of(server.url, in_flight=1, timeout_s=5.0), ITEMS[:2])
    assert len(server.requests) == 5


def test_the_cache_holds_no_text_and_only_its_owner_reads_it(server: Judges, own_cache: Path):
    labels(judge_of(server.url))
    (file,) = (own_cache / "holdfast" / "judgements").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 40
    assert all(set(row) == {"key", "label", "reason", "probability", "score"} for row in rows)
    assert "reply" not in file.read_text()


def test_without_a_cache_nothing_is_written(server: Judges, own_cache: Path):
    judge = judge_of(server.url, cache=False)
    labels(judge, ITEMS[:2])
    labels(judge, ITEMS[:2])
    assert len(server.requests) == 4
    assert not own_cache.exists()


def test_a_torn_row_costs_one_question_and_the_next_row_stands_on_its_own_line(server: Judges, own_cache: Path):
    labels(judge_of(server.url), ITEMS[:10])
    (file,) = (own_cache / "holdfast" / "judgements").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])  # a kill in the midst of a write
    assert labels(judge_of(server.url), ITEMS[:10]) == EXPECTED[:10]
    assert len(server.requests) == 11
    assert len(file.read_bytes().splitlines()) == 11  # the torn one, then the new one
    labels(judge_of(server.url), ITEMS[:10])
    assert len(server.requests) == 11


@pytest.mark.parametrize(
    "row",
    [b"", b"\x00\xff", b"{}", b"[]", b'{"key":"zz"}', b"null", b'{"key":"ab","label":"refused"}', b'{"key":1}'],
)
def test_a_foreign_row_is_passed_over(tmp_path: Path, row: bytes):
    cache = VerdictCache("a" * 64, tmp_path)
    cache.add(cache.key("p", "r"), Verdict("refused", 0.9))
    good = cache.path.read_bytes()
    key = cache.key("p", "r").hex()
    for bad in (
        row,
        f'{{"key":"{key}","label":"perhaps","probability":null,"score":null,"reason":"judged"}}'.encode(),
        f'{{"key":"{key}","label":"complied","probability":7,"score":null,"reason":"judged"}}'.encode(),
    ):
        cache.path.write_bytes(good + bad + b"\n")
        fresh = VerdictCache("a" * 64, tmp_path)
        fresh.refresh()
        assert fresh.get(fresh.key("p", "r")) == Verdict("refused", 0.9)


def test_failures_and_broken_replies_are_never_kept_but_what_could_not_be_read_is(tmp_path: Path):
    cache = VerdictCache("b" * 64, tmp_path)
    for reason in ("failed", "degenerate"):
        cache.add(cache.key("p", reason), Verdict("unscored", reason=reason))
    assert not cache.path.exists()
    cache.add(cache.key("p", "x"), Verdict("unscored", reason="unparseable"))
    fresh = VerdictCache("b" * 64, tmp_path)
    fresh.refresh()
    kept = fresh.get(fresh.key("p", "x"))
    assert kept is not None
    assert (kept.label, kept.reason) == ("unscored", "unparseable")
    assert math.isnan(kept.probability)


def test_keys_take_any_text_and_part_prompt_from_reply():
    cache = VerdictCache("c" * 64, Path("unused"))
    assert cache.key("\ud800", "") != cache.key("", "\ud800")
    assert cache.key("a", "bc") != cache.key("ab", "c")


def test_a_file_that_shrank_is_read_anew(tmp_path: Path):
    cache = VerdictCache("d" * 64, tmp_path)
    cache.add(cache.key("p", "r"), Verdict("refused"))
    cache.refresh()
    cache.path.write_bytes(b"")
    cache.refresh()
    assert cache.get(cache.key("p", "r")) is None


def write_verdicts(folder: Path, start: int, count: int) -> None:
    cache = VerdictCache("e" * 64, folder)
    for number in range(start, start + count):
        cache.add(cache.key("p", str(number)), Verdict("complied", number / 10_000))


def test_two_processes_at_once_lose_nothing(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_verdicts, args=(tmp_path, start, 400)) for start in (0, 300, 700)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    cache = VerdictCache("e" * 64, tmp_path)
    cache.refresh()
    for number in range(1100):
        assert cache.get(cache.key("p", str(number))) == Verdict("complied", number / 10_000)


def test_a_process_killed_while_it_writes_leaves_a_cache_that_goes_on(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    victim = context.Process(target=write_verdicts, args=(tmp_path, 0, 10_000))
    victim.start()
    path = VerdictCache("e" * 64, tmp_path).path
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > 20_000):
        time.sleep(0.005)
    victim.kill()
    victim.join()
    assert victim.exitcode == -9
    cache = VerdictCache("e" * 64, tmp_path)
    cache.refresh()
    assert cache.get(cache.key("p", "0")) == Verdict("complied", 0.0)
    after = cache.path.stat().st_size
    write_verdicts(tmp_path, 5000, 5)
    assert cache.path.stat().st_size > after
    cache.refresh()
    assert cache.get(cache.key("p", "5004")) == Verdict("complied", 0.5004)


def test_a_cache_that_cannot_be_written_is_told(server: Judges, own_cache: Path):
    own_cache.mkdir()
    (own_cache / "holdfast").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot be kept") as error:
        labels(judge_of(server.url), ITEMS[:1])
    assert "judge.llm.cache=false" in error.value.remedy
