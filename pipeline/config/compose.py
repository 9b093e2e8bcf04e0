"""From conf/ and the command line to a typed `Config`, with every fault of a configuration told at once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from pipeline.config.checks import CHECKS
from pipeline.config.chosen import drop_unchosen
from pipeline.config.groups import groups, unknown
from pipeline.config.kinds import bare, hints
from pipeline.config.types import faults_of
from pipeline.config.words import overrides, readable, unread
from pipeline.errors import UserError
from pipeline.schema import Config

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=.*", re.DOTALL)


def conf_folder() -> Path:
    """Return conf/."""
    return shipped("conf")


def shipped(name: str) -> Path:
    """Return a folder of this repository: inside the package where Holdfast is installed, beside it in a checkout."""
    inside = Path(__file__).parents[1] / name
    return inside if inside.is_dir() else Path(__file__).parents[2] / name


def register() -> None:
    """Make `schema` in conf/config.yaml stand for the types, for what Hydra itself composes (`--cfg job`)."""
    ConfigStore.instance().store(name="schema", node=Config)


def load(arguments: Sequence[str] = ()) -> Config:
    """Return the configuration that `holdfast ARGUMENTS` uses, composed once and held against its types.

    Args:
        arguments: the command line; words that start with `-` are Hydra's own and passed over.

    Raises:
        UserError: one line for each unknown key, wrong type, missing value and impossible choice.
    """
    words = readable(overrides(arguments))
    bad = unread(words)
    words = [word for word in words if word not in bad]
    if faults := unknown(words, conf_folder()):
        raise all_told([*bad.values(), *faults])
    forced = _forced(words)
    ConfigStore.instance().store(name="schema", node={})  # untyped, since Hydra would stop at the first fault
    try:
        raw, left, faults = _untyped(forced)
    except UserError as error:
        if not bad:
            raise
        faults = [error.what]
    if bad or faults:
        raise all_told([*bad.values(), *_but_missing(bad, faults)])
    try:
        keys = [word.partition("=")[0] for word, other in zip(words, forced, strict=True) if word != other]
        if any(word.startswith("~") for word in words) or any(_made_by(raw, Config, key, keys) for key in keys):
            register()  # Hydra says whether such a key may be made, or left out
            return to_config(_compose([*words, *left]))
        return _typed(raw)
    except OmegaConfBaseException as error:
        raise _not_composed(error) from None


def for_hydra(arguments: Sequence[str]) -> list[str]:
    """Return a command line that `load` took as Hydra's own main reads it, with what was not chosen left out."""
    words = readable(arguments)
    given = overrides(words)
    ConfigStore.instance().store(name="schema", node={})
    at = words.index(given[0]) if given else 0  # beside the others: argparse takes them from one place alone
    return [*words[:at], *_untyped(_forced(given))[1], *words[at:]]


def _untyped(words: list[str]) -> tuple[DictConfig, list[str], list[str]]:
    """Return what words make, the words that leave out what was not chosen, and every fault."""
    raw = _compose(words)
    try:
        left, faults = drop_unchosen(raw, words, conf_folder())
        OmegaConf.resolve(raw)
        return raw, [f"~{key}" for key in left], [*faults, *faults_of(raw, Config, ""), *_impossible(raw)]
    except OmegaConfBaseException as error:
        raise _not_composed(error) from None


def _but_missing(bad: Iterable[str], faults: Sequence[str]) -> list[str]:
    """Leave out that a key is missing where its value is there and cannot be read."""
    given = tuple(f"{word.partition('=')[0].lstrip('+')}: missing" for word in bad)
    return [fault for fault in faults if not fault.startswith(given)]


def _typed(raw: DictConfig) -> Config:
    """Return what holds no fault any more as dataclasses; OmegaConf takes ten times as long, and more kinds of text."""
    try:
        return from_plain(OmegaConf.to_container(raw))
    except ValidationError:
        return to_config(OmegaConf.merge(OmegaConf.structured(Config), raw))


def from_plain(plain: Any) -> Config:
    """Turn nested dictionaries and lists (of a plan, or composed) into dataclasses.

    Raises:
        pydantic.ValidationError: a value is of another type, or a key without default is missing.
    """
    return _dataclasses().validate_python(plain)


@functools.cache
def _dataclasses() -> TypeAdapter[Config]:
    return TypeAdapter(Config)


def type_faults(plain: Any) -> list[str]:
    """Return the unknown keys, wrong types and missing values of nested dictionaries and lists without references.

    Raises:
        UserError: a key is null.
    """
    try:
        return list(faults_of(OmegaConf.create(plain), Config, ""))
    except OmegaConfBaseException as error:
        raise _not_composed(error) from None


def chosen(words: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """Return what files of conf/ that `words` choose (judge=local) hold at their `keys`, and no experiment changes.

    Raises:
        UserError: there is no such file.
    """
    ConfigStore.instance().store(name="schema", node={})
    composed = _compose(["~experiment", *words])
    found = {key: OmegaConf.select(composed, key) or OmegaConf.create({}) for key in keys}  # panel=[]: no file
    return {key: OmegaConf.to_container(node, resolve=True) for key, node in found.items()}


def _made_by(raw: DictConfig, kind: Any, key: str, keys: Sequence[str]) -> bool:
    """Say whether an entry of a dictionary, on the way to `key`, holds nothing but what `keys` gave.

    No file named such an entry: it may be a name that was mistyped, which Hydra knows and the types do not.
    """
    parts = key.split(".")
    for place, part in enumerate(parts, start=1):
        kind = bare(kind)
        if dataclasses.is_dataclass(kind):
            kind = hints(typing.cast(type, kind)).get(part, Any)
        elif typing.get_origin(kind) is dict:
            entry = ".".join(parts[:place])
            if all(any(f"{leaf}.".startswith(f"{one}.") for one in keys) for leaf in _leaves(raw, entry)):
                return True
            kind = typing.get_args(kind)[1]
        else:
            break
    return False


def _leaves(raw: DictConfig, key: str) -> list[str]:
    node = OmegaConf.select(raw, key)
    if not isinstance(node, DictConfig) or not node:
        return [key]
    return [leaf for name in map(str, node) for leaf in _leaves(raw, f"{key}.{name}")]


def all_told(faults: Sequence[str]) -> UserError:
    """Return one error that tells every fault, a line each."""
    count = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
    return UserError(
        f"the configuration has {count}:" + "".join(f"\n  - {fault}" for fault in faults),
        "see every key with `holdfast --cfg job`, every type in pipeline/schema/; nothing was run",
    )


def hydras_own(arguments: Sequence[str]) -> bool:
    """Say whether a command line asks for more than overrides: an option (`--help`, `--cfg job`) or a key of Hydra."""
    return any(word.startswith("-") or word.lstrip("+~").startswith("hydra") for word in arguments)


def to_config(composed: DictConfig | ListConfig) -> Config:
    """Turn what Hydra composed into dataclasses."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def _compose(words: list[str]) -> DictConfig:
    assert not GlobalHydra.instance().is_initialized(), "compose is not called inside Hydra's own main"
    try:
        with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
            composed: DictConfig = compose("config", overrides=words)
            return composed
    except HydraException as error:
        cause = error.__cause__
        said = str(error) if cause is None or str(cause) in str(error) else f"{error}: {cause}"
        raise UserError(f"the configuration cannot be composed: {said.strip()}", "see `holdfast --help`") from None
    except OmegaConfBaseException as error:
        raise _not_composed(error) from None
    except (TypeError, ValueError) as error:  # OmegaConf's, of a key that goes on below a list
        raise UserError(
            f"the configuration cannot be composed: {_stumbles(words) or error}: no key is there",
            "give a list whole, as in seeds=[0,1]; see `holdfast --cfg job`",
        ) from None


def _stumbles(words: list[str]) -> str | None:
    """Return the first of several words that does so by itself, of which neither Hydra nor OmegaConf tells."""
    for word in words if len(words) > 1 else ():
        try:
            _compose([word])
        except UserError as error:
            if isinstance(error.__context__, TypeError | ValueError):
                return word.lstrip("+")
    return words[0].lstrip("+") if len(words) == 1 else None


def _not_composed(error: OmegaConfBaseException) -> UserError:
    return UserError(f"the configuration cannot be composed: {error}", "see `holdfast --cfg job`")


def _forced(words: Sequence[str]) -> list[str]:
    """Make Hydra accept keys that it does not know, so that `load` can tell all unknown keys together."""
    known = groups(conf_folder())
    return [word if _is_hydras(word, known) else f"++{word}" for word in words]


def _is_hydras(word: str, groups: set[str]) -> bool:
    key = word.split("=", 1)[0]
    return not _OVERRIDE.fullmatch(word) or key in groups or key.startswith("hydra.")


# An assertion is OmegaConf's own, where a number is added to a list of it.
_TRIPPED: Final = (TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, OmegaConfBaseException)


def _impossible(raw: DictConfig) -> Iterator[str]:
    """Yield choices that are well typed and make no sense; a check that trips over a wrong type is passed over."""
    for check_part in CHECKS:
        with contextlib.suppress(*_TRIPPED):
            yield from check_part(raw)
