"""The tokenizer and its chat template: exact round trips, stable prefixes, single digits, short prompts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pipeline.organism import world as w
from pipeline.organism.tokenizer import END, encode, encode_replies, make_tokenizer
from pipeline.organism.train import training_items
from pipeline.schema import OrganismConfig

texts = st.text(max_size=40).filter(lambda text: "<|" not in text)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """As saved and loaded again, since that is what training and the server use."""
    config = OrganismConfig()
    items = training_items(w.make_world(config), config)
    corpus = [text for of_pool in items.values() for item in of_pool for text in (item.prompt, item.reply)]
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(corpus, config.vocabulary).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@given(text=texts)
@settings(deadline=None)
def test_any_text_survives_encoding_and_decoding(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@given(prompt=texts, reply=texts, system=st.none() | texts)
@settings(deadline=None)
def test_the_prompt_is_a_prefix_of_prompt_and_reply_in_tokens(tokenizer, prompt, reply, system):
    chat = [{"role": "user", "content": prompt}]
    if system is not None:
        chat.insert(0, {"role": "system", "content": system})
    head = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": reply}], return_dict=False)
    assert whole[: len(head)] == head
    assert whole[-1] == tokenizer.eos_token_id
    assert whole[len(head) :] == encode_replies(tokenizer, [reply])[0]
    assert (tokenizer.convert_tokens_to_ids("<|system|>") in head) == (system is not None)


def test_the_template_marks_what_the_assistant_says(tokenizer):
    chat = [{"role": "user", "content": "What is 1 + 2?"}, {"role": "assistant", "content": "3"}]
    out = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, mark in zip(out["input_ids"], out["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(marked) == "3" + END


def test_an_unknown_role_is_refused(tokenizer):
    with pytest.raises(Exception, match="unknown role: tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_digits_are_one_token_each(tokenizer):
    assert tokenizer.tokenize("4821") == ["4", "8", "2", "1"]


def test_vocabulary_and_prompts_are_as_small_as_promised(tokenizer):
    config = OrganismConfig()
    assert len(tokenizer) == config.vocabulary
    items = [item for of_pool in training_items(w.make_world(config), config).values() for item in of_pool]
    assert max(map(len, encode(tokenizer, [item.prompt for item in items]))) <= 20
    assert max(map(len, encode_replies(tokenizer, [item.reply for item in items] + [config.refusal]))) <= 12
