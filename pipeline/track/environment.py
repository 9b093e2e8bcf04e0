"""The environment of the processes that speak with W&B: quiet, without what they have no need of, in one folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# What such a process gets of the user's environment: what a program needs to start and to reach a server.
_PASSED: Final = frozenset(
    (
        *("PATH", "HOME", "USERPROFILE", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "LD_LIBRARY_PATH"),
    )
)
_PASSED_ONLINE: Final = frozenset(
    (
        *("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    )
)


def temporary(folder: Path) -> Path:
    """Return the folder for W&B's temporary files inside `folder`, made where it is missing."""
    inside = folder / "tmp"
    inside.mkdir(parents=True, exist_ok=True)
    return inside


def wandb_environment(folder: Path, *, online: bool) -> dict[str, str]:
    """Return the environment of a process that uses W&B and writes to `folder` only.

    Args:
        folder: `<run folder>/wandb`.
        online: whether the process may learn the server's address and the key.
    """
    passed = _PASSED | _PASSED_ONLINE if online else _PASSED
    folders = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR")
    return {
        **{key: value for key, value in os.environ.items() if key in passed},
        **{key: str(folder / key.split("_")[1].lower()) for key in folders},
        "TMPDIR": str(temporary(folder)),
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",  # telemetry is sent even offline without this
    }
