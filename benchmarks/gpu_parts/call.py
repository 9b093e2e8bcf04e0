"""One call of the script: its sizes, its device, its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from benchmarks.gpu_parts.device import Ceilings
from benchmarks.gpu_parts.models import SHAPES, TINY
from benchmarks.gpu_parts.record import Figure
from benchmarks.shapes import Shape

TIME_IS_UP: Final = "the call's minutes were used up"
T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """What a part needs to know. `ends` is when no further figure is begun (time.monotonic()); `root` is scratch."""

    device: str
    root: Path
    shapes: tuple[str, ...] = tuple(SHAPES)
    lengths: tuple[int, ...] = (512, 2048)
    short: bool = False
    ends: float = float("inf")
    ceilings: Ceilings = field(default_factory=Ceilings)
    only: str = ""  # figures whose key contains this

    @property
    def dtype(self) -> str:
        """Of weights: 16 bits on a GPU, and 32 on a CPU, where 16 are emulated."""
        return "bfloat16" if self.device.startswith("cuda") else "float32"

    def shape(self, name: str) -> Shape:
        """Return the shape of this name; with `short` a tiny one in its place."""
        return TINY if self.short else SHAPES[name]

    def time_is_up(self) -> bool:
        """Say whether no further figure should be begun."""
        return time.monotonic() >= self.ends


class Once(Generic[T]):
    """What several figures share, made for the first of them. What failed once is not tried again: it costs minutes."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._error = ""

    def __call__(self) -> T:
        """Return what was made.

        Raises:
            RuntimeError: it could not be made before.
        """
        if self._error:
            raise RuntimeError(self._error)
        if not self._made:
            try:
                self._made.append(self._make())
            except BaseException as error:
                self._error = str(error) or type(error).__name__
                raise
        return self._made[0]

    @property
    def ready(self) -> bool:
        """Whether asking costs nothing any more: it was made, or cannot be."""
        return bool(self._made or self._error)


@dataclass(frozen=True)
class Shared(Generic[T]):
    """How one figure is measured of what several share: once that is made, whatever the clock says."""

    made: Once[T]
    pick: Callable[[T], Figure]

    def __call__(self) -> Figure:
        """Return the figure."""
        return self.pick(self.made())


def no_time_for(call: Call, measure: Callable[[], Figure]) -> bool:
    """Say whether a figure is not to be begun; one that is made already, with another, costs no more time."""
    return call.time_is_up() and not (isinstance(measure, Shared) and measure.made.ready)


def scratch(call: Call, name: str) -> Path:
    """Return an empty folder of this call."""
    folder = call.root / f"{name}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    return folder
