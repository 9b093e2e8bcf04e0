"""What a vLLM server is told of adapters: their names, which modules they change, how many stay in host memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pipeline.records import ADAPTER_FILE
from pipeline.schema import ServeConfig
from pipeline.schema.serve import devices_held
from pipeline.serve.width import Load, slots

TARGETS = "--lora-target-modules"
SHARE = 0.5  # of the host's free memory for adapters; the rest is for vLLM's own, and for reading weights


def adapter_options(adapters: Mapping[str, Path], config: ServeConfig, most: int, load: Load) -> list[str]:
    """Return vLLM's options for adapters, all but the rank's.

    A folder goes as JSON, vLLM's other form of --lora-modules: `name=path` breaks at a comma, and in 0.26 at a second
    equals sign too.

    Args:
        adapters: name on the server → adapter folder; one at least.
        config: slots, processes, and what the user says to vLLM.
        most: no more adapters than these are kept in host memory.
        load: of each adapter.
    """
    shared = slots(config, len(adapters), load)
    most, largest = min(len(adapters), most), largest_file(adapters.values())
    kept = kept_in_memory(most, shared, largest=largest, processes=devices_held(config), free=available())
    options = ["--enable-lora", "--max-loras", str(shared), "--max-cpu-loras", str(kept)]
    modules = None if _says(config.extra_args, TARGETS) else adapted_modules(adapters.values())
    if modules:
        options += [TARGETS, *modules]
    named = (json.dumps({"name": name, "path": str(path)}) for name, path in adapters.items())
    return [*options, "--lora-modules", *named]


def adapted_modules(folders: Iterable[Path]) -> list[str] | None:
    """Return the last parts of the names of all modules that some adapter changes; None: leave the choice to vLLM.

    vLLM otherwise wraps all that it can: embedding and LM head, which are multiplied by zeros then, and experts, for
    whose adapters it sets gigabytes aside.

    The weights' own names are asked. `target_modules` in `adapter_config.json` may be a pattern, or hold whole paths
    (after all-linear), and vLLM knows the parts of a fused module (q_proj of qkv_proj) by their last part alone. None
    where that says too little: experts, which it fuses under a name of their own; modules that were saved whole; files
    that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    found: set[str] = set()
    for folder in folders:
        try:
            with safe_open(folder / ADAPTER_FILE, framework="np") as file:
                keys = list(file.keys())
        except (OSError, SafetensorError):
            return None
        for key in keys:
            name, lora, _ = key.partition(".lora_")
            last = name.rpartition(".")[2]
            if not lora or ".experts" in name or not last.isidentifier():
                return None
            found.add(last)
    return sorted(found) or None


def largest_rank(folders: Iterable[Path]) -> int:
    """Return the largest rank that the adapters' own `adapter_config.json` names; 0 where none can be read.

    PEFT gives single modules another one, in `rank_pattern`.
    """
    return max((rank for folder in folders for rank in _ranks(folder / "adapter_config.json")), default=0)


def _ranks(file: Path) -> Iterator[int]:
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
        ranks = [stated.get("r"), *(stated.get("rank_pattern") or {}).values()]
    except (OSError, ValueError, AttributeError):
        return
    yield from (rank for rank in ranks if isinstance(rank, int))


def kept_in_memory(most: int, least: int, *, largest: int, processes: int, free: int | None) -> int:
    """Return how many adapters vLLM keeps in host memory: `most`, or as many as fit into `SHARE` of what is free.

    Each process of the engine pins every kept adapter whole, also where tensor parallelism splits its layers.

    Args:
        most: no more than these.
        least: no fewer than these, however little memory there is: one batch's.
        largest: bytes of the largest adapter; 0: not known.
        processes: ranks of all copies of the engine on this machine.
        free: bytes of memory that can be had; None: not known.
    """
    if largest and free is not None:
        most = min(most, int(free * SHARE) // (largest * processes))
    return max(least, most)


def largest_file(folders: Iterable[Path]) -> int:
    """Return the bytes of the largest adapter's weights on disk; 0 where there are none."""
    files = (folder / ADAPTER_FILE for folder in folders)
    return max((file.stat().st_size for file in files if file.is_file()), default=0)


def available(meminfo: Path = Path("/proc/meminfo"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes of memory that can be had without swapping; None where that cannot be told.

    The kernel's word for the machine (proc(5)), or what a job's or container's control group leaves (cgroups(7), v2).
    """
    try:
        told = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
        machine = int(told[1]) << 10 if told else None
    except OSError:
        machine = None
    known = [each for each in (machine, *_left_in(groups)) if each is not None]
    return min(known, default=None)


def _left_in(groups: Path) -> Iterator[int]:
    """Yield what the control group of this process, and each above it, leaves of its limit, in bytes."""
    try:
        told = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    except OSError:
        return
    mine = groups / (told[1] if told else "")
    for group in (mine, *mine.parents):
        if not group.is_relative_to(groups):
            return
        try:
            limit, used, stat = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current", "stat"))
        except OSError:
            continue
        cached = re.search(r"^inactive_file (\d+)$", stat, re.MULTILINE)  # pages of files, which give way
        if limit.isdigit() and used.isdigit():
            yield max(int(limit) - int(used) + int(cached[1] if cached else 0), 0)


def _says(words: Iterable[str], flag: str) -> bool:
    """Say whether an option is among some words, in any of the ways that vLLM's parser takes it."""
    return any(word.split("=")[0].replace("_", "-") == flag for word in words)
