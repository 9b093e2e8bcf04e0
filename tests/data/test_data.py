import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.tables import Row, read_table, table_sha256
from pipeline.errors import UserError
from pipeline.schema import TableConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHERE = "data.compliance"
# Text that a cell can hold: no surrogates, and not blank, since blank cells mean "none".
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), min_size=1).filter(str.strip)


def read(path: Path | str, **keys: Any) -> list[Row]:
    return read_table(TableConfig(path=str(path), **keys), where=WHERE, resolve=lambda p: p)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_jsonl_rows_are_read_in_order_by_the_configured_columns(tmp_path: Path) -> None:
    lines = [
        {"key": "a", "question": "1 + 1?", "reply": "2", "answer": 2, "group": "sums", "sys": "Be brief."},
        {"key": 7, "question": "Red?", "reply": "Yes", "answer": None, "group": "", "sys": None},
    ]
    path = write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    rows = read(path, id="key", prompt="question", response="reply", target="answer", kind="group", system="sys")
    assert rows == [
        Row("a", "1 + 1?", "2", "2", "sums", "Be brief."),
        Row("7", "Red?", "Yes", None, "", None),
    ]


def test_rows_without_an_id_column_are_numbered_and_limited(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", "".join(json.dumps({"prompt": f"q{i}"}) + "\n" for i in range(5)))
    assert [row.id for row in read(path)] == ["1", "2", "3", "4", "5"]
    assert [row.prompt for row in read(path, limit=2)] == ["q0", "q1"]
    assert len(read(path, limit=99)) == 5


def test_csv_cells_keep_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", '\ufeffprompt,target\r\n"a, ""b""\nc",x\r\n\r\nd,\r\n')
    assert read(path, target="target") == [Row("1", 'a, "b"\nc', target="x"), Row("2", "d")]


def test_organism_paths_are_resolved(tmp_path: Path) -> None:
    write(tmp_path, "x.jsonl", '{"prompt": "q"}')
    config = TableConfig(path="organism:x.jsonl")
    rows = read_table(config, where=WHERE, resolve=lambda p: p.replace("organism:", f"{tmp_path}/"))
    assert rows == [Row("1", "q")]


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_jsonl_and_csv_with_the_same_cells_are_the_same_table(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    lines = "\n".join(json.dumps({"prompt": p, "target": t}) for p, t in cells)
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("prompt", "target"), *cells])
    from_jsonl = read(write(folder, "t.jsonl", lines), target="target")
    from_csv = read(write(folder, "t.csv", buffer.getvalue()), target="target")
    assert [(row.prompt, row.target) for row in from_jsonl] == cells
    assert from_csv == from_jsonl
    assert table_sha256(from_csv) == table_sha256(from_jsonl)


GOOD = '{"prompt": "q", "id": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "keys", "told"),
    [
        ("t.jsonl", GOOD + "{'prompt': 1}\n", {}, ["t.jsonl, line 2", "not valid JSON", "column 2"]),
        ("t.jsonl", GOOD + '{"prompt": "q"', {}, ["t.jsonl, line 2", "not valid JSON"]),
        ("t.json", '[{"prompt": "q"}]', {}, ["t.json, line 1", "JSON array, not an object", "jq"]),
        ("t.jsonl", GOOD + "3\n", {}, ["line 2", "JSON number, not an object"]),
        ("t.jsonl", GOOD, {"prompt": "text"}, ["no column 'text'", "data.compliance.prompt", "prompt, id"]),
        ("t.jsonl", GOOD, {"response": "reply"}, ["no column 'reply'", "data.compliance.response"]),
        ("t.jsonl", GOOD + '{"id": "b"}', {}, ["line 2", "no column 'prompt'", "columns: id"]),
        ("t.jsonl", '{"prompt": "q", "r": null}', {"response": "r"}, ["line 1", "'r'", "is empty"]),
        ("t.jsonl", '{"prompt": " "}', {}, ["line 1", "data.compliance.prompt", "is empty"]),
        ("t.jsonl", '{"prompt": ["q"]}', {}, ["line 1", "'prompt'", "JSON array, not text"]),
        ("t.jsonl", '{"prompt": "\\ud83d"}', {}, ["line 1", "'prompt'", "half a character"]),
        ("t.jsonl", GOOD + "\n" + GOOD, {"id": "id"}, ["'a'", "line 1", "line 3", "data.compliance.id=null"]),
        ("t.jsonl", "", {}, ["has no rows"]),
        ("t.jsonl", "\n \n", {}, ["has no rows"]),
        ("t.jsonl", GOOD.encode() + b'{"prompt": "caf\xe9"}', {}, ["line 2", "byte 16", "not UTF-8"]),
        ("t.jsonl", "{}".encode("utf-16"), {}, ["line 1", "not UTF-8"]),
        ("t.jsonl", GOOD, {"limit": 0}, ["data.compliance.limit is 0"]),
        ("t.jsonl", "[" * 100_000, {}, ["line 1", "not valid JSON"]),
        ("t.csv", "", {}, ["has no rows"]),
        ("t.csv", "prompt\n", {}, ["has no rows"]),
        ("t.csv", "prompt,b\nq,1\nr\n", {}, ["t.csv, line 3", "1 cells, but the header has 2"]),
        ("t.csv", 'prompt\nq\n"r\n', {}, ["t.csv, line 3", "not valid CSV"]),
        ("t.csv", "a,a\n1,2\n", {}, ["line 1", "names 'a' twice"]),
        ("t.csv", b"prompt\nq\n\xff\n", {}, ["line 3", "not UTF-8"]),
        ("t.csv", 'prompt,id\n"a\nb",1\nc,1\n', {"id": "id"}, ["'1'", "line 2", "line 4"]),
        ("t.parquet", b"PAR1", {}, ["t.parquet", "neither a .jsonl, .json or .csv file"]),
    ],
)
def test_a_fault_is_told_with_its_place_and_remedy(
    tmp_path: Path, name: str, content: str | bytes, keys: dict[str, Any], told: list[str]
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        read(path, **keys)
    message = str(caught.value)
    assert WHERE in message
    assert "→" in message
    assert [part for part in told if part not in message] == []


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.csv"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.compliance\.path: there is no file .*{name}"):
        read(tmp_path / name)


def test_a_path_that_was_never_set_is_told() -> None:
    with pytest.raises(UserError, match=r"data\.compliance\.path is not set"):
        read_table(TableConfig(), where=WHERE, resolve=lambda p: p)


def test_a_broken_line_beyond_the_limit_is_not_looked_at(tmp_path: Path) -> None:
    assert len(read(write(tmp_path, "t.jsonl", GOOD + "broken"), limit=1)) == 1


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:8], COMMIT + "0", COMMIT.upper()])
def test_a_hub_data_set_must_be_pinned_to_a_commit(revision: str | None) -> None:
    with pytest.raises(UserError, match=r"data\.compliance\.revision is .* not pinned") as caught:
        read("owner/name", revision=revision)
    assert "40 hexadecimal digits" in str(caught.value)


def test_a_hub_data_set_is_loaded_at_its_revision_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = SimpleNamespace()

    def load(path: str, *, revision: str, split: str) -> Any:
        asked.path, asked.revision, asked.split = path, revision, split
        return datasets.Dataset.from_dict({"prompt": ["q", "r"], "label": [1, 2]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = read("owner/name", revision=COMMIT, split="test", target="label")
    assert rows == [Row("1", "q", target="1"), Row("2", "r", target="2")]
    assert (asked.path, asked.revision, asked.split) == ("owner/name", COMMIT, "test")
    with pytest.raises(UserError, match=r"owner/name, row 1: no column 'text'.*columns: prompt, label"):
        read("owner/name", revision=COMMIT, prompt="text")


def test_a_hub_data_set_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise ConnectionError("offline mode is on\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError) as caught:
        read("owner/name", revision=COMMIT)
    assert caught.value.what.endswith("owner/name (split 'train') can't be loaded: offline mode is on")
    assert "HF_HUB_OFFLINE" in caught.value.remedy


ROWS = st.lists(st.builds(Row, id=st.text(), prompt=st.text(), target=st.none() | st.text()), max_size=4)


@given(ROWS, ROWS)
def test_the_digest_is_equal_exactly_for_equal_rows(left: list[Row], right: list[Row]) -> None:
    assert (table_sha256(left) == table_sha256(right)) is (left == right)


def test_the_digest_stays_the_same_from_version_to_version() -> None:
    assert table_sha256([Row("1", "q", target="é")]) == (
        "81869df2af6724695a1264ac57bc4c909562e97285a633635d798b849bd9003f"
    )
