"""A template that prints today's date gives the same prompt on every day."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from tiny import TEMPLATE, TinySubject

from pipeline.subject.chat_date import DAY, hold_still

# As Llama 3.2's and gpt-oss's do, one of them within a macro.
DATED = (
    "{%- macro told() -%}{{- 'Current date: ' + strftime_now('%Y-%m-%d') -}}{%- endmacro -%}"
    "{%- if not date_string is defined -%}{%- if strftime_now is defined -%}"
    "{%- set date_string = strftime_now(format='%d %b %Y') -%}{%- else -%}{%- set date_string = '26 Jul 2024' -%}"
    "{%- endif -%}{%- endif -%}"
    "{{- 'Today Date: ' + date_string + '. ' + told() -}}"
)


@pytest.fixture
def dated(tiny_subject: TinySubject) -> Any:
    """The tiny subject with a template that prints the date."""
    tokenizer = type(tiny_subject.subject.tokenizer).from_pretrained(tiny_subject.folder)
    tokenizer.chat_template = DATED + TEMPLATE
    return replace(tiny_subject.subject, tokenizer=tokenizer)


def test_the_day_is_the_same_whenever_a_prompt_is_rendered(dated: Any) -> None:
    assert dated.prompt_text("hi") == "Today Date: 01 Jan 2026. Current date: 2026-01-01<user>hi<end><assistant>"
    assert dated.tokenizer.decode(dated.completion_ids("hi", "a reply")) == "a reply<end>"


def test_a_date_of_the_users_own_stays_and_so_does_a_template_without_one(
    dated: Any, tiny_subject: TinySubject
) -> None:
    own = replace(dated, template_kwargs={"date_string": "1 May 2025"})
    assert own.prompt_text("hi").startswith("Today Date: 1 May 2025. Current date: 2026-01-01")
    assert tiny_subject.subject.prompt_text("hi") == "<user>hi<end><assistant>"


def test_transformers_reads_the_day_where_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM's chat endpoint and every other caller in the process have it."""
    from transformers.utils import chat_template_utils

    chat = [[{"role": "user", "content": "hi"}]]
    asked = "{{ strftime_now('%Y-%m-%d %H') }}"
    monkeypatch.setattr(chat_template_utils, "datetime", datetime)
    assert chat_template_utils.render_jinja_template(chat, chat_template=asked)[0] != ["2026-01-01 12"]
    hold_still()
    hold_still()
    assert chat_template_utils.render_jinja_template(chat, chat_template=asked)[0] == [f"{DAY:%Y-%m-%d %H}"]
