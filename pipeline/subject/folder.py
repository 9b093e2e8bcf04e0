"""Where a model's files are, and whether they may be opened: a folder, the organism, or a pinned commit of the Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import file_sha256
from pipeline.organism import build, recipe_digest
from pipeline.schema import SubjectConfig
from pipeline.subject.digests import folder_sha256

ORGANISM = "organism:"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model", "vocab*", "merges*"]


def identity(config: SubjectConfig) -> dict[str, Any]:
    """Return what names the subject in the plan's digest, without loading weights.

    The organism is named by its recipe and a Hub model by its commit; a local folder by the digest of its files.
    A chat template of its own file is named by that file's digest.

    Raises:
        UserError: the path or the template is missing, or a Hub id has no pinned revision.
    """
    template = template_file(config)
    return _weights(config) | ({} if template is None else {"chat_template": file_sha256(template)})


def _weights(config: SubjectConfig) -> dict[str, Any]:
    if config.path == ORGANISM:
        if config.organism is None:
            raise UserError('subject.organism: missing, but subject.path is "organism:"', "use subject=organism")
        return {"organism": recipe_digest(config.organism)}
    folder = _local(config.path)
    if folder is not None:
        return {"sha256": folder_sha256(folder)}
    if config.revision is None or not _COMMIT.fullmatch(config.revision):
        raise UserError(
            f"subject.revision: {config.path} is a Hub id, but its revision is {config.revision!r}, not a commit",
            "pin it: subject.revision=<the 40 hexadecimal digits of a commit>",
        )
    return {"hub": config.path, "revision": config.revision}


def data_folder(config: SubjectConfig) -> Path | None:
    """Return the folder that "organism:" stands for in table paths, made on the spot where it is missing."""
    if config.path != ORGANISM or config.organism is None:
        return None
    return build(config.organism).data


def model_folder(config: SubjectConfig) -> Path:
    """Return the folder of a model's weights, made or downloaded where they are not there yet, and checked.

    Raises:
        UserError: no such folder, no pinned revision, or no weights that can be opened without running code.
    """
    identity(config)
    path = _fetch(config)
    _check_folder(path, made_here=config.path == ORGANISM)
    return path


def _local(path: str) -> Path | None:
    """Return the local folder that `path` names, None for a Hub id."""
    folder = Path(path).expanduser()
    if os.path.isdir(folder):  # false, as `exists`, for a name that is longer than a file system takes
        return folder.resolve()
    if os.path.exists(folder) or not _HUB_ID.fullmatch(path) or path.startswith((".", "/", "~")):
        raise UserError(
            f"subject.path: {path} is not a model folder",
            "name a local folder, or a Hub id with subject.revision=",
        )
    return None


def _fetch(config: SubjectConfig) -> Path:
    if config.path == ORGANISM:
        assert config.organism is not None  # identity() has checked it
        return build(config.organism).model
    folder = _local(config.path)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(config.path, revision=config.revision, allow_patterns=_WANTED))
    except Exception as error:  # the hub's client raises some twenty kinds
        raise UserError(
            f"subject.path: cannot get {config.path} at {config.revision}: {type(error).__name__}: {error}",
            "check the id, the revision, the network and your access, or use a local folder",
        ) from None


def _check_folder(path: Path, *, made_here: bool) -> None:
    """Refuse what cannot be opened safely; the organism's folder holds what its recipe wrote."""
    if not (path / "config.json").is_file():
        raise UserError(f"subject.path: {path} has no config.json", "name a folder saved by save_pretrained")
    if not list(path.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
        found = f"only pickled weights ({pickles[0]}), which can run code" if pickles else "no weights"
        raise UserError(
            f"subject.path: {path} holds {found}",
            "convert them: model.save_pretrained(folder) writes safetensors",
        )
    if made_here:
        return
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"subject.path: transformers cannot open {path} without running code from it: {error}",
            "Holdfast runs no code from a model folder; use an architecture that transformers knows",
        ) from None


def template_file(config: SubjectConfig) -> Path | None:
    """Return the file of a chat template of its own, None where the tokenizer's is used.

    Raises:
        UserError: it is missing.
    """
    if config.chat_template is None:
        return None
    template = Path(config.chat_template).expanduser()
    if not template.is_file():
        raise UserError(f"subject.chat_template: {template} is missing", "name a Jinja file")
    return template
