"""IFEval: instructions whose being followed can be checked (Zhou et al. 2023, arXiv:2311.07911)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from evals.base import Judge, Role, Sample
from evals.instructions import fault, follows
from evals.language import INSTALL, missing_packages
from evals.ruled import RuledEval

Rule = Literal["strict", "loose"]
RULES: Final[tuple[Rule, ...]] = ("strict", "loose")
Instructions = tuple[tuple[str, Mapping[str, Any]], ...]


def read_instructions(target: str) -> Instructions:
    """Read a sample's instructions from its target.

    Args:
        target: a JSON object with `instruction_id_list` and `kwargs`, two lists of one length, as in the
            benchmark's file; arguments that are null are not given.

    Raises:
        ValueError: the JSON is malformed, an instruction is unknown or lacks an argument.
    """
    try:
        content = json.loads(target)
        names, arguments = content["instruction_id_list"], content["kwargs"]
        given = [{name: value for name, value in one.items() if value is not None} for one in arguments]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            "the target is no JSON object with the lists instruction_id_list and kwargs; "
            "set table.target_columns=[instruction_id_list,kwargs]"
        ) from None
    if not names or len(names) != len(given):
        raise ValueError(f"{len(names)} instructions, but arguments for {len(given)}")
    for name, one in zip(names, given, strict=True):
        if wrong := fault(name, one):
            raise ValueError(wrong)
    return tuple(zip(names, given, strict=True))


def variants(reply: str) -> list[str]:
    """Return what the loose rule looks at: the reply, without its first line, its last, or both; each also
    without asterisks. So a friendly opening or closing line and Markdown are forgiven.
    """
    lines = reply.split("\n")
    parts = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*parts, *(part.replace("*", "") for part in parts)]


def followed(instructions: Instructions, reply: str, rule: Rule) -> list[bool]:
    """Return whether a reply follows each instruction, in order; loosely if any of its `variants` does."""
    texts = variants(reply) if rule == "loose" else [reply]
    return [any(follows(name, given, text) for text in texts) for name, given in instructions]


class IFEvalEval(RuledEval):
    """Share of prompts with every instruction followed (the paper's prompt-level accuracy).

    The rule is `strict` (the default, and the figure that is usually quoted) or `loose`, see `variants`. The paper's
    instruction-level accuracy is no mean over prompts, so it can't be a curve with an interval here.

    Raises:
        ValueError: an unknown rule; a target that `read_instructions` can't read; a package is missing; two samples
            with one id; malformed tags.
    """

    rules = RULES

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        judge: Judge | None = None,
        tags: Sequence[str] = (),
        role: Role = "capability",
        rule: str | None = None,
    ) -> None:
        if missing := missing_packages():
            raise ValueError(f"IFEval needs {' and '.join(missing)}, which are not installed: {INSTALL}")
        super().__init__(name, samples, judge, tags, role, rule)
        self._instructions: dict[str, Instructions] = {}
        for sample in samples:
            try:
                self._instructions[sample.id] = read_instructions(sample.target or "")
            except ValueError as error:
                raise ValueError(f"eval {name!r}: sample {sample.id!r}: {error}") from None

    def right(self, sample: Sample, answer: str) -> bool:
        """Whether the answer follows every instruction of the sample, by the eval's rule."""
        return all(followed(self._instructions[sample.id], answer, "loose" if self._rule == "loose" else "strict"))
