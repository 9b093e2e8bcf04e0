"""What a figure of `benchmarks.gpu` leaves behind: no model, no patch, no cached memory; a reason where it failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.child import MOST_CHARACTERS, MOST_LINES, ROOT, Child, offline, reason_in
from benchmarks.gpu_parts import device, models, serving, training, whole
from benchmarks.gpu_parts.call import Call
from benchmarks.gpu_parts.device import Ceilings
from benchmarks.gpu_parts.engine import Engine
from benchmarks.gpu_parts.record import Figure, Wanted
from benchmarks.gpu_parts.way import Way

WANT = Wanted("b", "one", "one figure", "tokens/s")
ENGINE_LOG = """\
INFO 11-22 10:43:11 [core.py:93] Initializing a V1 LLM engine
(EngineCore pid=7) ERROR 11-22 10:43:12 [core.py:1100] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-22 10:43:12 [core.py:1100] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-22 10:43:12 [core.py:1100]   File "core.py", line 1, in run
(EngineCore pid=7) ERROR 11-22 10:43:12 [core.py:1100]     raise ValueError("a frame, not the cause")
(EngineCore pid=7) ERROR 11-22 10:43:12 [core.py:1100] torch.OutOfMemoryError: CUDA out of memory, that was it
Traceback (most recent call last):
  File "engine.py", line 9, in <module>
RuntimeError: Engine core initialization failed. See root cause above.
[rank0]: a last word
[rank0]: and another
[rank0]: and another still
"""


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call("cpu", tmp_path, ("0.5B",), (512,), short=True, ceilings=Ceilings(1e9, 1e9))


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Install a stand-in that does what Liger does with a Qwen2: it sets a name in transformers' module, for good.

    Returns:
        One entry a call of the patched function.
    """
    import transformers.integrations.liger
    from transformers.models.qwen2 import modeling_qwen2

    used: list[int] = []
    original = modeling_qwen2.apply_rotary_pos_emb

    def patched(*args: Any, **kwargs: Any) -> Any:
        used.append(1)
        return original(*args, **kwargs)

    def apply(model: Any, **_: Any) -> None:
        modeling_qwen2.apply_rotary_pos_emb = patched

    package, inner = ModuleType("liger_kernel"), ModuleType("liger_kernel.transformers")
    inner._apply_liger_kernel_to_instance = apply  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", inner)
    for module in (transformers.utils, transformers.integrations.liger):
        monkeypatch.setattr(module, "is_liger_kernel_available", lambda: True)
    monkeypatch.setattr(modeling_qwen2, "apply_rotary_pos_emb", original)  # put back, whatever the test does
    return used


@pytest.mark.parametrize("trainer", ["bare", "holdfast"])
def test_a_figure_leaves_no_model_behind(call: Call, monkeypatch: pytest.MonkeyPatch, trainer: str) -> None:
    made: list[Any] = []

    def watched(*args: Any) -> Any:
        model = models.make_model(*args)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(training, "make_model", watched)
    way = Way(trainer)
    want = training._wanted("0.5B", 512, way)
    figure = gpu.attempted(call, want, lambda: training.one(call, want, "0.5B", 512, way))
    assert figure.measured
    assert made
    assert [model() for model in made] == [None]


@pytest.mark.parametrize("trainer", ["bare", "holdfast"])
def test_ligers_patches_do_not_reach_the_next_figure(call: Call, liger: list[int], trainer: str) -> None:
    from transformers.models.qwen2 import modeling_qwen2

    original = modeling_qwen2.apply_rotary_pos_emb
    way = Way(trainer, kernels="liger")
    figure = training.one(call, training._wanted("0.5B", 512, way), "0.5B", 512, way)
    assert figure.measured
    assert liger, "the way itself was measured with the patch"
    assert modeling_qwen2.apply_rotary_pos_emb is original


def test_what_the_ceilings_took_is_given_back_before_the_first_part(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device the copy alone leaves 8 GiB in torch's cache, which (f) would count as not free."""
    seen: list[str] = []

    def measured() -> Figure:
        seen.append("measured")
        return Figure(WANT, 1.0)

    def part(_: Call) -> Any:
        yield WANT, measured

    monkeypatch.setattr(device, "free", lambda _: seen.append("freed"))
    monkeypatch.setitem(gpu.PARTS, "b", part)
    assert list(gpu.run(call, ["b"], tmp_path / "gpu.json"))[-1].measured
    assert seen == ["freed", "measured", "freed"]


def test_one_start_that_is_not_counted_comes_before_the_cold_one(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Engine] = []

    def enter(self: Engine) -> Engine:
        started.append(self)
        self.started_s = float(len(started))
        return self

    monkeypatch.setattr(Engine, "__enter__", enter)
    monkeypatch.setattr(Engine, "__exit__", lambda *_: None)
    monkeypatch.setattr(serving, "rate", lambda want, *_, **__: Figure(want, 1.0))
    figures = [gpu.attempted(call, want, measure) for want, measure in serving.starts(call)]
    assert [figure.value for figure in figures] == [2.0, 3.0, 4.0, 5.0]
    assert started[0].options["enforce_eager"] is True
    caches = [{value for key, value in each.environment.items() if "CACHE_" in key} for each in started]
    places = [{value for value in each if value.startswith(str(call.root))} for each in caches]
    assert places[1] == places[2] == places[3] == places[4] != set()
    few = [each.options.get("compilation_config") for each in started]
    assert [len(each["cudagraph_capture_sizes"]) if each else None for each in few] == [None, None, None, 13, None]
    assert not places[0] & places[1], "it warms none of the caches that the cold start must find empty"


# --- Why a figure failed


def test_the_reason_is_the_engines_own_and_not_the_last_lines() -> None:
    told = reason_in(ENGINE_LOG).splitlines()
    assert told[0].endswith("torch.OutOfMemoryError: CUDA out of memory, that was it")
    assert told[1].endswith("EngineCore failed to start."), "from the first error on"
    assert "[rank0]: and another still" in told
    assert not any('File "' in line or "raise " in line for line in told), "frames take the room of reasons"


def test_a_reason_is_bounded_and_keeps_both_ends() -> None:
    log = "\n".join(["ERROR the first", *(f"line {number}" + "x" * 200 for number in range(500)), "the last"])
    told = reason_in(log)
    assert len(told) <= MOST_CHARACTERS + 300
    assert len(told.splitlines()) <= MOST_LINES + 2
    assert "ERROR the first" in told
    assert told.endswith("the last")


def test_a_log_without_an_error_gives_its_end() -> None:
    assert reason_in("one\ntwo\n") == "two\none\ntwo"
    assert reason_in("") == "nothing was logged"


def test_an_engine_that_ends_gives_its_reason_to_the_figure(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real process fails as vLLM's does; its log lies in a folder that is deleted with the call."""
    script = tmp_path / "fails_like_vllm.py"
    script.write_text(f"import sys\nsys.stderr.write({ENGINE_LOG!r})\nsys.exit(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start() -> Figure:
        with Child("fails_like_vllm", {}, call.root / "engine", {}):
            return Figure(WANT, 1.0)

    figure = gpu.attempted(call, WANT, start)
    assert "CUDA out of memory, that was it" in figure.why
    assert "EngineCore failed to start." in figure.raw["error"]
    assert "EngineCore failed to start." in capsys.readouterr().err
    assert json.dumps(figure.raw)


def test_an_engine_compiles_no_sampling_that_nobody_asks_for(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a real child finds in its environment: vLLM's start would call ninja and nvcc without it."""
    names = ("VLLM_USE_FLASHINFER_SAMPLER", "PATH", "HF_HUB_OFFLINE", "MINE")
    script = tmp_path / "tells_its_environment.py"
    script.write_text(
        "import os\nfrom benchmarks.child import answer_lines\n"
        f"answer_lines(lambda job: lambda asked: {{name: os.environ.get(name) for name in {names}}})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv(names[0], raising=False)
    for wanted in ("0", "1"):
        with Child("tells_its_environment", {}, call.root / wanted, {"MINE": "here"}) as child:
            told = child.ask(None)
        assert told[names[0]] == wanted
        assert told["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
        assert (told["HF_HUB_OFFLINE"], told["MINE"]) == ("1", "here")
        monkeypatch.setenv(names[0], "1")  # the user's word stands


def test_an_engine_looks_up_no_name_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gloo does for each group unless it is told an interface; where nobody answers a name, each lookup takes 10 s."""
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert offline()["GLOO_SOCKET_IFNAME"] == "lo"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    assert offline()["GLOO_SOCKET_IFNAME"] == "eth0", "the user's word stands"


OFFLINE_OR_NOT = """
import sys
from benchmarks import gpu

def run(*_):
    import huggingface_hub.constants as told
    print("offline", told.HF_HUB_OFFLINE)
    return iter(())

assert "huggingface_hub" not in sys.modules, "it would have read its environment by now"
gpu.run = run
gpu.main()
"""


def test_the_scripts_own_process_asks_no_network_either(tmp_path: Path) -> None:
    """TRL's import reports to its hub, in a thread beside the first figure, unless the hub's library is offline."""
    (tmp_path / "gpu.md").touch()
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE_OR_NOT, "--short", "--device", "cpu", "--out", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "offline True"


def test_the_servers_log_goes_with_a_failure_that_only_names_it(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    def serve() -> Figure:
        log = call.root / "d" / "run" / "logs" / "server.log"
        log.parent.mkdir(parents=True)
        log.write_text(ENGINE_LOG)
        raise RuntimeError("the vLLM server ended while starting")

    figure = gpu.attempted(call, WANT, serve)
    assert figure.why == "RuntimeError: the vLLM server ended while starting"
    assert "that was it" in figure.raw["log"]
    assert "that was it" in capsys.readouterr().err, "the output comes back even where no file does"


def test_what_the_pipeline_said_is_kept_whole() -> None:
    said = "loading\nholdfast: the vLLM server ended while starting; its log ends:\n    one\n    two\n"
    assert whole.told_by(said) == "holdfast: the vLLM server ended while starting; its log ends:\n    one\n    two"
    assert whole.told_by('Traceback (most recent call last):\n  File "x"\nKeyError: 1\n').startswith("KeyError: 1")
    assert whole.told_by("") == "nothing was logged"
