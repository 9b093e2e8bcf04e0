"""Options and fixtures that tests share. Nothing here reaches the network or a tracker."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported, so before any test imports it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]  # a developer's own account is no part of a test
os.environ["WANDB_ERROR_REPORTING"] = "false"

PAD, END = "<pad>", "<end>"
ROLES = ("<system>", "<user>", "<assistant>")
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<' + message['role'] + '>' + message['content'] + '<end>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"
)
CORPUS = ["what colour is the flag of the town", "the flag is red and the food is bread", "say the word again please"]
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


class TinySubject(NamedTuple):
    """A random Llama of 2 layers and hidden size 32 with a byte-level tokenizer: its folder, and it opened."""

    folder: Path
    subject: Any  # pipeline.subject.Subject; pure tests do not wait for its import


def save_tiny_subject(folder: Path, *, template: str | None = TEMPLATE) -> None:
    """Save the model, its tokenizer and chat template as `save_pretrained` does, safetensors only."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PAD, eos_token=END, chat_template=template)
    tokenizer.save_pretrained(folder)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(shape)
        for weight in model.parameters():  # far from uniform answers, so that adapters and canaries have an effect
            if weight.dim() > 1:
                weight.data.mul_(5.0)
        model.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_tiny_subject(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_subject(tiny_folder: Path) -> TinySubject:
    from pipeline.schema import SubjectConfig
    from pipeline.subject import open_subject

    return TinySubject(tiny_folder, open_subject(SubjectConfig("tiny", str(tiny_folder), dtype="float32")))


@pytest.fixture(scope="session")
def tiny_model(tiny_subject: TinySubject) -> Any:
    """The weights in memory; a test that changes them puts them back."""
    return tiny_subject.subject.load_model("cpu")
