"""A file that is nearly a table is told with what makes one of it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars
import pytest

from pipeline.data.tables import read_table
from pipeline.errors import UserError
from pipeline.schema import TableConfig

WHERE = "data.mine"
CHAT = {"role": ["user", "assistant"], "from": ["human", "gpt"]}


def refused(path: Path | str, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_table(TableConfig(path=str(path), **keys), where=WHERE, resolve=lambda p: p)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.json", '[\n  {"prompt": "q"}\n]\n', 'this is a JSON array: write one object a line, as `jq -c ".[]"'),
        ("t.jsonl", '\n[{"prompt": "q"},\n{"prompt": "r"}]\n', "this is a JSON array"),
        ("t.json", '{\n  "prompt": "q"\n}\n', "this is an object over several lines"),
        ("t.jsonl", '{"prompt": "q"}\n[\n', "mend or remove the line"),
        ("t.jsonl", '{"prompt": "q"}\r{"prompt": "r"}\r', "the lines end with CR alone"),
        ("t.csv", "prompt\rq\rr\r", "the lines end with CR alone"),
        ("t.csv", '"prompt"\r"q"\r', "the lines end with CR alone"),
        ("t.csv", 'prompt\nq\n"open\rq\n', "close every quote"),
        ("t.csv", "prompt;response\nq;r\n", "parted by semicolons: save the file with commas"),
        ("t.csv", "prompt;response\nq, too;r\n", "parted by semicolons"),
        ("t.csv", "prompt\tresponse\nq\tr\n", "parted by tabs"),
        ("t.csv", "question,response\nq,r\n", "set data.mine.prompt to one of the columns"),
        ("t.parquet", "x", "convert it: python -c"),
        ("t.tsv", "prompt\tx\n", "separator=chr(9)"),
        ("t.txt", "q\n", '{"prompt": "…"}'),
        ("t.jsonl.gz", "x", "gunzip it"),
        ("t.odd", "x", ".csv files are read: convert it"),
    ],
)
def test_a_file_that_is_nearly_a_table_is_told_what_it_wants(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    message = refused(path)
    assert message.startswith(WHERE)
    assert str(path) in message
    assert told in message


def test_what_is_told_of_a_parquet_file_makes_a_table_of_it(tmp_path: Path) -> None:
    polars.DataFrame({"prompt": ["q", "r"]}).write_parquet(tmp_path / "t.parquet")
    command = refused(tmp_path / "t.parquet").split("convert it: ")[1]
    subprocess.run([sys.executable, *shlex.split(command)[1:]], check=True)
    rows = read_table(TableConfig(path=str(tmp_path / "t.jsonl")), where=WHERE, resolve=lambda p: p)
    assert [row.prompt for row in rows] == ["q", "r"]


@pytest.mark.parametrize(("who", "what"), [("role", "content"), ("from", "value")])
@pytest.mark.parametrize("column", ["messages", "prompt"])
def test_messages_are_told_with_how_to_convert_them(tmp_path: Path, who: str, what: str, column: str) -> None:
    path = tmp_path / "t.jsonl"
    turns = [{who: speaker, what: f"said by {speaker}"} for speaker in ("system", *CHAT[who])]
    path.write_text(json.dumps({column: turns}) + "\n")
    message = refused(path)
    assert "is a list of messages, which is not supported" in message
    if shutil.which("jq"):
        command = message.split("`")[1].replace("FILE > NEW.jsonl", str(path))
        made = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout
        prompt, response = (f"said by {speaker}" for speaker in CHAT[who])
        assert json.loads(made) == {"prompt": prompt, "response": response}


@pytest.mark.parametrize("encoding", ["hex", "rot13", "undefined", "base64", "", "a\0b"])
def test_an_encoding_that_is_none_of_text_is_told(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "q"}\n')
    assert "is no encoding of text that Python knows" in refused(tmp_path / "t.jsonl", encoding=encoding)


def test_a_path_longer_than_a_file_system_takes_is_of_no_file() -> None:
    assert "there is no file" in refused("/x/" + "a" * 300 + ".csv")
    assert "is not pinned to a commit" in refused("a" * 300)
    assert "neither a .jsonl" in refused("/x/" + "a" * 300)


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"prompt\n{'word ' * 40_000}\n")
    (row,) = read_table(TableConfig(path=str(path)), where=WHERE, resolve=lambda p: p)
    assert len(row.prompt) == 200_000


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("prompt\nq\n")
    one = read_table(TableConfig(path="~/a.csv"), where=WHERE, resolve=lambda p: p)
    digests = dict.fromkeys(("a", "b"), "34f3c6d0")
    assert len(one) == 1
    assert f"{tmp_path}/a.csv is not the pinned file" in refused("~/*.csv", files=digests)
