"""Encryption at rest, by age (`pyrage`): to public keys, so that a run never holds what could open its own files."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import force
from pipeline.schema.contain import ContainConfig


def recipients(config: ContainConfig, run: Path) -> list[Any]:
    """Return the age public keys to which stripped weights are encrypted.

    Args:
        config: where the keys are: a file, or an environment variable.
        run: the run folder, in which the file must not lie.

    Raises:
        UserError: there is none, one is no age public key, a secret key was given, or the file lies in the run folder.
    """
    from pyrage import x25519

    lines = [line.strip() for line in _text(config, run).splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    where = f"contain.recipients: {config.recipients}" if config.recipients else f"${config.recipients_env}"
    if any(line.upper().startswith("AGE-SECRET-KEY") for line in named):
        raise UserError(
            f"{where}: holds a secret key; whoever has it can open the stripped weights",
            "give the public key (age1…), and keep the secret one off this machine",
        )
    keys = []
    for number, line in enumerate(named, start=1):
        try:
            keys.append(x25519.Recipient.from_str(line))
        except Exception:  # pyrage's own kinds
            raise UserError(
                f"{where}: key {number} is not an age public key", "make a pair with age-keygen; give its public key"
            ) from None
    if not keys:
        raise UserError(
            "contain.keep=true, but there is no key to encrypt the stripped weights to",
            f"name a file of age public keys with contain.recipients=, or set ${config.recipients_env}",
        )
    return keys


def _text(config: ContainConfig, run: Path) -> str:
    if config.recipients is None:
        return os.environ.get(config.recipients_env, "")
    path = Path(config.recipients).expanduser().resolve()
    if path.is_relative_to(run.resolve()):
        raise UserError(f"contain.recipients: {path} lies in the run folder", "keep keys elsewhere")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"contain.recipients: cannot read {path}: {error}", "name a text file of public keys") from None


def encrypt_folder(folder: Path, target: Path, keys: Sequence[Any]) -> None:
    """Write a folder as an encrypted tar file; the plain tar never stands on a disk. The target appears whole or not,
    and is on the disk when this returns.

    Raises:
        OSError: the target can't be written.
    """
    from pyrage import encrypt_io

    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    read, write = os.pipe()
    failures: list[BaseException] = []

    def pack() -> None:
        try:
            with os.fdopen(write, "wb") as sink, tarfile.open(fileobj=sink, mode="w|") as tar:
                for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
                    tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
        except BaseException as error:
            failures.append(error)

    packer = threading.Thread(target=pack, daemon=True)
    try:
        with os.fdopen(read, "rb") as source, partial.open("wb") as file:
            partial.chmod(0o600)
            packer.start()
            encrypt_io(source, file, list(keys))
            packer.join()
            file.flush()
            os.fsync(file.fileno())
        if failures:
            raise failures[0]
        partial.replace(target)
        force(target)
    finally:
        partial.unlink(missing_ok=True)
