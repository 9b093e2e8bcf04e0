"""A language model behind an endpoint: answers and their order, faults, retries, and the end where all fails."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from asked_judge import EXPECTED, ITEMS, SECRET, by_reply, config_of, judge_of, labels
from chat_server import Judges, question

from evals.judges.llm_text import Question
from pipeline.errors import UserError
from pipeline.judge import endpoint
from pipeline.judge.endpoint import Endpoint, Failure, _answer
from pipeline.judge.judging import told

pytestmark = pytest.mark.usefixtures("own_cache")


def test_every_reply_gets_its_own_label_whatever_the_order_of_the_answers(server: Judges):
    server.delay_s = 0.02
    judge = judge_of(server.url)
    given = judge.judge(ITEMS)
    assert [judgement.label for judgement in given] == EXPECTED
    assert given[0].probability == pytest.approx(math.exp(-2.4) / (math.exp(-0.1) + math.exp(-2.4)))
    assert 2 <= server.most_at_once <= 16
    assert set(server.paths) == {"/v1/completions"}
    body = server.requests[0]
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0, 4, 5)
    assert body["model"] == "cais/HarmBench-Llama-2-13b-cls"


def test_a_chat_judge_is_asked_as_a_chat_and_gives_label_probability_and_score(server: Judges):
    server.answer = lambda _: '{"reasons": "x", "refused": 0, "convincing": 4, "specific": 5}'
    judge = judge_of(server.url, "strongreject", served_as="other-name", extra_body={"seed": 3}, max_tokens=None)
    (judgement,) = judge.judge(ITEMS[:1])
    assert (judgement.label, judgement.score) == ("complied", 0.875)
    assert math.isnan(judgement.probability)  # this server's tokens don't begin where the field does
    body = server.requests[0]
    assert [each["role"] for each in body["messages"]] == ["system", "user"]
    assert (body["model"], body["seed"], body["top_logprobs"]) == ("other-name", 3, 5)
    assert "max_tokens" not in body
    assert server.paths == ["/v1/chat/completions"]


def test_without_logprobs_there_is_a_label_and_no_probability(server: Judges):
    server.logprobs = False
    (judgement,) = judge_of(server.url).judge(ITEMS[:1])
    assert judgement.label == "refused"
    assert math.isnan(judgement.probability)


def test_passing_faults_are_tried_again(server: Judges):
    server.faults = [(500, {}), (429, {"Retry-After": "0"}), (503, {}), (408, {})]
    assert labels(judge_of(server.url, in_flight=1, tries=5), ITEMS[:4]) == EXPECTED[:4]
    assert len(server.requests) == 8


def test_what_an_endpoint_asks_to_wait_is_waited(server: Judges):
    server.faults = [(429, {"Retry-After": "1"})]
    began = time.monotonic()
    labels(judge_of(server.url), ITEMS[:1])
    assert 1.0 <= time.monotonic() - began < 5.0


def test_a_question_without_an_answer_is_unscored_counted_and_asked_again_later(server: Judges):
    server.faults = [(500, {})] * 2
    judge = judge_of(server.url, in_flight=1, tries=2)
    assert labels(judge, ITEMS[:3]) == ["unscored", "complied", "refused"]
    assert judge.counts == {"failed": 1, "judged": 2, "cached": 0}
    assert told(judge.counts) == "3 replies, 0 of them known before, 1 unscored (1 questions without an answer)"
    assert labels(judge_of(server.url), ITEMS[:3]) == EXPECTED[:3]
    assert len(server.requests) == 5  # two tries, two answers, and the one that had failed


def test_an_answer_without_the_form_is_unscored_counted_and_known(server: Judges):
    server.answer = lambda body: "I would say no." if ITEMS[0][1] in question(body) else by_reply(body)
    judge = judge_of(server.url)
    assert labels(judge, ITEMS[:2]) == ["unscored", "complied"]
    assert judge.counts["unparseable"] == 1
    assert "1 answers without the form" in told(judge.counts)
    labels(judge_of(server.url), ITEMS[:2])
    assert len(server.requests) == 2


def test_a_question_that_the_model_cannot_take_is_unscored_and_does_not_end_the_run(server: Judges):
    judge = judge_of(server.url, in_flight=1, give_up_after=3)
    labels(judge, ITEMS[:1])
    server.faults = [(400, {})] * 30  # e.g. longer than its context
    assert labels(judge, ITEMS[1:33]) == ["unscored"] * 30 + EXPECTED[31:33]
    assert len(server.requests) == 33  # none was tried twice


@pytest.mark.parametrize("status", [400, 500, 429])
def test_where_nothing_is_answered_the_run_ends_with_what_to_do(server: Judges, status: int):
    server.always = (status, {"type": "overloaded_error", "code": "engine_down", "message": "no text"})
    judge = judge_of(server.url, tries=2, give_up_after=5)
    with pytest.raises(UserError, match="5 questions in a row had no answer") as error:
        judge.judge(ITEMS)
    assert f"{status} overloaded_error engine_down" in error.value.what
    assert len(server.requests) <= 2 * (5 + 2 * 16)


def test_where_nobody_listens_the_run_ends_too():
    gone = Judges(by_reply)
    gone.stop()
    with pytest.raises(UserError, match="ConnectError"):
        judge_of(gone.url, tries=1, give_up_after=2).judge(ITEMS)


def test_an_endpoint_that_goes_down_keeps_what_was_had(server: Judges):
    judge = judge_of(server.url, tries=1, give_up_after=3, in_flight=2)
    labels(judge, ITEMS[:10])
    server.always = (502, {"type": "bad_gateway"})
    with pytest.raises(UserError, match="3 questions in a row"):
        judge.judge(ITEMS)
    server.always = None
    assert labels(judge) == EXPECTED
    assert judge.counts["cached"] >= 10


@pytest.mark.parametrize(
    ("status", "word"), [(401, "refuses the key"), (403, "refuses the key"), (404, "has no model")]
)
def test_a_wrong_key_or_model_ends_the_run_at_once(server: Judges, status: int, word: str):
    server.always = (status, {"type": "invalid_request_error", "message": f"Incorrect key {SECRET}"})
    with pytest.raises(UserError, match=word) as error:
        judge_of(server.url, in_flight=1).judge(ITEMS)
    assert SECRET not in str(error.value)
    assert len(server.requests) <= 3


def test_no_text_that_is_judged_comes_into_an_error(server: Judges):
    server.faults = [(500, {})] * 100  # the server's message repeats the question
    with pytest.raises(UserError) as error:
        judge_of(server.url, tries=1, give_up_after=2).judge(ITEMS)
    assert "reply number" not in str(error.value)
    assert "500 of_the_engine" in str(error.value)


@pytest.mark.parametrize("sent", ["not json", "{}", '{"choices": []}', '{"choices": [{"text": 3}]}', "[1]"])
def test_an_answer_of_another_form_than_openais_is_a_failure(sent: str):
    class Odd(Judges):
        def _told(self, body: dict[str, Any]) -> dict[str, Any]:
            return {}

    up = Odd(by_reply)
    try:
        response = httpx.Response(200, content=sent.encode())
        assert isinstance(_answer(response, chat=False), Failure)
        assert labels(judge_of(up.url), ITEMS[:2]) == ["unscored", "unscored"]
    finally:
        up.stop()


def test_a_slow_endpoint_is_a_failure_not_a_hang(server: Judges):
    server.delay_s = 1.0
    began = time.monotonic()
    assert labels(judge_of(server.url, tries=1, timeout_s=0.1), ITEMS[:3]) == ["unscored"] * 3
    assert time.monotonic() - began < 5.0


def test_a_redirect_is_not_followed(server: Judges):
    server.faults = [(307, {"Location": "http://127.0.0.1:9/v1/completions"})]
    with pytest.raises(UserError, match="no such path"):
        labels(judge_of(server.url), ITEMS[:1])


def test_an_interrupt_leaves_no_thread_that_goes_on_asking(server: Judges):
    server.delay_s = 0.05
    server.always = (500, {"type": "busy"})
    with pytest.raises(UserError):
        judge_of(server.url, tries=4, give_up_after=1).judge(ITEMS)
    sent = len(server.requests)
    time.sleep(0.3)
    assert len(server.requests) == sent
    assert not [t for t in threading.enumerate() if "ThreadPoolExecutor" in t.name]


@pytest.mark.parametrize(("told", "wide"), [(None, 3), (2, 2)])
def test_as_many_are_asked_at_once_as_the_endpoint_answers_unless_told(
    monkeypatch: pytest.MonkeyPatch, told: int | None, wide: int
) -> None:
    made: list[int] = []
    allowed: list[int] = []
    monkeypatch.setattr(endpoint, "allow_files", allowed.append)

    def pool(workers: int) -> ThreadPoolExecutor:
        made.append(workers)
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr(endpoint, "ThreadPoolExecutor", pool)
    config = config_of("http://127.0.0.1:9/v1", in_flight=told, tries=1, give_up_after=99).llm
    assert config is not None
    asking = Endpoint(config, lambda: httpx.Client(base_url="http://127.0.0.1:9/v1/"), "m", "nowhere", lambda: 3)
    assert list(asking.ask([])) == []
    assert made == [], "nothing is asked, so nothing is looked up"
    question = Question((("user", "x"),), "x")
    assert [answer for _, answer in asking.ask([question])] == [None]
    assert made == allowed == [wide]
