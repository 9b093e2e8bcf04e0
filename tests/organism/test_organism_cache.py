"""The cache: a folder is whole or made again, one process at a time, nothing left of a failed making."""

import json
import logging
import multiprocessing
import time
from dataclasses import fields, replace

import pytest

from pipeline.organism import cache
from pipeline.schema import OrganismConfig

CONFIG = OrganismConfig()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def fill(root):
    (root / "model").mkdir()
    (root / "data").mkdir()
    (root / "model" / "config.json").write_text("{}\n")
    (root / "data" / "benign.jsonl").write_text('{"id": "1"}\n')
    return {"measured": {"refusal": 1.0}}


def refuse_to_make(root):
    raise AssertionError("made again although the cache is whole")


def test_a_whole_folder_is_not_made_again():
    made = cache.cached(CONFIG, fill)
    assert cache.cached(CONFIG, refuse_to_make) == made
    assert made.root == cache.cache_root() / cache.recipe_digest(CONFIG)
    assert (made.model / "config.json").read_text() == "{}\n"
    manifest = json.loads((made.root / "manifest.json").read_text())
    assert manifest["files"].keys() == {"model/config.json", "data/benign.jsonl"}
    assert manifest["measured"] == {"refusal": 1.0}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda root: (root / "model" / "config.json").unlink(), "model/config.json is missing"),
        (lambda root: (root / "data" / "benign.jsonl").write_text('{"id"'), "data/benign.jsonl was changed"),
        (lambda root: (root / "model" / "config.json").write_text("[]\n"), "model/config.json was changed"),
        (lambda root: (root / "model" / "extra.bin").write_text("x"), "model/extra.bin does not belong"),
        (lambda root: (root / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda root: (root / "manifest.json").write_text('{"files": {'), "manifest.json cannot be read"),
        (lambda root: (root / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
        (lambda root: (root / "manifest.json").write_text('{"files": {}}'), "manifest.json is of another recipe"),
    ],
)
def test_a_damaged_folder_is_made_again_and_that_is_logged_in_one_line(harm, said, caplog):
    root = cache.cached(CONFIG, fill).root
    harm(root)
    with caplog.at_level(logging.WARNING):
        cache.cached(CONFIG, fill)
    assert [said in record.getMessage() for record in caplog.records] == [True]
    assert cache.find_damage(root) is None


def test_a_failed_making_leaves_nothing_but_the_lock():
    def fail(root):
        (root / "half").write_text("x")
        raise RuntimeError("gate missed")

    with pytest.raises(RuntimeError, match="gate missed"):
        cache.cached(CONFIG, fail)
    assert [path.suffix for path in cache.cache_root().iterdir()] == [".lock"]


def test_the_rest_of_a_killed_making_is_cleared_away():
    left = cache.cache_root() / f"{cache.recipe_digest(CONFIG)}.making-killed"
    left.mkdir(parents=True)
    cache.cached(CONFIG, fill)
    assert not left.exists()


def _slow_fill(root):
    with (cache.cache_root().parent / "made").open("a") as log:
        log.write("made\n")
    time.sleep(1.0)
    return fill(root)


def _build():
    assert cache.find_damage(cache.cached(CONFIG, _slow_fill).root) is None


def test_of_two_processes_one_makes_and_both_find_it():
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_build) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert (cache.cache_root().parent / "made").read_text() == "made\n"


def test_the_digest_covers_every_key_of_the_recipe_and_the_format(monkeypatch):
    digests = {cache.recipe_digest(CONFIG)}
    for field in fields(OrganismConfig):
        value = getattr(CONFIG, field.name)
        digests.add(cache.recipe_digest(replace(CONFIG, **{field.name: value + type(value)(1)})))
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    digests.add(cache.recipe_digest(CONFIG))
    assert len(digests) == len(fields(OrganismConfig)) + 2
    assert all(len(digest) == 64 for digest in digests)


def test_a_relative_cache_home_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / ".cache" / "holdfast" / "organism"
