"""What vLLM is told of the adapters: how they are named, which modules they change, how many stay in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.records import ADAPTER_FILE
from pipeline.schema import ServeConfig
from pipeline.serve import adapters as serve_adapters
from pipeline.serve.adapters import adapted_modules, available, kept_in_memory, largest_rank
from pipeline.serve.server import Server

ATTENTION = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.0.self_attn.o_proj")
GIB = 1 << 30


def adapter(folder: Path, modules: Sequence[str], form: str = "base_model.model.{}.lora_{}.weight") -> Path:
    folder.mkdir(parents=True)
    tensor = np.zeros((1, 2), np.float32)
    save_file({form.format(name, side): tensor for name in modules for side in "AB"}, folder / ADAPTER_FILE)
    return folder


def command(adapters: dict[str, Path], **changes: Any) -> list[str]:
    subject: Any = SimpleNamespace(path=Path("model"), dtype="bfloat16")
    return Server(subject, adapters, [16], ServeConfig(device="cuda", **changes), Path("log"))._command()


def after(words: list[str], flag: str) -> list[str]:
    assert words.count(flag) == 1, flag
    rest = words[words.index(flag) + 1 :]
    return rest[: next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))]


# --- Names and folders


def test_an_adapters_folder_may_have_any_name() -> None:
    folders = {"a": Path("runs/x,y=1/a"), "b": Path('runs/it\'s "b" {ü}')}
    given = [json.loads(word) for word in after(command(folders), "--lora-modules")]
    assert given == [{"name": name, "path": str(path)} for name, path in folders.items()]


# --- Ranks


def test_the_rank_served_holds_the_largest_that_an_adapter_states(tmp_path: Path) -> None:
    folders = {name: adapter(tmp_path / name, ATTENTION) for name in "abc"}
    assert largest_rank(folders.values()) == 0, "nothing is stated: the planned rank goes"
    assert after(command(folders), "--max-lora-rank") == ["16"]
    (folders["a"] / "adapter_config.json").write_text(json.dumps({"r": 8, "rank_pattern": {}}))
    (folders["b"] / "adapter_config.json").write_text(json.dumps({"r": 16, "rank_pattern": {".*up_proj": 32}}))
    (folders["c"] / "adapter_config.json").write_text("{")
    assert largest_rank(folders.values()) == 32
    assert after(command(folders), "--max-lora-rank") == ["32"]


# --- Modules


def test_only_modules_that_some_adapter_changes_are_wrapped(tmp_path: Path) -> None:
    """By their last part: vLLM knows the parts of a fused module by it alone, and a path matches none of them."""
    folders = {"a": adapter(tmp_path / "a", ATTENTION), "b": adapter(tmp_path / "b", ["model.layers.0.mlp.up_proj"])}
    assert adapted_modules(folders.values()) == ["o_proj", "q_proj", "up_proj"]
    assert after(command(folders), "--lora-target-modules") == ["o_proj", "q_proj", "up_proj"]


def test_an_adapted_embedding_is_one_of_them(tmp_path: Path) -> None:
    form = "base_model.model.{}.lora_embedding_{}"
    assert adapted_modules([adapter(tmp_path / "a", ["model.embed_tokens"], form)]) == ["embed_tokens"]


@pytest.mark.parametrize(
    "key",
    [
        "model.layers.0.mlp.experts.3.gate_proj.lora_A.weight",  # fused by vLLM under the name `experts`
        "model.layers.0.mlp.experts.base_layer.lora_A.weight",
        "lm_head.weight",  # saved whole
        "visual.merger.0.lora_A.weight",  # no name, a place
    ],
)
def test_where_last_parts_do_not_say_which_vllm_decides(tmp_path: Path, key: str) -> None:
    odd = adapter(tmp_path / "odd", [key], "base_model.model.{}#{}")
    save_file({f"base_model.model.{key}": np.zeros((1, 2), np.float32)}, odd / ADAPTER_FILE)
    plain = adapter(tmp_path / "plain", ATTENTION)
    assert adapted_modules([plain, odd]) is None
    assert "--lora-target-modules" not in command({"plain": plain, "odd": odd})


def test_what_cannot_be_read_is_left_to_vllm(tmp_path: Path) -> None:
    torn = adapter(tmp_path / "torn", ATTENTION)
    (torn / ADAPTER_FILE).write_bytes(b"\0\0\0\0")
    for folder in (torn, tmp_path / "nowhere"):
        assert adapted_modules([adapter(tmp_path / f"x-{folder.name}", ATTENTION), folder]) is None


def test_peft_names_the_modules_of_all_linear_so(tiny_model: Any, tmp_path: Path) -> None:
    """Its configuration holds whole paths, or what is left of them once they are made short."""
    import peft

    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(tiny_model, config)
    adapted.save_pretrained(tmp_path)
    adapted.unload()
    linear = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert adapted_modules([tmp_path]) == linear


@pytest.mark.parametrize("given", [["--lora-target-modules", "q_proj"], ["--lora_target_modules=q_proj"]])
def test_what_the_user_says_of_modules_stands(tmp_path: Path, given: list[str]) -> None:
    words = command({"a": adapter(tmp_path / "a", ATTENTION)}, extra_args=given)
    assert words[-len(given) :] == given
    assert sum("target" in word for word in words) == 1


# --- Memory


def test_the_hosts_memory_bounds_how_many_adapters_are_kept() -> None:
    """70 B parameters, rank 16: 0.41 GB in each of 4 ranks; 83 adapters would hold 137 GB."""
    assert kept_in_memory(83, 8, largest=410_000_000, processes=4, free=100 * 10**9) == 30
    assert kept_in_memory(83, 8, largest=410_000_000, processes=4, free=1000 * 10**9) == 83
    assert kept_in_memory(83, 8, largest=410_000_000, processes=4, free=10**9) == 8, "a batch's adapters must fit"


def test_without_sizes_the_number_alone_bounds_them() -> None:
    assert kept_in_memory(24, 8, largest=0, processes=1, free=1) == 24
    assert kept_in_memory(24, 8, largest=1, processes=1, free=None) == 24
    assert kept_in_memory(3, 8, largest=0, processes=1, free=None) == 8


def test_each_process_of_the_engine_keeps_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {f"a{number}": adapter(tmp_path / str(number), ATTENTION) for number in range(24)}
    largest = max((folder / ADAPTER_FILE).stat().st_size for folder in folders.values())
    monkeypatch.setattr(serve_adapters, "available", lambda: 2 * 20 * largest)
    assert after(command(folders, max_loras=2), "--max-cpu-loras") == ["20"]
    assert after(command(folders, max_loras=2, tensor_parallel_size=2), "--max-cpu-loras") == ["10"]
    both = {"tensor_parallel_size": 2, "data_parallel_size": 2}
    assert after(command(folders, max_loras=2, **both), "--max-cpu-loras") == ["5"]
    assert after(command(folders, max_loras=8, **both), "--max-cpu-loras") == ["8"]


def test_tiny_adapters_are_all_kept(tmp_path: Path) -> None:
    folders = {f"a{number}": adapter(tmp_path / str(number), ATTENTION) for number in range(24)}
    assert after(command(folders), "--max-cpu-loras") == ["24"]


def test_available_memory_is_the_kernels_word(tmp_path: Path) -> None:
    told, groups = tmp_path / "meminfo", tmp_path / "groups"
    told.write_text("MemTotal:       8000000 kB\nMemFree:  1 kB\nMemAvailable:    2097152 kB\n")
    assert available(told, groups) == 2 * GIB
    told.write_text("MemTotal:       8000000 kB\n")
    assert available(told, groups) is None
    assert available(tmp_path / "nowhere", groups) is None


@pytest.mark.parametrize(("limit", "expected"), [("max", 2), (str(GIB), 0.75), (str(8 * GIB), 2)])
def test_a_jobs_own_limit_counts_where_it_is_narrower(tmp_path: Path, limit: str, expected: float) -> None:
    told, groups = tmp_path / "meminfo", tmp_path / "groups"
    told.write_text("MemAvailable:    2097152 kB\n")
    groups.mkdir()  # the root group, above the one of this process
    for name, text in (("max", limit), ("current", str(GIB // 2)), ("stat", f"anon 1\ninactive_file {GIB // 4}\n")):
        (groups / f"memory.{name}").write_text(text + "\n")
    assert available(told, groups) == expected * GIB
