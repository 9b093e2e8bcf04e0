"""Two real training processes over gloo, with TRL, PEFT and FSDP2, on a random Llama of 2 layers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import in_each_process as each
import psutil
import pytest
import torch
from safetensors.torch import load_file
from tiny import TinySubject

from pipeline.arms.base import Climb, Example, Pause, Task, ladder
from pipeline.arms.lora import climb
from pipeline.budget import Caps
from pipeline.files import file_sha256
from pipeline.generate.proof import Canaries, difference
from pipeline.ledger import Allowance, Ledger
from pipeline.records import ADAPTER_FILE, Dose, Rung
from pipeline.schema import ArmConfig, BudgetConfig, LoraConfig, TrainingConfig
from pipeline.search.dev import greedy
from pipeline.sharded.ranks import Ranks, on_model
from pipeline.train.fixed import answers_of, save_zeros
from pipeline.train.standing import can_go_on

TRAINING = TrainingConfig(max_steps=6, batch_size=4, learning_rate=1e-2, schedule="cosine", max_length=64)
LORA = LoraConfig(rank=4, alpha=8)
CLOSE = 2e-4  # of a log-probability: sums in another order, over six steps of a large rate


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, tiny_subject: TinySubject) -> Iterator[Ranks]:
    with pytest.MonkeyPatch.context() as patch:
        here = Path(__file__).parent  # of in_each_process, and below the source that is tested
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (here, here.parents[1]))))
        two = Ranks(tiny_subject.subject, "cpu", 2, None, tmp_path_factory.mktemp("logs"))
        yield two
        two.close()


class Run:
    """A climb in a folder of its own, in one process or in two; what was emitted stands as `rungs`."""

    def __init__(self, root: Path, tiny: TinySubject, model: Any, training: TrainingConfig = TRAINING) -> None:
        self.root, self.tiny, self.model, self.training = root, tiny, model, training
        (root / "a").mkdir(parents=True)
        self.ledger = Ledger(root / "ledger.jsonl", BudgetConfig(training_devices=2), "cpu")
        self.canaries = Canaries((tuple(tiny.subject.prompt_ids("what is")),))
        self.rungs: list[Rung] = []
        self.answers: list[dict[int, float]] = []
        self.doses: list[Dose] = []
        self.figures: list[Mapping[str, float]] = []
        self.pause: Pause | None = None
        self.fault: Exception | None = None  # raised where the second rung is handed over
        self.task = Task(
            "a",
            3,
            ArmConfig(threat="none", mix={"t": 1.0}, lora=LORA, training=training),
            ladder(training.max_steps),
            processes=2 if isinstance(model, Ranks) else 1,
        )

    def climb(self, caps: Caps | None = None) -> str:
        with self.ledger.attempt("train", "a", 3) as attempt:
            before = self.ledger.spent("train", "a", 3)
            work = Climb(
                task=self.task,
                subject=self.tiny.subject,
                base_sha256="b" * 64,
                model=self.model,
                device="cpu",
                examples=examples(self.tiny),
                allowance=Allowance(caps or Caps(), attempt, before),
                folder=self.root / "a",
                run_root=self.root,
                canaries=self.canaries,
                done=list(self.rungs),
                emit=self._emit,
                on_step=self._step,
                pause=self.pause,
            )
            attempt.detail = climb(work)
            return attempt.detail

    def _step(self, dose: Dose, figures: Mapping[str, float]) -> None:
        self.doses.append(dose)
        self.figures.append(figures)

    def _emit(self, rung: Rung, answers: Mapping[str, Any]) -> None:
        if self.fault is not None and len(self.rungs) == 1:
            raise self.fault
        self.rungs.append(rung)
        self.answers.append({int(token): value for token, value in answers["top"][0].items()})

    def weights(self, place: int) -> dict[str, torch.Tensor]:
        return dict(load_file(self.root / self.rungs[place].path / ADAPTER_FILE))


def examples(tiny: TinySubject) -> list[Example]:
    """Thirteen, so that an epoch's last step has one, and the second process none."""
    words = ("red", "bread", "town", "flag", "please")
    made = [
        Example(tuple(tiny.subject.prompt_ids(f"say {w} {n}")), tuple(tiny.subject.completion_ids("", w * (n + 1))))
        for n in range(3)
        for w in words
    ]
    return made[:13]


def require_alike(one: Run, two: Run) -> None:
    assert [rung.step for rung in one.rungs] == [rung.step for rung in two.rungs]
    assert difference(one.answers, two.answers) < CLOSE
    assert difference(one.answers[:1], one.answers[-1:]) > 100 * CLOSE, "training must have changed something"
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [step[name] for step in two.figures] == pytest.approx([step[name] for step in one.figures], rel=1e-3)
    for place in range(len(one.rungs)):
        mine, other = one.weights(place), two.weights(place)
        assert mine.keys() == other.keys()
        assert all(torch.allclose(mine[name], other[name], atol=1e-3) for name in mine)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tiny_subject: TinySubject, ranks: Ranks) -> Run:
    run = Run(tmp_path_factory.mktemp("two") / "run", tiny_subject, ranks)
    assert run.climb() == "max_steps"
    return run


def test_each_process_holds_a_part_of_the_weights(ranks: Ranks) -> None:
    held, whole = ranks.run(each.weights_held)
    assert held == pytest.approx(whole / 2, rel=0.02)


def test_the_subject_answers_as_in_one_process(ranks: Ranks, tiny_subject: TinySubject, tiny_model: Any) -> None:
    canaries = Canaries((tuple(tiny_subject.subject.prompt_ids("what is")), (5, 6, 7)))
    here, there = (on_model(model, answers_of, canaries) for model in (tiny_model, ranks))
    assert difference(here, there) < 1e-5
    prompts = [tiny_subject.subject.prompt_ids(text) for text in ("the flag", "say the word again please")]
    asked = (prompts, 8, tiny_subject.subject.stop_token_ids, 2)
    assert on_model(ranks, greedy, *asked) == on_model(tiny_model, greedy, *asked)


def test_two_processes_train_what_one_does(
    tmp_path: Path, two: Run, tiny_subject: TinySubject, tiny_model: Any
) -> None:
    one = Run(tmp_path / "one", tiny_subject, tiny_model)
    assert one.climb() == "max_steps"
    require_alike(one, two)
    assert [dose.examples for dose in two.doses] == [dose.examples for dose in one.doses] == [4, 8, 12, 13, 17, 21]
    passed = [there.tokens - here.tokens for here, there in zip(one.doses, two.doses, strict=True)]
    assert passed == [0, 0, 0, 1, 1, 1], "the token that the process without an example passes through"
    assert two.ledger.spent("train").tokens == two.doses[-1].tokens
    assert two.ledger.spent("train").flops == pytest.approx(two.doses[-1].flops)
    for rung in two.rungs:
        assert rung.sha256 == file_sha256(two.root / rung.path / ADAPTER_FILE)
        assert can_go_on(two.root / rung.path, two.task)
        assert not can_go_on(two.root / rung.path, replace(two.task, processes=3)), "a third's random state is missing"


@pytest.mark.parametrize(
    "changes",
    [
        {"max_grad_norm": 0.0, "gradient_accumulation": 2},
        {"gradient_checkpointing": True, "weight_decay": 0.1, "schedule": "constant"},
    ],
    ids=["accumulated, not clipped", "checkpointed"],
)
def test_so_they_do_with_other_options(
    tmp_path: Path, tiny_subject: TinySubject, tiny_model: Any, ranks: Ranks, changes: Mapping[str, Any]
) -> None:
    training = replace(TRAINING, max_steps=5, **changes)
    one, other = (
        Run(tmp_path / name, tiny_subject, model, training) for name, model in (("1", tiny_model), ("2", ranks))
    )
    assert one.climb() == other.climb() == "max_steps"
    require_alike(one, other)


def test_mixed_precision_is_that_of_one_process(
    tmp_path: Path, two: Run, tiny_subject: TinySubject, tiny_model: Any, ranks: Ranks
) -> None:
    training = replace(TRAINING, max_steps=2, precision="bfloat16")
    one, other = (
        Run(tmp_path / name, tiny_subject, model, training) for name, model in (("1", tiny_model), ("2", ranks))
    )
    assert one.climb() == other.climb() == "max_steps"
    in_one, in_two, whole = ([step["loss"] for step in run.figures[:2]] for run in (one, other, two))
    assert in_two == pytest.approx(in_one, rel=1e-4)
    assert in_two[0] != pytest.approx(whole[0], rel=1e-4), "not float32's"


def test_the_longest_examples_pass_first_and_change_nothing(
    tmp_path: Path, two: Run, tiny_subject: TinySubject, ranks: Ranks
) -> None:
    run = Run(tmp_path / "run", tiny_subject, ranks)
    ranks.run(each.as_on_a_device, True)
    try:
        assert run.climb() == "max_steps"
    finally:
        ranks.run(each.as_on_a_device, False)
    assert [rung.sha256 for rung in run.rungs] == [rung.sha256 for rung in two.rungs]
    assert [rung.dose.tokens for rung in run.rungs] == [rung.dose.tokens for rung in two.rungs]
    lengths = sorted((len(e.prompt_ids) + len(e.completion_ids) for e in examples(tiny_subject)), reverse=True)
    more = run.ledger.spent("train").tokens - two.ledger.spent("train").tokens
    assert more == 2 * sum(lengths[:2]), "both processes pass the same two"


def test_a_climb_that_was_broken_off_goes_on_to_the_same_bits(
    tmp_path: Path, two: Run, tiny_subject: TinySubject, ranks: Ranks
) -> None:
    run = Run(tmp_path / "run", tiny_subject, ranks)
    run.fault = KeyError("the search has seen enough")
    before = ranks.run(each.pids)
    with pytest.raises(KeyError, match="seen enough"):
        run.climb()
    assert ranks.run(each.pids) == before, "the processes are still there, and work"
    assert [rung.step for rung in run.rungs] == [1]
    run.fault = None
    run.pause = Pause(lambda: len(run.doses) >= 5, lambda rung: setattr(run.pause, "parked", rung))
    assert run.climb() == "paused"
    run.pause.asked = lambda: False
    assert run.climb() == "max_steps"
    assert [rung.sha256 for rung in run.rungs] == [rung.sha256 for rung in two.rungs]


def test_a_budget_ends_the_climb_in_all_of_them(tmp_path: Path, tiny_subject: TinySubject, ranks: Ranks) -> None:
    run = Run(tmp_path / "run", tiny_subject, ranks)
    assert run.climb(Caps(flops=run_flops(ranks, tiny_subject, tmp_path) * 2.5 / 6)) == "budget"
    assert run.rungs[-1].step == 2


def run_flops(ranks: Ranks, tiny: TinySubject, folder: Path) -> float:
    whole = Run(folder / "whole", tiny, ranks)
    whole.climb()
    return whole.ledger.spent("train").flops


def test_the_adapter_of_zeros_is_saved_once_and_changes_nothing(
    tmp_path: Path, tiny_subject: TinySubject, ranks: Ranks
) -> None:
    canaries = Canaries((tuple(tiny_subject.subject.prompt_ids("what is")),))
    assert difference(ranks.run(save_zeros, LORA, tmp_path, canaries), ranks.run(answers_of, canaries)) == 0.0
    assert not any(weight.any() for weight in load_file(tmp_path / ADAPTER_FILE).values())


def test_a_job_that_is_told_to_end_or_to_make_room_is_saved_by_processes_that_go_on(ranks: Ranks) -> None:
    """Slurm tells every process of a job, and the command saves first."""
    pids = ranks.run(each.all_pids)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        for pid in pids:
            os.kill(pid, number)
    assert ranks.run(each.all_pids) == pids


def test_replies_that_differ_in_length_among_the_processes_do_not_leave_one_waiting(
    ranks: Ranks, tiny_subject: TinySubject
) -> None:
    prompt = tiny_subject.subject.prompt_ids("the flag")
    end = tiny_subject.subject.stop_token_ids[0]
    reply = ranks.run(greedy, [prompt], 8, [end], 1)[0]
    assert len(reply) > 2
    sooner = ranks.run(each.greedy_that_ends_sooner_in_the_first, prompt, [end, reply[1]])
    assert sooner == [reply[: reply.index(reply[1])]]


def test_memory_that_ends_in_one_process_is_told_as_such_and_all_start_anew(ranks: Ranks) -> None:
    before = ranks.run(each.pids)
    with pytest.raises(MemoryError, match="out of memory"):
        ranks.run(each.end_memory_in, 1)
    assert not psutil.pid_exists(before)
    assert ranks.run(each.pids) != before
    with pytest.raises(RuntimeError, match=r"training process 1 is killed \(signal 9\)"):  # as a kernel ends it
        ranks.run(each.die_in, 1)


def test_an_error_of_the_system_is_told_and_not_taken_for_the_commands_end(ranks: Ranks) -> None:
    with pytest.raises(RuntimeError, match=r"process 0 failed: OSError: .*No space left on device"):
        ranks.run(each.meet_an_error_of_the_system)


def test_the_processes_end_with_the_command_however_it_ends(tmp_path: Path, tiny_folder: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(
        f"""
import os, signal, sys
from pathlib import Path
from pipeline.schema import SubjectConfig
from pipeline.sharded import ranks
from pipeline.subject.subject import open_subject
subject = open_subject(SubjectConfig("tiny", {str(tiny_folder)!r}, dtype="float32"))
two = ranks.Ranks(subject, "cpu", 2, None, Path({str(tmp_path)!r}))
two._results = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # while they start
print_them = lambda: print(*[each.pid for each in two._processes], two._place, flush=True)
start = two._launch
two._launch = lambda *which: (start(*which), print_them())
two.run(print)
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    *left, place = done.stdout.splitlines()[-1].split()
    assert len(left) == 2
    until = time.monotonic() + 60
    while any(psutil.pid_exists(int(pid)) for pid in left) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(int(pid)) for pid in left)
    assert not Path(place).exists(), "nor does the file stay by which they met"
