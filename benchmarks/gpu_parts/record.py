"""Figures: what is to be measured, what was, and the table in which the rest says `not measured`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

NOT_MEASURED: Final = "not measured"
HEAD: Final = ("| what | value | ratio | target | |", "| --- | ---: | ---: | ---: | --- |")
TITLES: Final = {
    "ceiling": "The device's own ceilings",
    "a": "LoRA training: tokens/s, and model-FLOPs utilisation (share of the measured matrix product)",
    "b": "Generation with adapters mixed in one engine, against the bare base",
    "c": "Engine start",
    "d": "The whole pipeline on a 50 M-parameter subject",
    "e": "One engine for all adapters, against merging and an engine per checkpoint",
    "f": "Sharing one device: sleep and wake against another start",
}


@dataclass(frozen=True)
class Wanted:
    """One figure to be measured. `key` is unique within `part`; `ratio_of` says what its ratio or share is of."""

    part: str
    key: str
    what: str
    unit: str
    ratio_of: str = ""
    target: str = ""

    @property
    def id(self) -> tuple[str, str]:
        """What the figure is found by."""
        return self.part, self.key


@dataclass(frozen=True)
class Figure:
    """One figure with a note in `why`, or why there is none (then `value` is NaN).

    `raw` holds the timings in seconds and counts that `value` and `ratio` come from; `about` device, versions and date.
    """

    wanted: Wanted
    value: float = math.nan
    ratio: float = math.nan
    why: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there is a number."""
        return not math.isnan(self.value)


def read(paths: Iterable[Path]) -> list[Figure]:
    """Return the figures of several files; of one figure on one device the last that was measured, else the last."""
    kept: dict[tuple[str, str, str], Figure] = {}
    for path in paths:
        for row in json.loads(path.read_text(encoding="utf-8"))["figures"]:
            numbers = {key: math.nan if row[key] is None else row[key] for key in ("value", "ratio")}
            figure = Figure(**{**row, **numbers, "wanted": Wanted(**row["wanted"])})
            place = (device_of(figure), *figure.wanted.id)
            if figure.measured or place not in kept or not kept[place].measured:
                kept[place] = figure
    return list(kept.values())


def write(figures: Sequence[Figure], path: Path, wanted: Sequence[Wanted]) -> None:
    """Write the figures as JSON to `path`, and as Markdown beside it; a reader never sees half a file."""
    rows = []
    for figure in figures:
        row = asdict(figure)
        rows.append({**row, **{key: None if math.isnan(row[key]) else row[key] for key in ("value", "ratio")}})
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, text in (
        (path, json.dumps({"figures": rows}, indent=1, allow_nan=False) + "\n"),
        (path.with_suffix(".md"), markdown(figures, wanted)),
    ):
        half = file.with_suffix(f"{file.suffix}.half")
        half.write_text(text, encoding="utf-8")
        half.replace(file)


def device_of(figure: Figure) -> str:
    """Return the name of the device that a figure was measured on."""
    return str(figure.about.get("device", "no device"))


def markdown(figures: Sequence[Figure], wanted: Sequence[Wanted]) -> str:
    """Return one section a device, with every wanted figure in it; what is not there says so."""
    devices = list(dict.fromkeys(map(device_of, figures))) or ["no device"]
    parts = ["# On a GPU"]
    for device in devices:
        mine = {figure.wanted.id: figure for figure in figures if device_of(figure) == device}
        parts.append(f"## {device}")
        parts += _about(list(mine.values()))
        everything = {want.id: want for want in [*wanted, *(figure.wanted for figure in mine.values())]}
        for part, title in TITLES.items():
            rows = [_row(want, mine.get(want.id)) for want in everything.values() if want.part == part]
            if rows:
                parts.append("\n".join([f"### ({part}) {title}", "", *HEAD, *rows]))
    return "\n\n".join(parts) + "\n"


def _about(figures: Sequence[Figure]) -> list[str]:
    lines = dict.fromkeys(
        f"{about['date']}: " + ", ".join(f"{name} {number}" for name, number in about["versions"].items()) + "."
        for about in (figure.about for figure in figures if figure.measured)
    )
    short = any(figure.about.get("short") for figure in figures)
    warning = ["**Shortened sizes: these show that the script runs; the figures mean nothing.**"] if short else []
    return [*lines, *warning]


def _row(want: Wanted, figure: Figure | None) -> str:
    if figure is None or not figure.measured:
        why = figure.why if figure else ""
        return f"| {want.what} | {NOT_MEASURED} | | {want.target} | {why} |"
    ratio = "" if math.isnan(figure.ratio) else f"{figure.ratio:.3g} {want.ratio_of}".rstrip()
    return f"| {want.what} | {figure.value:,.4g} {want.unit} | {ratio} | {want.target} | {figure.why} |"
