"""The callback that climbs: saves rungs, stops on the budget, on a NaN loss, and keeps the dose."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pipeline.arms.base import Climb, Ending
from pipeline.budget import price
from pipeline.errors import UserError
from pipeline.files import file_sha256
from pipeline.flops import training_flops
from pipeline.generate.proof import reference_row
from pipeline.records import ADAPTER_FILE, Dose, Rung


class LadderCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed here
    """Sits in the trainer's loop for one task. `ending` says afterwards why the ladder ended."""

    def __init__(self, work: Climb, adapted: Any) -> None:
        self.work = work
        self.model = adapted
        self.rows = len(work.examples)  # of the trainer's data set: fewer where examples are packed
        self.adapter_parameters = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
        self.ending: Ending = "budget"
        self.start = work.last.dose if work.last else Dose()
        self.parking = False  # the checkpoint to be saved is no rung, but where a pause stops
        self.devices = work.allowance.attempt.devices
        held = {str(weight.device) for weight in adapted.parameters()}
        _require_counted(len(held), self.devices)
        self.cuda = sorted(device for device in held if device.startswith("cuda"))  # over which the model is spread
        # Device-seconds of the steps of this attempt alone: saving and canaries are not part of the price.
        self.step_seconds = 0.0
        self.dearest_s = 0.0
        self.dearest_flops = self._first_step_flops()  # until a step was measured
        self.began = 0.0
        self.flops_written = 0.0
        self.tokens_written = 0
        self.reference: list[dict[int, float]] = []  # what the model of the rung to be saved answers to the canaries

    def first_step_fits(self) -> bool:
        """Say whether the allowance has room for one step."""
        return self.work.allowance.fits(0.0, self.dearest_flops)

    def dose(self, state: Any) -> Dose:
        """Return the dose at the trainer's present step, earlier attempts included."""
        tokens = int(state.num_input_tokens_seen)
        seconds = self.start.device_seconds + self.step_seconds
        return Dose(
            steps=state.global_step,
            examples=self._examples(state.global_step),
            tokens=tokens,
            flops=training_flops(self.work.subject.parameters, self.adapter_parameters, tokens),
            device_seconds=seconds,
            usd=price(seconds, self.work.allowance.attempt.ledger.config),
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the step's clock."""
        settle(self.cuda)
        self.began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Account for the step; ask for a rung where one is due, and for the end where the next step would not fit."""
        settle(self.cuda)
        seconds = (time.monotonic() - self.began) * self.devices
        self.step_seconds += seconds
        self.dearest_s = max(self.dearest_s, seconds)
        attempt = self.work.allowance.attempt
        dose = self.dose(state)
        flops = dose.flops - self.start.flops
        # The estimate has done its work: the mean length of all examples may lie far above what steps really take.
        measured_before = self.dearest_flops if self.flops_written else 0.0
        self.dearest_flops = max(measured_before, flops - self.flops_written)
        attempt.flops += flops - self.flops_written  # others may add to the attempt as well: a search measures
        attempt.tokens += dose.tokens - self.start.tokens - self.tokens_written
        self.flops_written, self.tokens_written = flops, dose.tokens - self.start.tokens
        attempt.beat()
        if state.global_step >= self.work.task.rungs[-1]:
            self.ending = "max_steps"
            control.should_save = True
        elif not self.work.allowance.fits(self.dearest_s, self.dearest_flops):
            control.should_save = control.should_training_stop = True
        elif state.global_step in self.work.task.rungs:
            control.should_save = True
        self._pause(control)
        if control.should_save and not self.parking:
            self.reference = self.work.canaries.reference(self.model)
            if not all(math.isfinite(value) for row in self.reference for value in row.values()):
                self._end_on_nan(control)  # the loss was still a number, but this step's update broke the weights
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> Any:
        """Pass the training's figures on; a loss that is no number ends the arm before its weights are saved."""
        state.log_history.clear()  # each figure is passed on here: every checkpoint would write all of them again
        if logs and "loss" in logs:
            # In float16 torch scales the loss up, at first by 65,536. Where a gradient is too large for that, it leaves
            # the step out and halves the scale: that is expected, so the loss alone tells a fault there.
            scaled = self.work.task.config.training.precision == "float16"
            norm = 0.0 if scaled else logs.get("grad_norm", 0.0)
            if not (math.isfinite(logs["loss"]) and math.isfinite(norm)):
                self._end_on_nan(control)
            self.work.on_step(self.dose(state), {k: v for k, v in logs.items() if isinstance(v, int | float)})
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Hand over the saved checkpoint as a rung, with what the model in memory answers to the canaries."""
        step = state.global_step
        checkpoint = Path(args.output_dir) / f"checkpoint-{step}"
        rung = Rung(
            id=self.work.task.rung_id(step),
            arm=self.work.task.arm,
            seed=self.work.task.seed,
            step=step,
            path=str(checkpoint.relative_to(self.work.run_root)),
            sha256=file_sha256(checkpoint / ADAPTER_FILE) if self.work.leads else "",  # else not written here
            base_sha256=self.work.base_sha256,
            dose=self.dose(state),
        )
        if self.parking and self.work.pause:
            self.work.pause.park(rung)
        else:
            self.work.emit(rung, reference_row(rung.id, self.reference))
        self.work.allowance.attempt.beat(force=True)

    def _pause(self, control: Any) -> None:
        """Stop after this step where a pause is asked for, unless the ladder ends here; park where no rung is due."""
        pause = self.work.pause
        if pause is None or not pause.asked() or self.ending == "max_steps" or control.should_training_stop:
            return
        self.ending = "paused"
        self.parking = not control.should_save
        control.should_save = control.should_training_stop = True

    def _examples(self, steps: int) -> int:
        """Return the examples seen: an epoch's last batch holds what is left, a packed row their mean."""
        batch = self.work.task.config.training.batch_size
        epochs, rest = divmod(steps, math.ceil(self.rows / batch))
        seen = epochs * self.rows + min(rest * batch, self.rows)
        return round(seen * len(self.work.examples) / self.rows)

    def _end_on_nan(self, control: Any) -> None:
        self.ending = "nan_loss"
        control.should_save = False
        control.should_training_stop = True

    def _first_step_flops(self) -> float:
        """Return what one step costs by the mean length of the examples as cut: known before any step ran."""
        examples, training = self.work.examples, self.work.task.config.training
        lengths = [min(len(e.prompt_ids) + len(e.completion_ids), training.max_length) for e in examples]
        tokens = math.ceil(sum(lengths) / len(lengths) * training.batch_size)
        return training_flops(self.work.subject.parameters, self.adapter_parameters, tokens)


def settle(cuda: Sequence[str]) -> None:
    """Wait for what GPUs were told so far, so that a step's seconds hold its own work and all of it: a host runs ahead.

    What the trainer reads from a device once a step leaves the optimiser's work unfinished.
    """
    import torch

    for device in cuda:
        torch.cuda.synchronize(device)


def _require_counted(held: int, counted: int) -> None:
    """Make sure that no more devices hold the model than its dose is counted on.

    Raises:
        UserError: more do; what a fine-tune costs would look cheaper than it is.
    """
    if held > counted:
        raise UserError(
            f"budget.training_devices: a fine-tune is counted on {counted} and the model is spread over {held} devices",
            f"free the first device's memory; or start with budget.training_devices={held}, on Slurm with "
            "cluster.slurm.train.gpus, too (for a run that has begun it is another run)",
        )
