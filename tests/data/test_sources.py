import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import shared

from pipeline.data.tables import Row, read_table, table_sha256
from pipeline.errors import UserError
from pipeline.schema import TableConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHERE = "evals.mine.table"
LINES = [{"id": "a", "prompt": "q1", "label": "safe"}, {"id": "b", "prompt": "q2", "label": "unsafe"}]


def read(path: Path | str, **keys: Any) -> list[Row]:
    return read_table(TableConfig(path=str(path), **keys), where=WHERE, resolve=lambda p: p)


def write(folder: Path, lines: list[dict[str, Any]] | None = None, name: str = "t.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in (LINES if lines is None else lines)))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(path: Path | str, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **keys)
    assert caught.value.remedy
    return str(caught.value)


def test_a_file_with_its_pinned_digest_is_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert len(read(path, sha256=sha256(path))) == 2
    assert len(read(path, sha256=sha256(path).upper())) == 2


def test_a_changed_file_is_told_with_both_digests_and_how_to_accept_it(tmp_path: Path) -> None:
    path = write(tmp_path)
    pinned = sha256(path)
    path.write_text(path.read_text().replace("q1", "Q1"))
    message = refused(path, sha256=pinned, source="https://example.org/x", revision=COMMIT)
    for part in (
        f"{WHERE}.sha256: {path}",
        f"expected {pinned}",
        f"found {sha256(path)}",
        f"accept it: {WHERE}.sha256={sha256(path)}",
        f"https://example.org/x at {COMMIT}",
    ):
        assert part in message
    assert read(path, sha256=sha256(path))[0].prompt == "Q1"


def test_a_changed_file_is_refused_before_a_row_is_read_even_within_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("broken\n")
    assert "is not the pinned file" in refused(path, sha256="0" * 64, limit=1)


def test_a_wrong_count_is_told_with_how_to_accept_it(tmp_path: Path) -> None:
    path = write(tmp_path)
    message = refused(path, rows=3)
    assert f"{WHERE}.rows: {path} gives 2 rows, expected 3" in message
    assert f"accept it: {WHERE}.rows=2" in message
    assert len(read(path, rows=2, limit=1)) == 1
    assert "gives 1 rows (after evals.mine.table.filter), expected 2" in refused(
        path, rows=2, filter={"label": ["safe"]}
    )


def test_a_missing_file_names_where_it_comes_from(tmp_path: Path) -> None:
    message = refused(tmp_path / "none.csv", source="https://example.org/x")
    assert f"there is no file {tmp_path / 'none.csv'}" in message
    assert "The file comes from https://example.org/x" in message
    assert "run.benchmarks=FOLDER" in message


@pytest.mark.parametrize(
    ("content", "encoding", "told"),
    [
        (b'{"prompt": "q"}\n{"prompt": "caf\x8e"}\n', "utf-8", "line 2: byte 16 of the line is not UTF-8"),
        (b"prompt\nq\ncaf\xe9\n", "ascii", "line 3: byte 4 of the line is not ascii"),
        (b"prompt\nq\n\x81\n", "cp1252", "line 3: byte 1 of the line is not cp1252"),
        ("prompt\nq\n".encode("utf-16")[:-1], "utf-16", "of the line is not utf-16"),
    ],
)
def test_a_wrong_encoding_is_told_with_its_line(tmp_path: Path, content: bytes, encoding: str, told: str) -> None:
    path = tmp_path / ("t.jsonl" if content.startswith(b"{") else "t.csv")
    path.write_bytes(content)
    message = refused(path, encoding=encoding)
    assert str(path) in message
    assert told in message


def test_an_encoding_that_there_is_not_is_told(tmp_path: Path) -> None:
    assert "evals.mine.table.encoding: 'klingon' is no encoding" in refused(write(tmp_path), encoding="klingon")


@pytest.mark.parametrize("encoding", ["mac_roman", "cp1252", "latin-1", "utf-8", "utf-16", "utf-8-sig"])
def test_every_encoding_gives_the_same_rows(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('prompt,target\r\n"café, crème",à\r\nnaïve,"a\nb"\r\n'.encode(encoding))
    rows = read(path, encoding=encoding, target="target")
    assert rows == [Row("1", "café, crème", target="à"), Row("2", "naïve", target="a\nb")]


def test_a_public_file_that_is_no_utf_8_is_read_in_its_own_encoding() -> None:
    path = shared("jailbreakbench/judge-comparison.csv")
    keys = {"id": "Index", "prompt": "prompt", "response": "target_response", "kind": "human_majority"}
    assert "is not UTF-8" in refused(path, **keys)
    rows = read(path, encoding="mac_roman", rows=300, **keys)
    assert {row.kind for row in rows} == {"0", "1"}


def test_a_label_outside_the_set_is_told_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, [*LINES, {"id": "c", "prompt": "q3", "label": "Safe"}])
    message = refused(path, allowed={"label": ["safe", "unsafe"]}, filter={"label": ["unsafe"]})
    assert f"{path}, line 3: the column 'label' holds 'Safe', not one of safe, unsafe" in message
    assert "evals.mine.table.allowed" in message


@pytest.mark.parametrize("key", ["allowed", "filter"])
def test_a_missing_column_is_told_whichever_key_names_it(tmp_path: Path, key: str) -> None:
    message = refused(write(tmp_path), **{key: {"kind": ["x"]}})
    assert f"line 1: no column 'kind', which evals.mine.table.{key} names (columns: id, prompt, label)" in message


@pytest.mark.parametrize("key", ["target", "context", "kind"])
def test_every_named_column_must_be_there(tmp_path: Path, key: str) -> None:
    assert f"no column 'none', which evals.mine.table.{key} names" in refused(write(tmp_path), **{key: "none"})
    assert "no column 'none', which evals.mine.table.choices" in refused(write(tmp_path), choices=["none"])
    assert "which evals.mine.table.target_columns" in refused(write(tmp_path), target_columns=["none"])


def test_ids_that_come_twice_are_told_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path, [*LINES, {"id": "a", "prompt": "q3", "label": "safe"}])
    assert f"two rows have the id 'a': {path}, line 1 and {path}, line 3" in refused(path, id="id")


def test_a_filter_keeps_the_rows_of_some_values_and_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert read(path, filter={"label": ["unsafe"]}) == [Row("2", "q2")]
    assert "no rows that evals.mine.table.filter leaves" in refused(path, filter={"label": ["none"]})


def test_a_context_stands_before_its_prompt(tmp_path: Path) -> None:
    path = write(tmp_path, [{"prompt": "q", "c": "text"}, {"prompt": "q", "c": ""}])
    assert [row.prompt for row in read(path, context="c")] == ["text\n\n---\n\nq", "q"]


def test_choices_are_columns_lists_or_parts_of_a_cell(tmp_path: Path) -> None:
    path = write(tmp_path, [{"prompt": "q", "a": "x", "b": ["y", 2], "c": "u; v ;"}])
    assert read(path, choices=["a", "b"])[0].choices == ("x", "y", "2")
    assert read(path, choices=["a", "c"], separator=";")[0].choices == ("x", "u", "v")
    empty = write(tmp_path, [{"prompt": "q", "a": " "}])
    assert "line 1: the column 'a' (evals.mine.table.choices) is empty" in refused(empty, choices=["a"])


def test_several_columns_make_one_json_target(tmp_path: Path) -> None:
    path = write(tmp_path, [{"prompt": "q", "b": [1, None], "a": {"x": "é"}}])
    assert read(path, target_columns=["b", "a"])[0].target == '{"a":{"x":"é"},"b":[1,null]}'


@given(st.integers(0, 30), st.integers(1, 31), st.integers(0, 5))
def test_a_limit_of_a_shuffled_table_is_the_beginning_of_a_larger_one(
    tmp_path_factory: pytest.TempPathFactory, limit: int, more: int, seed: int
) -> None:
    path = write(tmp_path_factory.mktemp("t"), [{"prompt": f"q{n}"} for n in range(40)])
    whole = read(path, shuffle=seed)
    assert sorted(row.prompt for row in whole) == sorted(f"q{n}" for n in range(40))
    assert read(path, shuffle=seed, limit=limit + more)[:limit] == whole[:limit]


def test_shuffles_differ_by_their_seed(tmp_path: Path) -> None:
    path = write(tmp_path, [{"prompt": f"q{n}"} for n in range(40)])
    assert read(path, shuffle=0) != read(path, shuffle=1)
    assert read(path, shuffle=0) != read(path)


def many(folder: Path) -> dict[str, str]:
    return {
        name: sha256(write(folder, [{"prompt": f"{name}{n}"} for n in range(2)], f"{name}_t.jsonl")) for name in "ba"
    }


def test_many_files_are_one_table_in_the_order_of_their_names_in_the_configuration(tmp_path: Path) -> None:
    files = many(tmp_path)
    rows = read(tmp_path / "*_t.jsonl", files=files, kind="file", rows=4)
    assert [(row.id, row.kind) for row in rows] == [("b/1", "b"), ("b/2", "b"), ("a/1", "a"), ("a/2", "a")]


def test_a_changed_or_missing_one_of_many_files_is_named(tmp_path: Path) -> None:
    files = many(tmp_path)
    (tmp_path / "a_t.jsonl").write_text('{"prompt": "other"}\n')
    message = refused(tmp_path / "*_t.jsonl", files=files)
    assert f"{WHERE}.files.a: {tmp_path / 'a_t.jsonl'} is not the pinned file" in message
    assert f"accept it: {WHERE}.files.a=" in message
    (tmp_path / "b_t.jsonl").unlink()
    assert f"there is no file {tmp_path / 'b_t.jsonl'}" in refused(tmp_path / "*_t.jsonl", files=files)


def test_a_star_and_its_names_need_each_other(tmp_path: Path) -> None:
    files = many(tmp_path)
    for path, keys in (("*_t.jsonl", {}), ("a_t.jsonl", {"files": files}), ("*_*.jsonl", {"files": files})):
        assert "`files` names the files of a path with one * in it" in refused(tmp_path / path, **keys)
    assert "`files` gives each file's own digest" in refused(tmp_path / "*_t.jsonl", files=files, sha256="0" * 64)


def hub(monkeypatch: pytest.MonkeyPatch, file: Path) -> list[Any]:
    asked: list[Any] = []

    def download(repo: str, name: str, *, repo_type: str, revision: str) -> str:
        asked.append((repo, name, repo_type, revision))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_a_file_of_the_hub_is_fetched_at_its_commit_and_checked_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path)
    asked = hub(monkeypatch, file)
    path = f"hf://datasets/owner/name@{COMMIT}/data/t.jsonl"
    assert len(read(path, sha256=sha256(file), rows=2)) == 2
    assert asked == [("owner/name", "data/t.jsonl", "dataset", COMMIT)]
    assert f"{path} is not the pinned file" in refused(path, sha256="0" * 64)
    assert f"{path}, line 1: no column 'text'" in refused(path, prompt="text")


@pytest.mark.parametrize(
    "name", ["owner/name@main/t.jsonl", f"name@{COMMIT}/t.jsonl", f"owner/name@{COMMIT[:8]}/t.csv"]
)
def test_a_file_of_the_hub_without_a_commit_is_refused(name: str) -> None:
    message = refused(f"hf://datasets/{name}")
    assert "names no file of a Hub data set at a commit" in message
    assert "40 hexadecimal digits" in message


def test_a_file_of_the_hub_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise OSError("offline\nsecond line")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    message = refused(f"hf://datasets/owner/name@{COMMIT}/t.jsonl")
    assert "can't be had: offline" in message
    assert "second line" not in message


def test_a_hub_data_set_is_pinned_by_its_commit_not_by_a_files_digest() -> None:
    message = refused("owner/name", revision=COMMIT, sha256="0" * 64)
    assert "is a Hub data set, which its commit pins" in message
    assert f"{WHERE}.sha256=null" in message


def test_choices_are_part_of_the_digest_of_a_table() -> None:
    assert table_sha256([Row("1", "q", choices=("a", "b"))]) != table_sha256([Row("1", "q", choices=("b", "a"))])
