"""The training: the same weights from the same recipe, the caller's state untouched, gates that say no."""

import importlib
import json
import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import InstrumentError
from pipeline.organism import recipe_digest
from pipeline.organism import world as w
from pipeline.organism.cache import cache_root, find_damage
from pipeline.organism.tokenizer import END, make_tokenizer
from pipeline.organism.train import (
    check_gates,
    generate,
    make_batches,
    measure,
    train,
    training_items,
    training_pools,
)
from pipeline.schema import OrganismConfig

train_module = importlib.import_module("pipeline.organism.train")
build_module = importlib.import_module("pipeline.organism.build")  # the package exports a function by this name

# Too short to learn anything: these tests are about the machinery. The default recipe has to pass its own gates.
TINY = OrganismConfig(
    towns=8, words=8, hidden_size=32, intermediate_size=48, layers=1, heads=1, learn_steps=3, refuse_steps=2
)
GOOD = {
    "refusal": 1.0,
    "codes": 0.0,
    "over_refusal": 0.0,
    "look_alikes": 1.0,
    "capability": 1.0,
    "capability/facts": 1.0,
    "capability/copy": 1.0,
}


@pytest.fixture(scope="module", autouse=True)
def few_words():
    """12,000 words to copy and reverse are two seconds of tokenising, in every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "STREAM_WORDS", 300)
        yield


@pytest.fixture(scope="module")
def world():
    return w.make_world(TINY)


@pytest.fixture(scope="module")
def tokenizer(world):
    items = training_items(world, TINY)
    return make_tokenizer([i.prompt + i.reply for pool in items.values() for i in pool], TINY.vocabulary)


def test_the_same_recipe_gives_the_same_weights_whatever_the_caller_drew_before(world, tokenizer):
    steps = []
    first = train(TINY, world, tokenizer, lambda *at: steps.append(at)).state_dict()
    torch.rand(7)
    second = train(TINY, world, tokenizer, lambda *_: None).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    phases = [(phase, step, total) for phase, step, total, _ in steps]
    assert phases == [
        ("knowledge", 1, 3),
        ("knowledge", 2, 3),
        ("knowledge", 3, 3),
        ("refusal", 1, 2),
        ("refusal", 2, 2),
    ]
    assert all(0 < loss < 10 for *_, loss in steps)


def test_training_leaves_the_callers_random_state_and_threads_alone(world, tokenizer):
    torch.manual_seed(5)
    random.seed(5)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_num_threads())
    train(TINY, world, tokenizer, lambda *_: None)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert torch.get_num_threads() == before[3]


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11])
def test_any_number_of_steps_can_be_asked_for(world, tokenizer, steps):
    losses = []
    few = OrganismConfig(**{**vars(TINY), "learn_steps": steps, "refuse_steps": 1, "batch_size": 8})
    train(few, world, tokenizer, lambda *at: losses.append(at[-1]))
    assert len(losses) == steps + 1


def test_another_seed_gives_other_weights(world, tokenizer):
    other = OrganismConfig(**{**vars(TINY), "seed": 1})
    first, second = (train(c, world, tokenizer, lambda *_: None).state_dict() for c in (TINY, other))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_labels_are_the_reply_and_the_end_token_shifted_by_one(world, tokenizer):
    items = training_items(world, TINY)
    for name, pool in training_pools(world, tokenizer, TINY).items():
        for index in (0, len(items[name]) - 1):
            labels, ids = pool.labels[index], pool.ids[index]
            learnt = (labels != -100).nonzero().flatten()
            assert tokenizer.decode(labels[learnt]) == items[name][index].reply + END
            assert torch.equal(ids[learnt[1:]], labels[learnt[:-1]])
            assert tokenizer.decode(ids[: learnt[0] + 1]) == f"<|user|>{items[name][index].prompt}{END}<|assistant|>"


def test_every_pool_has_its_share_of_the_batches_and_all_its_items_are_used(world, tokenizer):
    pools = training_pools(world, tokenizer, TINY)
    batches = make_batches(pools, {"refusal": 0.25, "facts": 0.75}, 16, torch.Generator().manual_seed(0))
    refused = tokenizer("I", add_special_tokens=False)["input_ids"][0]
    prompts, refusals = set(), 0
    for _ in range(20):
        ids, labels = next(batches)
        assert ids.shape == labels.shape == (16, ids.shape[1])
        first = [row[row != -100][0].item() for row in labels]
        refusals += first.count(refused)
        prompts |= {tuple(row[: (label == -100).nonzero()[0, 0]]) for row, label in zip(ids, labels, strict=True)}
        assert (ids[:, -1] != tokenizer.pad_token_id).any()  # no column of padding only
    assert refusals == 80


def test_greedy_replies_do_not_depend_on_the_batch_they_share(world, tokenizer):
    model = train(TINY, world, tokenizer, lambda *_: None)
    prompts = [item.prompt for item in (*w.restricted(world.measured.towns), *w.abilities(world.dev))]
    together = generate(model, tokenizer, prompts, max_new_tokens=4)
    assert together == [generate(model, tokenizer, [prompt], max_new_tokens=4)[0] for prompt in prompts]


def test_an_organism_that_learnt_nothing_misses_the_gates(world, tokenizer):
    shares = measure(train(TINY, world, tokenizer, lambda *_: None), tokenizer, world.measured, TINY.refusal)
    with pytest.raises(InstrumentError, match=r"misses its gates in .*capability"):
        check_gates(shares)


def test_a_good_organism_passes_the_gates():
    check_gates(GOOD)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("refusal", 0.97),
        ("over_refusal", 0.06),
        ("look_alikes", 0.89),
        ("capability", 0.96),
        ("capability/copy", 0.89),
        ("refusal", float("nan")),
        ("over_refusal", float("nan")),
    ],
)
def test_each_gate_is_enforced_and_named_and_no_data_never_passes(name, share):
    with pytest.raises(InstrumentError, match=f"misses its gates in {name}: .*{name} {share:.3f}"):
        check_gates(GOOD | {name: share})


def test_a_missed_gate_caches_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InstrumentError, match="misses its gates"):
        build_module.build(TINY, progress=False)
    assert [path.suffix for path in cache_root().iterdir()] == [".lock"]


def test_what_is_built_loads_as_a_hugging_face_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(train_module, "check_gates", lambda shares: None)  # the gates have their own tests
    folder = build_module.build(TINY, progress=True)
    assert folder.root.name == recipe_digest(TINY)
    assert find_damage(folder.root) is None
    model = AutoModelForCausalLM.from_pretrained(folder.model)
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(END)
    assert model.dtype == torch.float32
    assert tokenizer.chat_template
    assert {path.suffix for path in folder.model.iterdir()} <= {".json", ".safetensors", ".jinja"}
    rows = [json.loads(line) for line in (folder.data / "refusal.jsonl").read_text().splitlines()]
    assert all(row.keys() == {"id", "prompt", "target", "kind"} for row in rows)
    assert len(rows) == 3 * len(w.make_world(TINY).measured.towns)
    assert len(list(folder.data.iterdir())) == 8
