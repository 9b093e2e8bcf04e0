"""Real TRL and PEFT on a random Llama of 2 layers: seconds for each climb."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import TinySubject

from pipeline.arms import lora
from pipeline.arms.base import Climb, Example, Pause, Task, ladder
from pipeline.arms.lora import climb
from pipeline.budget import Caps
from pipeline.files import file_sha256
from pipeline.generate.proof import Canaries
from pipeline.ledger import Allowance, Ledger
from pipeline.records import ADAPTER_FILE, Dose, Rung
from pipeline.schema import ArmConfig, BudgetConfig, LoraConfig, TrainingConfig

TRAINING = TrainingConfig(max_steps=5, batch_size=4, learning_rate=1e-2, schedule="cosine", max_length=64)
LORA = LoraConfig(rank=4, alpha=8, dropout=0.05)


class KilledError(Exception):
    """Stands in for whatever cuts an arm off between two rungs."""


@dataclass
class Run:
    """One arm in a folder of its own, as the train stage would climb it: what was emitted stands as `rungs`."""

    root: Path
    tiny: TinySubject
    model: Any
    training: TrainingConfig = field(default_factory=lambda: TRAINING)
    caps: Caps = field(default_factory=Caps)
    seed: int = 3
    rungs: list[Rung] = field(default_factory=list)
    doses: list[Dose] = field(default_factory=list)
    answers: list[Mapping[str, Any]] = field(default_factory=list)
    on_step: Callable[[Dose], None] = lambda dose: None
    pause: Pause | None = None
    parked: Rung | None = None

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.root / "ledger.jsonl", BudgetConfig(usd_per_device_hour=1.0), "cpu")

    def climb(self) -> str:
        before = self.ledger.spent("train", "a", self.seed)
        config = ArmConfig(threat="none", mix={"t": 1.0}, lora=LORA, training=self.training)
        task = Task("a", self.seed, config, ladder(self.training.max_steps))
        folder = self.root / "a"
        folder.mkdir(exist_ok=True, parents=True)
        with self.ledger.attempt("train", "a", self.seed) as attempt:
            work = Climb(
                task=task,
                subject=self.tiny.subject,
                base_sha256="b" * 64,
                model=self.model,
                device="cpu",
                examples=examples(self.tiny),
                allowance=Allowance(self.caps, attempt, before),
                folder=folder,
                run_root=self.root,
                canaries=Canaries((tuple(self.tiny.subject.prompt_ids("what is")),)),
                done=list(self.rungs),
                emit=self._emit,
                on_step=self._step,
                pause=self.pause,
            )
            attempt.detail = climb(work)
            if attempt.detail == "paused":
                attempt.write("interrupted")
            return attempt.detail

    def park(self, rung: Rung) -> None:
        self.parked = rung

    def _emit(self, rung: Rung, answers: Mapping[str, Any]) -> None:
        json.dumps(answers, allow_nan=False)  # as the run folder writes it
        self.rungs.append(rung)
        self.answers.append(answers)

    def _step(self, dose: Dose, values: Mapping[str, float]) -> None:
        self.doses.append(dose)
        self.on_step(dose)

    def shas(self) -> list[str]:
        return [rung.sha256 for rung in self.rungs]


def examples(tiny: TinySubject) -> list[Example]:
    words = ("red", "bread", "town", "flag", "please")
    return [
        Example(tuple(tiny.subject.prompt_ids(f"say {w} {n}")), tuple(tiny.subject.completion_ids("", w * (n + 1))))
        for n in range(3)
        for w in words
    ]


@pytest.fixture
def make(tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any) -> Callable[..., Run]:
    def made(name: str = "run", **changes: Any) -> Run:
        return Run(tmp_path / name, tiny_subject, tiny_model, **changes)

    return made


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, tiny_subject: TinySubject, tiny_model: Any) -> Run:
    """An uninterrupted climb, and the base model's weights from before it."""
    run = Run(tmp_path_factory.mktemp("straight"), tiny_subject, tiny_model)
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    assert run.climb() == "max_steps"
    after = tiny_model.state_dict()
    assert before.keys() == after.keys(), "the base model comes back without the adapter's modules"
    assert all(torch.equal(before[name], after[name]) for name in before), "and with its own weights"
    return run


def test_rungs_stand_at_powers_of_two_and_the_last_step(straight: Run) -> None:
    assert [rung.step for rung in straight.rungs] == [1, 2, 4, 5]
    assert [rung.id for rung in straight.rungs] == [f"a-s3-{step:05d}" for step in (1, 2, 4, 5)]
    assert len(set(straight.shas())) == 4
    assert len({json.dumps(answers["top"]) for answers in straight.answers}) == 4, "each rung answers differently"
    for rung in straight.rungs:
        folder = straight.root / rung.path
        assert rung.sha256 == file_sha256(folder / ADAPTER_FILE)


def test_the_dose_counts_steps_examples_tokens_and_flops(straight: Run) -> None:
    assert [dose.steps for dose in straight.doses] == [1, 2, 3, 4, 5]
    assert [dose.examples for dose in straight.doses] == [4, 8, 12, 15, 19], "15 examples: the 4th batch holds three"
    adapter = sum(value.numel() for value in load_file(straight.root / straight.rungs[0].path / ADAPTER_FILE).values())
    lengths = sorted(len(e.prompt_ids) + len(e.completion_ids) for e in examples(straight.tiny))
    for before, dose in zip([Dose(), *straight.doses], straight.doses, strict=False):
        n = dose.examples - before.examples
        assert sum(lengths[:n]) <= dose.tokens - before.tokens <= sum(lengths[-n:]), "padding is not counted"
        assert dose.flops == (4 * straight.tiny.subject.parameters + 6 * adapter) * dose.tokens
        assert dose.device_seconds > before.device_seconds
        assert dose.usd == pytest.approx(dose.device_seconds / 3600)
    assert straight.rungs[-1].dose.tokens == straight.doses[-1].tokens
    assert straight.ledger.spent("train").flops == straight.doses[-1].flops


def test_an_interrupted_arm_ends_with_the_weights_of_an_uninterrupted_one(
    straight: Run, make: Callable[..., Run]
) -> None:
    def kill(dose: Dose) -> None:
        if dose.steps == 3:
            raise KilledError

    run = make(on_step=kill)
    with pytest.raises(KilledError):
        run.climb()
    assert [rung.step for rung in run.rungs] == [1, 2]
    half_written = run.root / "a" / "checkpoint-3"  # a kill while saving: no row records it
    half_written.mkdir()
    (half_written / "adapter_config.json").write_text("{")
    run.on_step = lambda dose: None
    assert run.climb() == "max_steps"
    assert not half_written.exists()
    assert run.shas() == straight.shas()
    assert [(r.dose.tokens, r.dose.flops) for r in run.rungs] == [(r.dose.tokens, r.dose.flops) for r in straight.rungs]
    assert run.ledger.spent("train").tokens > straight.ledger.spent("train").tokens, "the lost step was paid for too"
    assert run.ledger.ending("train", "a", 3) == "max_steps"
    assert run.climb() == "max_steps", "a kill before the ledger's row: nothing is trained again"
    assert run.shas() == straight.shas()


def test_a_paused_arm_goes_on_from_its_step_and_ends_bit_for_bit_as_if_undisturbed(
    straight: Run, make: Callable[..., Run]
) -> None:
    run = make()
    for step in (1, 3, 4):  # at a rung, between two rungs, at a rung
        run.pause = Pause(lambda step=step: len(run.doses) + 1 == step, run.park, run.parked)
        assert run.climb() == "paused"
        assert run.doses[-1].steps == step, "after the present step, not later"
        assert run.ledger.ending("train", "a", 3) is None, "a pause is no end"
    assert [rung.step for rung in run.rungs] == [1, 2, 4], "where it was parked stands no rung"
    assert run.parked is not None
    assert run.parked.step == 3
    run.pause = Pause(lambda: False, run.park, run.parked)
    assert run.climb() == "max_steps"
    assert run.shas() == straight.shas()
    assert run.answers == straight.answers
    assert [dose.steps for dose in run.doses] == [1, 2, 3, 4, 5], "no step was climbed twice"
    assert run.ledger.spent("train").flops == straight.ledger.spent("train").flops


def test_a_kill_after_a_pause_goes_on_from_where_it_was_parked(straight: Run, make: Callable[..., Run]) -> None:
    def kill(dose: Dose) -> None:
        if dose.steps == 4:
            raise KilledError

    run = make()
    run.pause = Pause(lambda: len(run.doses) + 1 == 3, run.park)
    assert run.climb() == "paused"
    run.pause = Pause(lambda: False, run.park, run.parked)
    run.on_step = kill
    with pytest.raises(KilledError):
        run.climb()
    run.on_step = lambda dose: None
    assert run.climb() == "max_steps"
    assert [dose.steps for dose in run.doses] == [1, 2, 3, 4, 4, 5]
    assert run.shas() == straight.shas()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(straight: Run, make: Callable[..., Run]) -> None:
    short = replace(TRAINING, schedule="constant", max_steps=1)
    one, again, other = make("1", training=short), make("2", training=short), make("3", training=short, seed=4)
    for run in (one, again, other):
        run.climb()
    assert one.shas() == again.shas() != other.shas()


def test_clipping_the_adapters_gradients_alone_gives_the_bytes_of_clipping_all(
    make: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    sharp = replace(TRAINING, schedule="constant", max_steps=2, max_grad_norm=1e-3)
    ours, free = make("ours", training=sharp), make("free", training=replace(sharp, max_grad_norm=0.0))
    trainers = make("trainers", training=sharp)
    ours.climb()
    free.climb()

    def all_of_it(accelerator: Any, _: Any, most: float, model: Any) -> Any:
        return accelerator.clip_grad_norm_(model.parameters(), most)

    monkeypatch.setattr(lora, "_clip", all_of_it)
    trainers.climb()
    assert ours.shas() == trainers.shas() != free.shas()


def test_a_loss_that_is_no_number_ends_the_arm_as_a_result(make: Callable[..., Run]) -> None:
    run = make(training=replace(TRAINING, learning_rate=1e37, schedule="constant"))
    assert run.climb() == "nan_loss"
    assert run.ledger.ending("train", "a", 3) == "nan_loss"
    for rung in run.rungs:
        weights = load_file(run.root / rung.path / ADAPTER_FILE)
        assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    for answers in run.answers:
        assert all(math.isfinite(value) for row in answers["top"] for value in row.values())


def test_a_weight_that_becomes_nan_midway_leaves_the_rungs_before_it(make: Callable[..., Run], tiny_model: Any) -> None:
    def spoil(dose: Dose) -> None:
        if dose.steps == 3:
            next(p for name, p in tiny_model.named_parameters() if "lora_B" in name).data.fill_(math.nan)

    run = make(on_step=spoil)
    assert run.climb() == "nan_loss"
    assert [rung.step for rung in run.rungs] == [1, 2]


def test_a_budget_in_flops_stops_at_the_right_step_and_saves_there(straight: Run, make: Callable[..., Run]) -> None:
    spent = [dose.flops for dose in straight.doses]
    dearest = max(after - before for before, after in zip([0.0, *spent], spent, strict=False))
    cap = spent[2] + 0.5 * dearest  # three steps fit, a fourth may not
    run = make(caps=Caps(flops=cap))
    assert run.climb() == "budget"
    stopped = run.doses[-1].steps
    assert stopped <= 3
    assert run.rungs[-1].step == stopped
    assert run.ledger.spent("train").flops <= cap + dearest
    assert run.doses[-1].flops + 2 * dearest > cap, "what could be afforded was used"
    assert run.shas()[:2] == straight.shas()[:2]


def test_a_budget_below_one_step_trains_nothing(make: Callable[..., Run]) -> None:
    run = make(caps=Caps(flops=1.0))
    assert run.climb() == "budget"
    assert (run.rungs, run.doses) == ([], [])


def test_packing_trains_on_several_examples_in_a_sequence(make: Callable[..., Run]) -> None:
    run = make(training=replace(TRAINING, max_steps=2, packing=True, batch_size=2, completion_only=False))
    assert run.climb() == "max_steps"
    assert [rung.step for rung in run.rungs] == [1, 2]
    mean = sum(len(e.prompt_ids) + len(e.completion_ids) for e in examples(run.tiny)) / 15
    assert run.doses[0].tokens > 2 * 2 * mean, "a packed step of 2 sequences holds more than 4 examples"
    assert run.doses[0].examples == pytest.approx(run.doses[0].tokens / mean, abs=3)


def test_with_warm_up_the_first_rung_is_the_untouched_subject_as_the_configuration_says(
    make: Callable[..., Run],
) -> None:
    warmed = replace(TRAINING, schedule="constant_with_warmup", warmup_steps=2, max_steps=2)
    run = make(training=warmed)
    run.climb()
    first, second = (load_file(run.root / rung.path / ADAPTER_FILE) for rung in run.rungs)
    assert not any(weight.any() for name, weight in first.items() if "lora_B" in name)
    assert any(weight.any() for name, weight in second.items() if "lora_B" in name)
