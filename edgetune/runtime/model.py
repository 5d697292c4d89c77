"""A GGUF file as an object of Python: chat, text, and labels, on the CPU with llama.cpp.

with edgetune.load("demo.gguf") as model:
    print(model.chat("What is the capital of France?", temperature=0).text)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack, overload

from edgetune.data.conversation import MESSAGES, read_turns
from edgetune.data.example import Message
from edgetune.data.prompt import TEXT, asks_for, fill_prompt
from edgetune.data.reasoning import closed_reasoning, opened_reasoning, split_reasoning
from edgetune.errors import DataError, ModelError, UsageError
from edgetune.models.locate import PACKAGE_PREFIX, locate_model
from edgetune.recipe.yaml_input import nearest
from edgetune.runtime.chat import Chat
from edgetune.runtime.classify import label_question, likeliest, require_fit, score_labels
from edgetune.runtime.generation import Generation, GenerationStats, TokenLogprob, Writing
from edgetune.runtime.grammar import object_of_schema
from edgetune.runtime.sampling import Sampling
from edgetune.runtime.session import Session

if TYPE_CHECKING:
    import pydantic

Messages = str | Sequence[Mapping[str, Any] | Message]
"""What to answer: the turns of a conversation as {"role": ..., "content": ...}, or one text of the user."""

Parsed = TypeVar("Parsed")
Form = TypeVar("Form", bound="pydantic.BaseModel")

MAX_TOKENS = 1024
"""The default length of an answer."""


class GenerationOptions(TypedDict, total=False):
    """How to write, under llama.cpp's names; the defaults are those of `Sampling`.

    `max_tokens` ends the text after so many tokens, and `stop` before the first of these texts.
    """

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    seed: int | None
    stop: str | Sequence[str]


@dataclass(frozen=True)
class ChatAnswer(Generic[Parsed]):
    """What a model wrote, and what it took."""

    text: str
    """The answer, without the reasoning before it."""
    parsed: Parsed
    """The answer by the schema that was asked for; None without a schema."""
    reasoning: str | None
    """What a reasoning model wrote before its answer; None where it wrote none."""
    stats: GenerationStats
    logprobs: tuple[TokenLogprob, ...]
    """Every token that was written, reasoning included, with its log-probability in nats."""

    def __str__(self) -> str:
        return self.text


def load(
    file: str | PathLike[str],
    *,
    context_tokens: int | None = None,
    threads: int | None = None,
    flash_attention: bool | None = None,
) -> Model:
    """Open a GGUF file, or package:NAME, in llama.cpp.

    `context_tokens` defaults to the context that the model was trained on, at most 4096, `threads` to the physical
    cores. Without `flash_attention`, log-probabilities are more exact and depend on nothing that was asked before; by
    default it is on where it is quicker. Raises ModelError for a file that is missing, damaged or no language model.
    """
    path = Path(file).expanduser()
    if str(path).startswith(PACKAGE_PREFIX):
        located = locate_model(str(path)).gguf
        if located is None:
            raise ModelError("holds no GGUF file", where=path, remedy="give a .gguf file")
        path = located
    return Model(Session.open(path, context_tokens=context_tokens, threads=threads, flash_attention=flash_attention))


class Model:
    """An open GGUF file. Not for use from several threads at once.

    Close it, or use it in a `with` block, to free its memory.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._chat = Chat(session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file that is open."""
        return self.session.path

    def close(self) -> None:
        """Free the model. Closing twice is fine; using a closed model is a UsageError."""
        self.session.close()

    def __repr__(self) -> str:
        return f"Model({str(self.path)!r}, context_tokens={self.session.context.capacity})"

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        stream: Literal[True],
        schema: type[pydantic.BaseModel] | Mapping[str, Any] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generation: ...

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        stream: Literal[False] = False,
        schema: type[Form],
        **options: Unpack[GenerationOptions],
    ) -> ChatAnswer[Form]: ...

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        stream: Literal[False] = False,
        schema: Mapping[str, Any] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> ChatAnswer[Any]: ...

    def chat(
        self,
        messages: Messages,
        *,
        stream: bool = False,
        schema: type[pydantic.BaseModel] | Mapping[str, Any] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generation | ChatAnswer[Any]:
        """Answer a conversation.

        The whole conversation is given each time; what the model has read of it already is not read again. With
        `stream`, iterate over the result for the pieces of the answer as they are written. With `schema`, a pydantic
        model or a JSON schema, the answer is JSON of that form, and `parsed` holds it; a reasoning model then answers
        without reasoning.

        Raises DataError when the chat template refuses the conversation, or an answer does not fit the schema;
        UsageError for an impossible option, or when the conversation does not fit into the context; ModelError when the
        file has no chat template.
        """
        prompt = self._chat.prompt(_as_messages(messages))
        grammar = None
        if schema is not None:
            grammar = object_of_schema(_json_schema(schema))
            closing = closed_reasoning(prompt.text)
            ids = prompt.ids + self.session.vocabulary.tokenize(closing)
            prompt = prompt._replace(text=prompt.text + closing, ids=ids)
        writing = _writing(options)
        writing["grammar"], writing["marks"] = grammar, not stream
        written = self._chat.answer(prompt, **writing)
        if stream:
            return written
        text = "".join(written)
        split = split_reasoning(text if schema is not None else opened_reasoning(prompt.text) + text)
        parsed = None if schema is None else _parse(text, schema, written.stats)
        return ChatAnswer(split.answer, parsed, split.reasoning, written.stats, written.logprobs)

    @overload
    def generate(self, prompt: str, *, stream: Literal[True], **options: Unpack[GenerationOptions]) -> Generation: ...

    @overload
    def generate(
        self, prompt: str, *, stream: Literal[False] = False, **options: Unpack[GenerationOptions]
    ) -> ChatAnswer[Any]: ...

    def generate(
        self, prompt: str, *, stream: bool = False, **options: Unpack[GenerationOptions]
    ) -> Generation | ChatAnswer[Any]:
        """Continue a text, without a chat template. Raises UsageError as `chat`."""
        vocabulary = self.session.vocabulary
        ids = [*vocabulary.beginning, *vocabulary.tokenize(prompt)]
        written = self.session.generate(ids, **_writing(options))
        if stream:
            return written
        return ChatAnswer("".join(written), None, None, written.stats, written.logprobs)

    def classify(self, texts: Iterable[str], labels: Sequence[str], *, prompt: str = "{text}") -> list[str]:
        """For each text, the label that the model finds likeliest as its answer. Raises as `score_labels`."""
        return [likeliest(scores) for scores in self.score_labels(texts, labels, prompt=prompt)]

    def score_labels(
        self, texts: Iterable[str], labels: Sequence[str], *, prompt: str = "{text}"
    ) -> list[dict[str, float]]:
        """For each text, the log-probability of each label as the model's whole answer, in nats.

        `prompt` is what the model is asked, with the text in the place of {text}. Raises UsageError when a text does
        not fit into the context, before any is read, for labels that are empty or not distinct, or for a prompt without
        {text}; DataError when the chat template changes the prompt with the answer; ModelError when the file has no
        chat template.
        """
        if not labels or not all(labels) or len(set(labels)) != len(labels):
            raise UsageError(
                f"labels are {list(labels)!r}; they must be distinct texts",
                remedy="give at least one, and each of them once",
            )
        if isinstance(texts, str):
            raise UsageError("texts is one text", remedy="give a list of texts")
        if not asks_for(prompt, TEXT):
            raise UsageError(f"prompt is {prompt!r}, which has no place for the text", remedy="write {text} in it")
        asked = [[Message("user", fill_prompt(prompt, text))] for text in texts]
        questions = [label_question(self.session.vocabulary, messages, labels) for messages in asked]
        self.session.context.make_room(max((question.context_tokens for question in questions), default=0))
        for number, question in enumerate(questions, start=1):
            require_fit(self.session, question.context_tokens, where=f"text {number}")
        return [score_labels(self.session, question, labels) for question in questions]


def _as_messages(messages: Messages) -> tuple[Message, ...]:
    """Raises DataError for what is no conversation."""
    if isinstance(messages, str):
        return (Message("user", messages),)
    turns = [message.as_dict() if isinstance(message, Message) else dict(message) for message in messages]
    return read_turns(turns, MESSAGES, "messages", Counter())


def _writing(options: GenerationOptions) -> Writing:
    """Raises UsageError for an unknown or impossible option."""
    known = GenerationOptions.__annotations__
    for name in options:
        if name not in known:
            raise UsageError(f"there is no option {name}{nearest(name, known)}; the options are {', '.join(known)}")
    chain: dict[str, Any] = {**options}
    max_tokens, stop = chain.pop("max_tokens", MAX_TOKENS), chain.pop("stop", ())
    texts = [text for text in ([stop] if isinstance(stop, str) else stop) if text]
    return {"sampling": Sampling(**chain), "max_tokens": max_tokens, "stop": texts, "logprobs": True}


def _json_schema(schema: type[pydantic.BaseModel] | Mapping[str, Any]) -> dict[str, Any]:
    """Raises UsageError for what is neither."""
    if isinstance(schema, Mapping):
        return dict(schema)
    if not hasattr(schema, "model_json_schema"):
        raise UsageError(f"schema is {schema!r}", remedy="give a pydantic model, or a JSON schema as a dict")
    return schema.model_json_schema()


def _parse(text: str, schema: type[pydantic.BaseModel] | Mapping[str, Any], stats: GenerationStats) -> Any:
    """Raises DataError for an answer that was cut off, or breaks a rule of the schema that no grammar can hold."""
    import jsonschema

    try:
        if not isinstance(schema, Mapping):
            return schema.model_validate_json(text)
        value = json.loads(text)
        jsonschema.validate(value, schema)
        return value
    except (ValueError, jsonschema.ValidationError) as problem:
        if stats.finish_reason != "stop":
            raise DataError(
                f"the answer was cut off after {stats.generated_tokens} tokens, so it is no whole JSON document",
                remedy="raise max_tokens, or the context",
            ) from None
        reason = " ".join(str(problem).split())
        raise DataError(
            f"the answer does not fit the schema ({reason})", remedy="ask again, or relax the schema"
        ) from None
