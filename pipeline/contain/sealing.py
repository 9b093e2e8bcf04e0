"""Shuts the way to the hub: from then on this process can neither upload nor download.

The subject and the tables have been read by then. Servers that Holdfast starts are offline by their own environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TOKENS: Final = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "HF_TOKEN_PATH")
_taken: dict[str, str] = {}


def seal() -> None:
    """Take the hub's tokens out of the environment and set huggingface_hub to offline: each request of it raises."""
    import huggingface_hub.constants as hub

    for name in TOKENS:
        value = os.environ.pop(name, None)
        if value is not None:
            _taken[name] = value
    hub.HF_HUB_OFFLINE = True


@contextmanager
def unsealed() -> Iterator[None]:
    """Open the way again for one download that was planned: the weights of a judge. Then it is shut as it was.

    Where the user's environment says HF_HUB_OFFLINE=1, it stays shut.
    """
    import huggingface_hub.constants as hub

    sealed = hub.HF_HUB_OFFLINE
    os.environ.update(_taken)
    hub.HF_HUB_OFFLINE = hub._is_true(os.environ.get("HF_HUB_OFFLINE"))
    try:
        yield
    finally:
        for name in _taken:
            os.environ.pop(name, None)
        hub.HF_HUB_OFFLINE = sealed
