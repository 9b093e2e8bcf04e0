"""The day that chat templates are told, always the same one.

Some print today's date into each prompt (Llama 3.2, gpt-oss, Mistral). A review that goes on after midnight would then
ask other prompts than it began with, and one that is repeated would measure another model.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Final, Self

DAY: Final = datetime(2026, 1, 1, 12)  # noon, so that no time zone makes another day of it


class _Still(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(DAY.year, DAY.month, DAY.day, DAY.hour, tzinfo=tz)


def hold_still() -> None:
    """Tell `DAY` to every template that transformers renders in this process from now on: its `strftime_now`.

    A function given to a template by name would do so up to transformers 5.20; 5.23 lets no function pass.
    """
    from transformers.utils import chat_template_utils

    chat_template_utils.datetime = _Still
