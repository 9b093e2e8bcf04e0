"""`holdfast -m subject.organism.seed=0,1 seeds=[0,1],[2,3]`: several runs by one command, one after the other.

Overrides are Hydra's own sweeps (`a,b`, `range(…)`, `choice(…)`), every combination a run with a run folder of its own.
Every configuration is checked before the first run starts. Each run is a process of its own: one that fails or is
killed ends none of the others, and memory is given back in between.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

import pipeline
from pipeline.alone import ALONE
from pipeline.config.compose import all_told
from pipeline.config.words import readable, unread
from pipeline.errors import EXIT_INSTRUMENT, UserError
from pipeline.files import digest
from pipeline.plan.digests import digested_config, reply_config
from pipeline.reproduce.again import KEY, composed
from pipeline.schema import Config

FLAGS: Final = ("-m", "--multirun")
_EACH_ITS_FOLDER: Final = "give each a folder by hand, in a command of its own with run.dir=FOLDER"
_PLUGINS: Final = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper", "hydra.sweep")


def asked(arguments: Sequence[str]) -> bool:
    """Say whether a command line asks for several runs."""
    return any(word in FLAGS for word in arguments)


def jobs(arguments: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each run, in the order of the command line, the last sweep turning fastest.

    Raises:
        UserError: a word is no override, a sweep has no list of values, or Hydra's own launchers are asked for.
    """
    words = [word for word in arguments if word not in FLAGS]
    options = [word for word in words if word.startswith("-")]
    if options:
        raise UserError(f"{options[0]} does not go with -m", "leave -m out, or this option; nothing was run")
    words = readable(words, sweeps=True)
    if bad := unread(words, sweeps=True):
        raise all_told(list(bad.values()))
    values: dict[str, list[str]] = {}
    try:
        for override in OverridesParser.create().parse_overrides(words):
            key = override.get_key_element()
            if key.lstrip("+~").startswith(_PLUGINS):
                raise UserError(
                    f"{key}: runs go one after the other, by Holdfast itself", "leave it out; nothing was run"
                )
            if override.is_sweep_override():
                values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            else:
                values[key] = [str(override.input_line)]
    except (HydraException, AssertionError) as error:
        raise UserError(f"-m: {error or 'a sweep without a list of values'}", "see `holdfast --help`") from None
    return [list(job) for job in itertools.product(*values.values())]


def multirun(arguments: Sequence[str]) -> int:
    """Check every run, then run each; return the largest exit code: 0 only where all ended with 0.

    Raises:
        UserError: some configuration has a fault, or two runs would share a folder; nothing was run.
    """
    planned = jobs(arguments)
    seen: dict[str, int] = {}
    for place, job in enumerate(planned, start=1):
        config = composed(job)
        if config.stages[0] not in ALONE and (first := seen.setdefault(_folder(config), place)) != place:
            again = any(word.lstrip("+").startswith(f"{KEY}=") for word in job)
            raise UserError(
                f"-m: runs {first} and {place} would share one folder: "
                + (f"{KEY} names it in both" if again else "what differs between them changes no reply"),
                ("give each a command of its own" if again else _EACH_ITS_FOLDER)
                + "; or read the replies of one run by several judges with panel=; nothing was run",
            )
    codes = []
    for place, job in enumerate(planned, start=1):
        print(f"holdfast: run {place} of {len(planned)}: {' '.join(job)}", file=sys.stderr, flush=True)
        codes.append(_code(subprocess.run([*itself(), *job], check=False).returncode))
    ended = ", ".join(f"run {place}: {code}" for place, code in enumerate(codes, start=1))
    print(f"holdfast: {len(codes)} runs, exit codes: {ended}", file=sys.stderr)
    return max(codes)


def _folder(config: Config) -> str:
    """Return what tells the folder of a run from that of every other, before anything is read or hashed."""
    run = config.run
    if run.dir:
        return str(Path(run.dir).expanduser().resolve())
    resolved = asdict(config)
    names = {key: resolved[key] for key in ("data", "evals", "subject")}  # what is digested by its content: by name
    root = Path(run.root).expanduser().resolve()
    return digest([str(root), config.name, reply_config(digested_config(resolved)), names])


def itself() -> list[str]:
    """Return the command that starts this very Holdfast anew, whatever folder it is started in.

    Where it is installed, `-P` keeps a folder `pipeline/` that happens to lie there from taking its place. A checkout
    that is not installed is found by its own folder alone.
    """
    own = sys.path if sys.flags.safe_path else sys.path[1:]  # without the script's folder, or that of `python -m`
    found = PathFinder.find_spec("pipeline", own)
    installed = found is not None and found.origin == pipeline.__file__
    return [sys.executable, "-Pm" if installed else "-m", "pipeline"]


def _code(returncode: int) -> int:
    """Return a child's exit code; one that a signal ended is a failed instrument."""
    return returncode if returncode >= 0 else EXIT_INSTRUMENT
