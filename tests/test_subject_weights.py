"""Which safetensors files of a model folder are its weights: those that transformers loads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.errors import UserError
from pipeline.subject import matmul_parameters, safetensors_shapes

INDEX = "model.safetensors.index.json"


def save(folder: Path, file: str, **shapes: tuple[int, ...]) -> None:
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / file)


def index(folder: Path, **files: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": files}))


def test_the_index_names_the_files(tmp_path: Path) -> None:
    save(tmp_path, "model-00001-of-00002.safetensors", a=(2, 3))
    save(tmp_path, "model-00002-of-00002.safetensors", b=(4, 5), norm=(7,))
    save(tmp_path, "consolidated.safetensors", other_a=(2, 3), other_b=(4, 5))
    index(
        tmp_path,
        a="model-00001-of-00002.safetensors",
        b="model-00002-of-00002.safetensors",
        norm="model-00002-of-00002.safetensors",
    )
    assert safetensors_shapes(tmp_path) == {"a": (2, 3), "b": (4, 5), "norm": (7,)}
    assert matmul_parameters(tmp_path) == 26


def test_one_file_of_all_weights_comes_before_all_others(tmp_path: Path) -> None:
    save(tmp_path, "model.safetensors", a=(2, 3))
    save(tmp_path, "consolidated-00001.safetensors", other_a=(2, 3))
    save(tmp_path, "old-shard.safetensors", b=(9, 9))
    index(tmp_path, b="old-shard.safetensors")  # left over: transformers does not look at it
    assert matmul_parameters(tmp_path) == 6


def test_without_either_all_but_a_second_copy_count(tmp_path: Path) -> None:
    save(tmp_path, "consolidated.safetensors", other_a=(2, 3))
    assert matmul_parameters(tmp_path) == 6, "it is all there is"
    save(tmp_path, "part-1.safetensors", a=(2, 2))
    save(tmp_path, "part-2.safetensors", b=(1, 2))
    assert matmul_parameters(tmp_path) == 6


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": {"a": "gone.safetensors"}}'])
def test_an_index_that_cannot_be_followed_is_told(text: str, tmp_path: Path) -> None:
    save(tmp_path, "model-00001-of-00001.safetensors", a=(2, 3))
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(UserError, match=r"subject\.path: .* cannot be read") as caught:
        matmul_parameters(tmp_path)
    assert caught.value.remedy
