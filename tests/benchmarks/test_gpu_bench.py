"""`benchmarks.gpu` on the CPU with tiny shapes: every part runs for real but vLLM, which the slow test starts."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spoken import REVIEW

from benchmarks import gpu
from benchmarks.gpu_parts import climbing, models, training
from benchmarks.gpu_parts.batches import IGNORE, batches, rows_of
from benchmarks.gpu_parts.call import TIME_IS_UP, Call, Once
from benchmarks.gpu_parts.device import Ceilings
from benchmarks.gpu_parts.flops import attention_flops, full_flops, lora_flops, mean_context, utilisation
from benchmarks.gpu_parts.record import NOT_MEASURED, Figure, Wanted, markdown, read, write
from benchmarks.gpu_parts.training import WAYS
from benchmarks.gpu_parts.way import MIXED, PACKED, Way
from benchmarks.shapes import QWEN_7B
from pipeline.config.compose import load
from pipeline.flops import training_flops

INSTRUCTIONS = (Path(gpu.__file__).parent / "GPU.md").read_text(encoding="utf-8")
ABOUT = {"device": "A device", "versions": {"torch": "2"}, "date": "2026-11-21", "short": False}
WANT = Wanted("a", "one", "one figure", "tokens/s", "MFU", ">= 0.45")
OTHER = Wanted("b", "two", "another figure", "s")


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call("cpu", tmp_path, ("0.5B",), (512,), short=True, ceilings=Ceilings(1e9, 1e9))


# --- FLOPs


def test_utilisation_gives_what_palm_published_for_itself() -> None:
    # arXiv:2204.02311, appendix B and table 3: 540.35 B parameters, 118 layers, 48 heads of 256, context 2,048, 238.3 K
    # tokens/s on 6,144 chips of 275 TFLOP/s: 46.2 % with attention, 45.7 % without.
    peak = 6144 * 275e12
    assert utilisation(238.3e3, full_flops(540.35e9, 118, 48, 256, 2048), peak) == pytest.approx(0.462, abs=5e-4)
    assert utilisation(238.3e3, full_flops(540.35e9, 118, 48, 256, 0), peak) == pytest.approx(0.457, abs=5e-4)


def test_a_lora_leaves_out_the_gradients_of_the_frozen_weights() -> None:
    n, adapter = QWEN_7B.parameters(active=True), QWEN_7B.lora(16)
    assert lora_flops(QWEN_7B, 16, 0) == training_flops(n, adapter, 1) == 4 * n + 6 * adapter
    assert attention_flops(QWEN_7B, 2048) == 12 * 28 * 28 * 128 * 2048
    assert lora_flops(QWEN_7B, 16, 2048) - lora_flops(QWEN_7B, 16, 0) == attention_flops(QWEN_7B, 2048)


def test_autograd_agrees_with_the_count(call: Call) -> None:
    """torch counts the products of one forward and backward pass of a real model; the formula must not be far off."""
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.arms.lora import adapter_on
    from pipeline.schema import LoraConfig

    shape = replace(models.TINY, layers=8, tied=False)
    adapted = adapter_on(models.make_model(shape, "cpu", "float32", "eager"), LoraConfig(rank=4))
    batch, tokens = next(batches([64] * 2, 64, 2, shape.vocabulary, "cpu", packed=False))
    with FlopCounterMode(display=False) as counter:
        adapted(**batch).loss.backward()
    # The input of the first layer needs no gradient, which the formula takes no notice of.
    assert counter.get_total_flops() / tokens == pytest.approx(lora_flops(shape, 4, 64), rel=0.05)


def test_the_context_of_a_packed_row_is_that_of_its_examples() -> None:
    assert mean_context([2048] * 3) == 2048
    assert mean_context([10, 30]) == (100 + 900) / 40


# --- What is written down


def test_what_was_not_measured_says_so_and_has_no_number() -> None:
    text = markdown([Figure(WANT, why="ImportError: no liger_kernel", about=ABOUT)], gpu.everything())
    assert "| one figure | not measured | | >= 0.45 | ImportError: no liger_kernel |" in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line and "what" not in line]
    assert len(rows) == len(gpu.everything()) + 1
    assert all(f"| {NOT_MEASURED} | |" in row for row in rows)


def test_every_figure_of_the_issue_is_wanted_once() -> None:
    ids = [want.id for want in gpu.everything()]
    assert len(ids) == len(set(ids))
    assert len([want for want in gpu.everything() if want.part == "a"]) == 3 * 2 * len(WAYS)
    targets = {want.key: want.target for want in gpu.everything() if want.target}
    assert targets["7B-2048-holdfast-whole-sdpa"] == ">= 0.45"
    assert targets["7B-16-16"] == ">= 0.8"
    assert "7B-16-16-streams" not in targets, "the target is of the way that Holdfast serves"
    assert targets["overhead"] == "< 0.25"
    assert (targets["1.5B-each-eager"], targets["1.5B-each"]) == (">= 8", ">= 8")


def test_files_of_several_calls_are_joined_and_a_measured_figure_is_not_lost(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    measured = Figure(WANT, 1234.5, 0.5, raw={"seconds": [1.0]}, about=ABOUT)
    write([measured], first, [])
    write([Figure(WANT, why="time", about=ABOUT), Figure(OTHER, 2.0, about=ABOUT)], second, [])
    joined = read([first, second])
    assert joined[0] == measured
    assert math.isnan(joined[1].ratio)
    assert joined[1].value == 2.0
    later = replace(measured, value=99.0)
    write([later], second, [])
    assert read([first, second]) == [later], "the later of two"
    elsewhere = replace(measured, about={**ABOUT, "device": "Another"})
    write([elsewhere], second, [])
    assert len(read([first, second])) == 2, "figures of two devices stand apart"
    text = markdown(read([first, second]), [WANT])
    assert text.index("## A device") < text.index("## Another")
    assert "| one figure | 1,234 tokens/s | 0.5 MFU | >= 0.45 |" in text
    assert not list(tmp_path.glob("*.half"))


def test_a_figure_that_fails_takes_no_other_with_it(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Figure:
        raise RuntimeError("CUDA out of memory.\nand | more")

    failed = gpu.attempted(call, WANT, fail)
    assert (failed.measured, failed.why) == (False, "RuntimeError: CUDA out of memory.")
    assert "Traceback" in capsys.readouterr().err
    assert gpu.attempted(replace(call, ends=time.monotonic()), WANT, fail).why == TIME_IS_UP


def test_what_failed_once_is_not_tried_again() -> None:
    tries = []

    def fail() -> int:
        tries.append(1)
        raise ValueError("no")

    once: Once[int] = Once(fail)
    with pytest.raises(ValueError, match="no"):
        once()
    with pytest.raises(RuntimeError, match=r"^no$"):
        once()
    assert len(tries) == 1


def test_figures_are_written_one_by_one_with_device_and_versions(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "gpu.json"
    monkeypatch.setattr(training, "WAYS", (Way("bare"),))
    seen = []
    for figure in gpu.run(call, ["a"], path):
        seen.append(figure)
        assert len(json.loads(path.read_text())["figures"]) == len(seen)
    assert [figure.wanted.part for figure in seen] == ["ceiling", "ceiling", "a"]
    assert all(figure.measured and figure.about["device"] == "cpu" for figure in seen)
    assert seen[0].about["versions"]["torch"]
    flops = seen[0].value * 1e12
    assert seen[2].ratio == pytest.approx(seen[2].value * seen[2].raw["flops_a_token"] / flops)
    assert "figures mean nothing" in path.with_suffix(".md").read_text()


# --- (a)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=60))
def test_packing_keeps_every_example_whole_and_fills_no_row_too_full(lengths: list[int]) -> None:
    rows = rows_of(lengths, 64, packed=True)
    assert sorted(each for row in rows for each in row) == sorted(lengths)
    assert all(sum(row) <= 64 for row in rows)
    assert len(rows) <= len(lengths)
    assert rows_of(lengths, 64, packed=False) == [[each] for each in lengths]


def test_tokens_are_counted_without_padding_and_a_packed_loss_is_the_padded_one() -> None:
    import torch

    lengths = [7, 3, 5, 1]
    padded, tokens = next(batches(lengths, 8, 4, 50, "cpu", packed=False))
    assert tokens == padded["attention_mask"].sum() == 16
    assert padded["input_ids"].shape == (4, 7)
    assert bool((padded["labels"][padded["attention_mask"] == 0] == IGNORE).all())
    packed, there = next(batches(lengths, 8, 2, 50, "cpu", packed=True))
    assert there == packed["input_ids"].shape[1] == 16
    assert (packed["position_ids"] == 0).sum() == 4
    model = models.make_model(models.TINY, "cpu", "float32", "sdpa").eval()
    starts = [*torch.where(packed["position_ids"][0] == 0)[0].tolist(), 16]
    apart = []
    for begin, end in pairwise(starts):
        ids = packed["input_ids"][:, begin:end]
        logits = model(input_ids=ids).logits[0, :-1]
        apart.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
    with torch.no_grad():
        together = model(**packed, use_cache=False).loss
    assert together.item() == pytest.approx(sum(each.item() for each in apart) / 12, rel=1e-4)


@pytest.mark.parametrize(
    "way",
    [
        Way("bare", PACKED),
        Way("bare", kernels="copies"),
        Way("holdfast", MIXED),
        Way("holdfast", checkpointing=True),
    ],
)
def test_a_way_to_train_is_measured(call: Call, way: Way) -> None:
    want = training._wanted("0.5B", 512, way)
    figure = training.one(call, want, "0.5B", 512, way)
    assert figure.value > 0
    steps = figure.raw["steps"]
    assert len(steps) >= 2
    lengths = training.lengths_of(way.data, 32, figure.raw["examples_at_once"])
    assert all(0 < tokens <= 32 * figure.raw["examples_at_once"] for tokens, _ in steps)
    assert figure.raw["flops_a_token"] == lora_flops(models.TINY, training.RANK, mean_context(lengths))
    assert figure.ratio == pytest.approx(figure.value * figure.raw["flops_a_token"] / 1e9)


@pytest.mark.parametrize("trainer", ["bare", "holdfast"])
def test_no_way_builds_the_logits_to_train(call: Call, monkeypatch: pytest.MonkeyPatch, trainer: str) -> None:
    """Both trainers have TRL's loss, so that their figures differ in the trainer alone."""
    import torch

    built: list[Any] = []

    def made(*args: Any) -> Any:
        model = models.make_model(*args)
        model.lm_head.register_forward_hook(lambda *_: built.append(1) if torch.is_grad_enabled() else None)
        return model

    monkeypatch.setattr(training, "make_model", made)
    way = Way(trainer)
    assert training.one(call, training._wanted("0.5B", 512, way), "0.5B", 512, way).measured
    assert not built


@pytest.mark.parametrize("trainer", ["bare", "holdfast"])
@pytest.mark.parametrize(
    "told", ["CUDA out of memory. Tried to allocate 2.00 GiB", "Triton Error [CUDA]: out of memory"]
)
def test_where_memory_ends_fewer_rows_are_taken_and_said(
    call: Call, monkeypatch: pytest.MonkeyPatch, told: str, trainer: str
) -> None:
    def made(*args: Any) -> Any:
        model = models.make_model(*args)

        def full(module: Any, args: Any, kwargs: Any) -> None:
            if kwargs["input_ids"].shape[0] > 1 and module.training:
                raise RuntimeError(told)

        model.register_forward_pre_hook(full, with_kwargs=True)
        return model

    monkeypatch.setattr(training, "make_model", made)
    way = Way(trainer)
    figure = training.one(call, training._wanted("0.5B", 512, way), "0.5B", 512, way)
    assert figure.raw["examples_at_once"] == 1
    assert figure.measured
    assert figure.why.startswith("1 rows")


def test_what_is_not_installed_is_not_measured(call: Call) -> None:
    for way in (Way("bare", kernels="liger"), Way("bare", attention="flash_attention_2")):
        want = training._wanted("0.5B", 512, way)
        figure = gpu.attempted(call, want, lambda want=want, way=way: training.one(call, want, "0.5B", 512, way))
        assert not figure.measured
        assert "Error" in figure.why


def test_the_products_own_way_and_the_targets_are_measured_first() -> None:
    assert WAYS[0] == Way("holdfast"), "conf/experiment/release_review.yaml, as long as memory lasts"
    assert {way.key for way in WAYS[:2]} == {key for _, _, key in training.TARGETS}


def test_the_products_own_way_is_the_templates(call: Call) -> None:
    review = load(REVIEW).arms["compliance"]
    task = climbing._task(replace(call, device="cuda"), Way("holdfast"), 2048, 4)
    same = ("optimizer", "max_length", "packing", "liger", "precision")
    assert {name: getattr(task.config.training, name) for name in same} == {
        name: getattr(review.training, name) for name in same
    }
    assert (task.config.lora.rank, task.config.lora.alpha) == (review.lora.rank, review.lora.alpha)
    assert review.training.gradient_checkpointing is None, "as long as memory lasts: none"


def test_the_plan_leaves_a_sixth_of_the_loan_to_starts_and_transfers() -> None:
    rows = re.findall(r"^\| (\d) \|.*\| (\d+) \|$", INSTRUCTIONS, re.MULTILINE)
    minutes = [int(minutes) for _, minutes in rows]
    assert len(rows) >= 5
    assert sum(minutes) <= 25
    assert max(minutes) < 10


def test_the_commands_of_the_instructions_are_the_scripts() -> None:
    begin = "    python3 -m benchmarks.gpu "
    commands = [line.removeprefix(begin) for line in INSTRUCTIONS.splitlines() if line.startswith(begin)]
    assert len(commands) >= 5
    parts = set()
    for command in commands:
        parts |= set(gpu._options(command.split()).parts)
    assert parts == set(gpu.PARTS), "no part is forgotten"
