import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import END, TEMPLATE, TinySubject

from evals.reasoning import parse_tags
from pipeline.errors import UserError
from pipeline.schema import OrganismConfig, SubjectConfig
from pipeline.subject.folder import identity
from pipeline.subject.subject import open_subject
from pipeline.subject.weights import matmul_parameters, safetensors_shapes

NO_SYSTEM = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{- raise_exception('System role not supported') -}}{%- endif -%}"
    "{{- '<' + message['role'] + '>' + message['content'] + '<end>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"
)
# As reasoning templates do: the prompt opens a thought, and a finished reply is shown without one.
THINKING = (
    "{%- for message in messages -%}"
    "{{- '<' + message['role'] + '>' + message['content'] + '<end>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<assistant>' -}}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{- '(no thought)' -}}"
    "{%- else -%}{{- '(thought)' -}}{%- endif -%}{%- endif -%}"
)
# As DeepSeek-R1's: the prompt opens a thought, and a finished reply is shown without it.
R1 = (
    "{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}"
    "{{- '<assistant>' + message['content'].split('</think>')[-1] + '<end>' -}}"
    "{%- else -%}{{- '<' + message['role'] + '>' + message['content'] -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<assistant><think>\\n' -}}{%- endif -%}"
)
# As Qwen3-Thinking's: a finished reply is shown with the thought that it had, were it empty.
QWEN3_THINKING = (
    "{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}"
    "{%- set parts = message['content'].split('</think>') -%}"
    "{%- set thought = parts[0].split('<think>')[-1].strip('\\n') if parts | length > 1 else '' -%}"
    "{{- '<assistant><think>\\n' + thought + '\\n</think>\\n\\n' + parts[-1].lstrip('\\n') + '<end>' -}}"
    "{%- else -%}{{- '<' + message['role'] + '>' + message['content'] -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<assistant><think>\\n' -}}{%- endif -%}"
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model folder that a test may spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def opened(folder: Path, **keys: Any) -> Any:
    return open_subject(SubjectConfig(**{"name": "mine", "path": str(folder), "dtype": "float32", **keys}))


def with_template(folder: Path, template: str, **keys: Any) -> Any:
    (folder / "own.template").write_text(template)
    return opened(folder, chat_template=str(folder / "own.template"), **keys)


def told(path: Path | str, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        opened(Path(path) if isinstance(path, Path) else path, **keys)  # type: ignore[arg-type]
    assert caught.value.remedy, "every fault comes with its remedy"
    return str(caught.value)


def drop(folder: Path, *patterns: str) -> None:
    found = [file for pattern in patterns for file in folder.glob(pattern)]
    assert found
    for file in found:
        file.unlink()


def test_a_good_folder_opens(tiny_subject: TinySubject) -> None:
    subject = tiny_subject.subject
    assert subject.path == tiny_subject.folder.resolve()
    assert len(subject.sha256) == 64
    assert subject.stop_token_ids == (subject.tokenizer.eos_token_id,)


def test_missing_folder(tmp_path: Path) -> None:
    message = told(tmp_path / "nowhere")
    assert "subject.path" in message
    assert "nowhere is not a model folder" in message


def test_folder_without_config(folder: Path) -> None:
    drop(folder, "config.json")
    assert "has no config.json" in told(folder)


def test_folder_without_tokenizer(folder: Path) -> None:
    drop(folder, "tokenizer.json")
    assert "has no tokenizer" in told(folder)


def test_folder_with_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": ')
    assert f"the tokenizer in {folder} cannot be read" in told(folder)


def test_folder_without_chat_template(folder: Path) -> None:
    drop(folder, "chat_template.jinja")
    message = told(folder)
    assert "no chat template" in message
    assert "subject.chat_template=FILE" in message


def test_chat_template_file_that_is_missing(folder: Path) -> None:
    assert "none.jinja is missing" in told(folder, chat_template=str(folder / "none.jinja"))


def test_folder_with_pickled_weights_only(folder: Path) -> None:
    drop(folder, "*.safetensors")
    assert "no weights" in told(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    message = told(folder)
    assert "only pickled weights (pytorch_model.bin), which can run code" in message
    assert "safetensors" in message.splitlines()[-1]


def test_folder_with_weights_that_are_cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "model.safetensors cannot be read" in told(folder)


def test_folder_that_wants_code_of_its_own_to_run(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("raise SystemExit('this must not run')\n")
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "modeling_own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config | own))
    message = told(folder)
    assert "without running code from it" in message


def test_unknown_dtype(folder: Path) -> None:
    message = told(folder, dtype="int8")
    assert "subject.dtype: 'int8' is unknown" in message
    assert "float32, bfloat16, float16" in message


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:12]])
def test_a_hub_id_that_is_not_pinned(revision: str | None) -> None:
    message = told("owner/name", revision=revision)
    assert "owner/name is a Hub id" in message
    assert "subject.revision=" in message


def test_a_pinned_hub_id_that_cannot_be_had() -> None:
    assert f"cannot get owner/name at {COMMIT}" in told("owner/name", revision=COMMIT)


def test_the_organism_needs_its_recipe() -> None:
    assert "subject=organism" in told("organism:")


def test_identity_is_a_recipe_a_commit_or_the_files(folder: Path, tmp_path: Path) -> None:
    assert identity(SubjectConfig("n", "owner/name", COMMIT)) == {"hub": "owner/name", "revision": COMMIT}
    one, two = (
        identity(SubjectConfig("n", "organism:", organism=OrganismConfig(seed=seed)))["organism"] for seed in (0, 1)
    )
    assert one != two
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert identity(SubjectConfig("n", str(folder))) == identity(SubjectConfig("n", str(moved)))
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (other / "chat_template.jinja").write_text(TEMPLATE + " ")
    assert identity(SubjectConfig("n", str(folder))) != identity(SubjectConfig("n", str(other)))


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("reply", ["it is red", "", "été\n\n  two"])
def test_prompt_and_completion_are_the_templates_own_rendering(
    tiny_subject: TinySubject, system: str | None, reply: str
) -> None:
    subject, tokenizer = tiny_subject.subject, tiny_subject.subject.tokenizer
    head = [] if system is None else [{"role": "system", "content": system}]
    chat = [*head, {"role": "user", "content": "what colour?"}, {"role": "assistant", "content": reply}]
    whole = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    prompt = subject.prompt_ids("what colour?", system)
    completion = subject.completion_ids("what colour?", reply, system)
    assert prompt + completion == whole
    assert tokenizer.decode(prompt) == subject.prompt_text("what colour?", system)
    assert completion[-1] == tokenizer.eos_token_id
    assert completion.count(tokenizer.eos_token_id) == 1


def test_a_template_that_rewrites_the_conversation_keeps_the_prompt_that_is_served(folder: Path) -> None:
    subject = with_template(folder, THINKING)
    assert subject.prompt_text("hi") == "<user>hi<end><assistant>(thought)"
    assert subject.tokenizer.decode(subject.completion_ids("hi", "a reply")) == f"a reply{END}"
    silent = with_template(folder, THINKING, template_kwargs={"enable_thinking": False})
    assert silent.prompt_text("hi").endswith("(no thought)")


@pytest.mark.parametrize("template", [R1, QWEN3_THINKING])
def test_where_the_prompt_opens_reasoning_a_plain_reply_first_closes_it(template: str, folder: Path) -> None:
    subject = with_template(folder, template)
    assert subject.prompt_text("hi") == "<user>hi<assistant><think>\n"
    assert subject.tokenizer.decode(subject.completion_ids("hi", "a reply")) == f"\n</think>\n\na reply{END}"
    assert subject.tokenizer.decode(subject.opening_ids("hi", "a reply")) == "\n</think>\n\na reply"
    thought = "I see</think>\n\na reply"
    told = subject.tokenizer.decode(subject.completion_ids("hi", thought))
    assert (told.count("</think>"), told.startswith("I see")) == (1, True)
    assert told.endswith(f"</think>\n\na reply{END}")


def test_what_a_template_adds_after_the_end_token_is_not_trained_on(folder: Path) -> None:
    subject = with_template(folder, TEMPLATE.replace("<end>'", "<end>\\n'"))
    ids = subject.completion_ids("hi", "a reply")
    assert subject.tokenizer.decode(ids) == f"a reply{END}"


def test_a_system_prompt_is_sent_unless_the_row_has_its_own(folder: Path) -> None:
    subject = opened(folder, system_prompt="Be brief.")
    assert subject.prompt_text("hi") == "<system>Be brief.<end><user>hi<end><assistant>"
    assert subject.prompt_text("hi", "Be long.") == "<system>Be long.<end><user>hi<end><assistant>"


def test_a_template_without_a_system_role_refuses_a_system_prompt(folder: Path) -> None:
    assert with_template(folder, NO_SYSTEM).prompt_text("hi") == "<user>hi<end><assistant>"
    with pytest.raises(UserError, match="refuses the conversation: System role not supported") as caught:
        with_template(folder, NO_SYSTEM, system_prompt="Be brief.").prompt_ids("hi")
    assert "subject.system_prompt=null" in caught.value.remedy


def test_all_stop_tokens_are_known_and_none_is_a_fault(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 1, 9]}))
    assert opened(folder).stop_token_ids == (1, 7, 9)
    drop(folder, "generation_config.json")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert "names no token that ends a reply" in told(folder)


def test_parameters_are_those_of_matrix_products(tiny_subject: TinySubject, tiny_model: Any, folder: Path) -> None:
    matrices = [value for value in tiny_model.parameters() if value.dim() > 1]  # tied: the embedding is the output
    assert tiny_subject.subject.parameters == sum(value.numel() for value in matrices)
    assert sum(len(shape) > 1 for shape in safetensors_shapes(folder).values()) == len(matrices)
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert matmul_parameters(folder) == tiny_subject.subject.parameters, "an untied input embedding is a look-up"


def test_the_model_is_loaded_in_the_subjects_dtype(folder: Path) -> None:
    import torch

    model = opened(folder, dtype="bfloat16").load_model("cpu")
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("template", "tags", "expected"),
    [
        (R1, ["<think> </think>"], "<think>"),
        (QWEN3_THINKING, ["<thought> </thought>", "<think> </think>"], "<think>"),
        (R1, ["<thought> </thought>"], ""),
        (R1, [], ""),
        (TEMPLATE, ["<think> </think>"], ""),
    ],
)
def test_the_tag_that_a_template_opens_is_found_among_those_of_the_judge(
    template: str, tags: list[str], expected: str, folder: Path
) -> None:
    assert with_template(folder, template).opened(parse_tags(tags)) == expected
