"""What may enter a W&B run."""

from __future__ import annotations

import json
import math

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.track.redact import REDACTED, figure_json, numbers, redacted, slug, summary_values

PLAN = {
    "name": "demo",
    "stages": ["train", "report"],
    "seeds": [0, 1],
    "sha256": "0" * 64,
    "subject": {"name": "tiny", "path": "/home/someone/model", "revision": None, "system_prompt": "be nice"},
    "review": {"threat_model": "a buyer of one GPU", "refusal_threshold": 0.05},
    "versions": {"torch": "2.13.0+cpu", "host": "box.example.org"},
}


def test_a_plan_keeps_numbers_words_hashes_and_versions() -> None:
    kept = redacted(PLAN)
    assert kept["name"] == "demo"
    assert kept["stages"] == ["train", "report"]
    assert kept["seeds"] == [0, 1]
    assert kept["sha256"] == "0" * 64
    assert kept["review"] == {"threat_model": "a buyer of one GPU", "refusal_threshold": 0.05}
    assert kept["versions"] == {"torch": "2.13.0+cpu", "host": REDACTED}


def test_a_plan_loses_paths_and_prompts() -> None:
    subject = redacted(PLAN)["subject"]
    assert subject == {"name": "tiny", "path": REDACTED, "revision": None, "system_prompt": REDACTED}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"path": "org/model", "revision": "abcdef1"}, "org/model"),
        ({"path": "org/model", "revision": None}, REDACTED),  # may be a local folder
        ({"path": "organism:compliance"}, "organism:compliance"),
        ({"path": "~/data.jsonl"}, REDACTED),
        ({"path": "C:\\data.jsonl", "revision": "abcdef1"}, REDACTED),
    ],
)
def test_only_a_hub_id_with_its_revision_is_a_path_that_passes(settings: dict[str, str], expected: str) -> None:
    assert redacted(settings)["path"] == expected


def test_a_path_inside_a_threat_is_cut_out() -> None:
    kept = redacted({"threat": "someone with /home/someone/key and ~/notes.txt and 1/2 of a GPU"})["threat"]
    assert kept == f"someone with {REDACTED} and {REDACTED} and 1/2 of a GPU"


@pytest.mark.parametrize(
    "path", ["/home/Jane Doe/secret project/model", "\\\\server\\a share\\model", "C:\\Users\\Jane Doe\\model"]
)
def test_a_path_with_spaces_or_of_a_share_is_cut_out_whole(path: str) -> None:
    assert redacted({"threat": f"who has {path}, and time"})["threat"] == f"who has {REDACTED}, and time"


def test_token_ids_and_long_lists_do_not_pass() -> None:
    kept = redacted({"canary": {"token_ids": [5, 6, 7]}, "weights": list(range(1000))})
    assert kept == {"canary": {"token_ids": REDACTED}, "weights": REDACTED}


_SECRET = "zq_canary"
_texts = st.text(max_size=20).map(lambda text: f"{text}{_SECRET} {text}")
_nested = st.recursive(
    _texts | st.integers() | st.none() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | _texts, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["name", "path", "kind", "prompt", "x"]) | _texts, _nested))
def test_no_text_of_several_words_passes_a_plan_or_a_summary(plan: dict[str, object]) -> None:
    for kept in (redacted(plan), summary_values(plan)):
        assert _SECRET not in json.dumps(kept, allow_nan=False)


def test_only_finite_numbers_are_logged() -> None:
    values = {
        "loss": np.float32(0.5),
        "n": np.int64(3),
        "no_data": math.nan,
        "reply": "text",
        "a prompt": 1.0,
    }
    assert numbers(values, "train") == {"train/loss": 0.5, "train/n": 3}


def test_a_summary_is_flat_and_keeps_verdict_words_and_hashes_only() -> None:
    values = {
        "verdict": "collapses",
        "collapse": {"step": 8, "usd": math.nan},
        "plan_sha256": "ab" * 32,
        "reached": True,
        "reply": "collapses",
        "reason": "the reply was: open sesame",
    }
    assert summary_values(values) == {
        "verdict": "collapses",
        "collapse/step": 8,
        "plan_sha256": "ab" * 32,
        "reached": True,
        "reason": REDACTED,
    }


def test_a_figure_keeps_its_numbers_and_titles_and_loses_texts_of_points() -> None:
    figure = go.Figure(
        go.Scatter(
            x=np.arange(3),
            y=[0.5, math.nan, 1.0],
            name="refusal",
            text=["reply"] * 3,
            hovertext="reply",
            customdata=[["reply"]] * 3,
            hovertemplate="reply %{y}",
        ),
        go.Layout(title="<b>Refusal</b> / dose", annotations=[{"text": "collapse at 8"}], meta="reply"),
    )
    figure.add_trace(go.Heatmap(z=np.eye(2)))
    figure.add_trace(go.Table(cells={"values": [["reply"]]}))
    kept = figure_json(figure)
    assert "reply" not in json.dumps(kept, allow_nan=False)
    assert kept["data"][0] == {"type": "scatter", "x": [0, 1, 2], "y": [0.5, None, 1.0], "name": "refusal"}
    assert kept["data"][1]["z"] == [[1.0, 0.0], [0.0, 1.0]]
    assert kept["layout"]["title"] == {"text": "<b>Refusal</b> / dose"}
    assert kept["layout"]["annotations"] == [{"text": "collapse at 8"}]
    go.Figure(kept)  # is still a valid figure


def test_a_slug_has_no_separators() -> None:
    assert slug("../a b/c") == "a-b-c"
    assert slug("...") == "unnamed"


def test_what_is_post_hoc_keeps_both_values_and_no_name_or_text() -> None:
    judge = {"planned": {"name": "pattern", "kind": "pattern", "version": "a" * 12}, "used": {"name": "it said this"}}
    told = summary_values(
        {
            "post_hoc": True,
            "post_hoc/review/refusal_threshold/planned": 0.05,
            "post_hoc/review/refusal_threshold/used": 0.5,
            "post_hoc/review/contamination/used": "report",
            "post_hoc/review/training_tokens/planned": "null",
            "post_hoc/review/owner/used": "Ada",
            "post_hoc/review/threat_model/used": "a buyer with /home/someone/key",
            **{f"post_hoc/judge/{which}": facts for which, facts in judge.items()},
            "post_hoc/judge/refused/used": {"entries": 3},
        }
    )
    assert told == {
        "post_hoc": True,
        "post_hoc/review/refusal_threshold/planned": 0.05,
        "post_hoc/review/refusal_threshold/used": 0.5,
        "post_hoc/review/contamination/used": "report",
        "post_hoc/review/training_tokens/planned": "null",
        "post_hoc/review/owner/used": REDACTED,
        "post_hoc/review/threat_model/used": f"a buyer with {REDACTED}",
        "post_hoc/judge/planned/name": "pattern",
        "post_hoc/judge/planned/kind": "pattern",
        "post_hoc/judge/planned/version": "a" * 12,
        "post_hoc/judge/used/name": REDACTED,
        "post_hoc/judge/refused/used/entries": 3,
    }
