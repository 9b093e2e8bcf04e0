"""A comparison as the W&B Report tells it."""

from __future__ import annotations

from pairs import demo_pair

from pipeline.compare.stage import comparison
from pipeline.publish import words


def test_the_sentence_and_the_prices_of_both_are_told() -> None:
    made = comparison(*demo_pair())
    said = words.comparison(made)
    assert said.startswith(words.plain(made["sentence"]))
    lines = [line for line in said.splitlines() if line.startswith("|")]
    assert len(lines) >= 3
    assert {line.count("|") - line.count("\\|") for line in lines} == {5}
    for run in made["runs"].values():
        assert words.plain(run["label"]) in lines[0]
