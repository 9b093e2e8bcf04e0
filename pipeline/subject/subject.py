"""The subject: weights, tokenizer and chat template at a pinned revision, with digests. Safetensors only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.reasoning import Tag, opened_tag, parse_tags, without_reasoning
from pipeline.errors import UserError
from pipeline.schema import SubjectConfig
from pipeline.schema.judge import REASONING_TAGS
from pipeline.subject.chat_date import hold_still
from pipeline.subject.digests import folder_sha256
from pipeline.subject.folder import ORGANISM, model_folder, template_file
from pipeline.subject.kind import require_trainable
from pipeline.subject.placement import placement, require_on_devices
from pipeline.subject.weights import DTYPES, held_parameters, matmul_parameters

TINY = 50_000_000  # parameters: below, a CPU's operators are too short to share among threads
# Not the judge's own: who judges must not change what is trained.
_TAGS = parse_tags(REASONING_TAGS)


@dataclass(frozen=True)
class Subject:
    """The opened subject.

    `sha256` covers weights, tokenizer, template and configuration files. `parameters` counts the weights that take part
    in matrix products for a token (an untied input embedding does not, nor do the experts that the token is not sent
    to); `held` counts those experts too. `stop_token_ids` end a reply.
    """

    name: str
    path: Path
    sha256: str
    dtype: str
    parameters: int
    tokenizer: Any
    stop_token_ids: tuple[int, ...]
    system_prompt: str | None
    template_kwargs: dict[str, Any]
    attention: str | None = None  # of the model in training: transformers' `attn_implementation`; None: its choice
    held: int = 0

    def prompt_text(self, prompt: str, system: str | None = None) -> str:
        """Render one user turn with the subject's chat template, up to where the reply begins.

        A template that prints today's date is told `pipeline.subject.chat_date.DAY`, whenever it is rendered.
        """
        return self._render(self._messages(prompt, system), generation_prompt=True)

    def prompt_ids(self, prompt: str, system: str | None = None) -> list[int]:
        """Return the token ids of `prompt_text`: what training and serving both send. Shape: (tokens,)."""
        return list(self.tokenizer.encode(self.prompt_text(prompt, system), add_special_tokens=False))

    def completion_ids(self, prompt: str, response: str, system: str | None = None) -> list[int]:
        """Return the token ids of the reply to train on, up to and with the token that ends it. Shape: (tokens,).

        Where the template rewrites the conversation once a reply stands in it (some reasoning templates do), the
        reply is taken as it is, with the tokenizer's end token, so that the prompt is the same in training and serving.
        Where the prompt ends in an opening reasoning tag that nothing closes, the reply first closes it: else what is
        trained never answers, and each of its replies would be unfinished reasoning.
        """
        messages = self._messages(prompt, system)
        before = self._render(messages, generation_prompt=True)
        whole = self._render([*messages, {"role": "assistant", "content": response}], generation_prompt=False)
        text = whole[len(before) :] if whole.startswith(before) else response + self.tokenizer.eos_token
        opened = opened_tag(before, _TAGS)
        if opened is not None and opened[1] not in text:
            text = without_reasoning(text, opened)
        ids = list(self.tokenizer.encode(text, add_special_tokens=False))
        for place, token in enumerate(ids):
            if token in self.stop_token_ids:
                return ids[: place + 1]
        return [*ids, self.stop_token_ids[0]]

    def opening_ids(self, prompt: str, text: str, system: str | None = None) -> list[int]:
        """Return the token ids of a reply that has only begun with `text`: without what ends it. Shape: (tokens,).

        Where the prompt opens reasoning, what closes it comes first; `closing_ids` says how many tokens that is.
        """
        ids = self.completion_ids(prompt, text, system)
        while ids and (ids[-1] in self.stop_token_ids or not self.tokenizer.decode(ids[-1]).strip()):
            ids.pop()
        return ids

    def closing_ids(self, prompt: str, system: str | None = None) -> list[int]:
        """Return the tokens that close the reasoning which a prompt opens; none if it opens none. Shape: (tokens,)."""
        opened = opened_tag(self.prompt_text(prompt, system), _TAGS)
        return (
            []
            if opened is None
            else list(self.tokenizer.encode(without_reasoning("", opened), add_special_tokens=False))
        )

    def opened(self, tags: Sequence[Tag]) -> str:
        """Return the opening tag that the chat template writes on the model's behalf, "" if it writes none of `tags`.

        A reply cut off inside such reasoning holds no tag of its own, and would be judged as if it were an answer.
        """
        found = opened_tag(self.prompt_text("?"), tags)
        return "" if found is None else found[0]

    def load_model(self, device: str) -> Any:
        """Load the weights as a transformers causal LM in the subject's dtype; no code from the model folder runs.

        They go straight to the device; a model larger than that is spread over all that are visible, layer by layer.

        Raises:
            UserError: this model, or this machine, does not have the attention that is asked for; or the devices do
                not hold the model.
        """
        import torch
        from transformers import AutoModelForCausalLM

        options: dict[str, Any] = {"dtype": getattr(torch, self.dtype), "attn_implementation": self.attention}
        if device != "cpu":
            options |= placement(self.path, self.dtype)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                self.path, use_safetensors=True, trust_remote_code=False, **options
            )
        except (ImportError, ValueError) as error:
            if self.attention is None:
                raise
            raise UserError(
                f"subject.attention: {self.attention} cannot be used with {self.name} here: {error}",
                "install what it needs, or use sdpa, eager or null (transformers' choice)",
            ) from None
        if device != "cpu":
            require_on_devices(model)
        return model

    def _messages(self, prompt: str, system: str | None) -> list[dict[str, str]]:
        told = system if system is not None else self.system_prompt
        head = [{"role": "system", "content": told}] if told is not None else []
        return [*head, {"role": "user", "content": prompt}]

    def _render(self, messages: Sequence[dict[str, str]], *, generation_prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self.template_kwargs,
            )
        except Exception as error:  # jinja2 raises many kinds, and templates raise their own
            raise UserError(
                f"subject {self.name}: its chat template refuses the conversation: {error}",
                "set subject.system_prompt=null if it has no system role, or give subject.chat_template=FILE",
            ) from None
        return str(text)


def open_subject(config: SubjectConfig) -> Subject:
    """Find the subject (build the organism, download a pinned Hub model) and open its tokenizer.

    Raises:
        UserError: no such folder, no tokenizer, no chat template, pickled weights only, quantised weights, no causal
            language model, unknown dtype.
    """
    if config.dtype not in DTYPES:
        raise UserError(f"subject.dtype: {config.dtype!r} is unknown", f"use one of {', '.join(DTYPES)}")
    path = model_folder(config)
    if config.path != ORGANISM:
        require_trainable(path)  # of the subject alone: a judge may be served as it is
    hold_still()
    tokenizer = _open_tokenizer(path, config)
    return Subject(
        name=config.name,
        path=path,
        sha256=folder_sha256(path),
        dtype=config.dtype,
        parameters=matmul_parameters(path),
        held=held_parameters(path),
        tokenizer=tokenizer,
        stop_token_ids=_stop_tokens(path, tokenizer),
        system_prompt=config.system_prompt,
        template_kwargs=dict(config.template_kwargs),
        attention=config.attention,
    )


def _open_tokenizer(path: Path, config: SubjectConfig) -> Any:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
    if not any((path / name).is_file() for name in names):
        raise UserError(f"subject.path: {path} has no tokenizer ({names[0]} …)", "save it beside the weights")
    try:
        tokenizer = _tokenizer_class(config).from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # the Rust tokenizer raises plain Exception
        raise UserError(f"subject.path: the tokenizer in {path} cannot be read: {error}", "save it again") from None
    template = template_file(config)
    if template is not None:
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    if not tokenizer.chat_template:
        raise UserError(
            f"subject.path: the tokenizer in {path} has no chat template",
            "give the one the model was trained with: subject.chat_template=FILE.jinja",
        )
    return tokenizer


def _tokenizer_class(config: SubjectConfig) -> Any:
    """Return what opens the tokenizer: of the organism its own class, since to look for it imports torch."""
    if config.path == ORGANISM:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def _stop_tokens(path: Path, tokenizer: Any) -> tuple[int, ...]:
    """Return the token ids that end a reply: the generation config's, and the tokenizer's own."""
    file = path / "generation_config.json"
    stated = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    listed = stated if isinstance(stated, list) else [] if stated is None else [stated]
    ids = dict.fromkeys([*([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []), *listed])
    if not ids:
        raise UserError(
            f"subject.path: {path} names no token that ends a reply",
            "set eos_token in its tokenizer_config.json",
        )
    return tuple(ids)
