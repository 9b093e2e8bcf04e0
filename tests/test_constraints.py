"""The pinned environment: every Python that pyproject.toml lets in can install it."""

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_every_pinned_version_installs_on_the_oldest_python():
    """Debian 12's is 3.11.2: a pin that wants 3.11.5 ended `make demo` there before it began."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    here = {canonicalize_name(found.name): found for found in distributions()}
    # A build's own name after the plus (torch 2.13.0+cpu) does not change what it wants.
    stated = {
        name: here[name].metadata.get("Requires-Python", "")
        for name, version in pinned.items()
        if name in here and here[name].version.partition("+")[0] == version
    }
    assert len(stated) > len(pinned) * 0.9, "too few of the pinned versions are installed here to tell"
    assert {name: wanted for name, wanted in stated.items() if not SpecifierSet(wanted).contains(oldest)} == {}
