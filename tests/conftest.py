"""Options and fixtures that tests share. Nothing here reaches the network or a tracker."""

import functools
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import omegaconf.omegaconf
import pytest
import yaml
from omegaconf._utils import get_yaml_loader
from tiny import TinySubject, save_tiny_subject

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported, so before any test imports it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]  # a developer's own account is no part of a test
os.environ["WANDB_ERROR_REPORTING"] = "false"

# Files that take minutes start first, so that no worker is left alone with one at the end. The first of them trains the
# organism (a minute, once in a machine's life); what waits for it comes last.
FIRST = (
    *("cluster/test_slurm_real.py", "publish/", "torture/", "track/test_track.py", "report/test_report_browser.py"),
    *("search/", "inspectai/", "real/", "sharded/"),
)
OPT_IN = {
    "slow": "takes minutes: opt in with --slow",
    "gpu": "needs a CUDA device: opt in with --gpu",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, reason in OPT_IN.items():
        parser.addoption(f"--{name}", action="store_true", help=f"also run the tests marked {name} ({reason})")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for name, reason in OPT_IN.items():
        if not config.getoption(f"--{name}"):
            for item in items:
                if item.get_closest_marker(name):
                    item.add_marker(pytest.mark.skip(reason=reason))
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        path = str(item.path.relative_to(here))
        return next((at for at, first in enumerate(FIRST) if path.startswith(first)), len(FIRST))

    items.sort(key=place)  # stable: else as collected


@pytest.fixture(scope="session", autouse=True)
def _a_text_is_parsed_once() -> Iterator[None]:
    """500 tests compose a configuration from the same files: reading their YAML would be a fifth of it each time."""
    loader = get_yaml_loader()  # OmegaConf makes the same class anew at each call
    parsed = functools.cache(lambda text: yaml.load(text, loader))

    class Yaml:
        @staticmethod
        def load(stream: Any, **_: Any) -> Any:
            return parsed(stream if isinstance(stream, str) else stream.read())

        def __getattr__(self, name: str) -> Any:
            return getattr(yaml, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omegaconf.omegaconf, "yaml", Yaml())
        yield


@pytest.fixture(scope="session", autouse=True)
def _files_are_composed_once(_a_text_is_parsed_once: None) -> Iterator[None]:
    from composed import kept

    from pipeline.config import compose as config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "_compose", kept(config._compose))
        yield


@pytest.fixture(scope="module", autouse=True)
def _old_objects_are_no_garbage() -> None:
    """Take what torch and others left in memory out of each later search for garbage: a fifth of the tests' time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # else nanobind's modules list all they hold as leaks at the end


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Where processes are forked from that need not import anything (`tests/warm.py`), one for all workers."""
    from tests.warm import source

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with ExitStack() as lines:

        def find(kind: str) -> Path:
            path, line = source(kind, shared)
            lines.enter_context(line)
            return path

        yield functools.cache(find)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_tiny_subject(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_subject(tiny_folder: Path) -> TinySubject:
    from pipeline.schema import SubjectConfig
    from pipeline.subject.subject import open_subject

    return TinySubject(tiny_folder, open_subject(SubjectConfig("tiny", str(tiny_folder), dtype="float32")))


@pytest.fixture(scope="session")
def tiny_model(tiny_subject: TinySubject) -> Any:
    """The weights in memory; a test that changes them puts them back."""
    return tiny_subject.subject.load_model("cpu")
