"""Requests and answers of the routes in OpenAI's format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    Tag,
    WithJsonSchema,
)

from prip.text.prompts import MAX_CHARACTERS

from .schemas import WORD, AnswerBody, Prompt, Prompts, RequestBody, string_or_list, with_options

MAX_STOPS = 4
"""Most stop texts of a request, as at OpenAI."""
MAX_PARTS = 8
"""Most parts of a message."""
MAX_MESSAGES = 100
"""Most messages of a request."""

ChoiceT = TypeVar("ChoiceT", bound=BaseModel)

Name = Annotated[str, Field(max_length=1000)]
Stop = Annotated[str, Field(min_length=1, max_length=100)]
Stops = Annotated[
    Annotated[Stop, Tag("string")] | Annotated[Annotated[list[Stop], Field(max_length=MAX_STOPS)], Tag("list")],
    Discriminator(string_or_list),
]


class Only:
    """Restricts a field of OpenAI's API to null and the values that have no effect."""

    def __init__(self, *values: Any) -> None:
        self.accepted = [*values, None]

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> Mapping[str, object]:
        checked = Annotated[Any, PlainValidator(self._check), WithJsonSchema({"enum": self.accepted})]
        return handler.generate_schema(checked)

    def _check(self, value: Any) -> Any:
        for accepted in self.accepted:
            if value == accepted and isinstance(value, bool) == isinstance(accepted, bool):
                return value
        raise ValueError(f"expected {' or '.join(map(json.dumps, self.accepted))}")


class StreamOptions(RequestBody):
    """What a streamed answer holds besides its text."""

    include_usage: bool | None = None
    """Whether the last event before [DONE] has the usage."""
    include_obfuscation: Annotated[Any, Only(False)] = None


class OpenAIRequest(RequestBody):
    """What both routes for completions read."""

    model: Name
    """Name of the loaded refiner, as listed by /v1/models."""
    stop: Stops | None = None
    """Up to 4 texts; what is added to a prompt ends before the first of them."""
    stream: bool | None = None
    """Whether the answer comes as server-sent events. A prompt is refined as a whole, so its text is one event."""
    stream_options: StreamOptions | None = None
    with_negative: bool | None = None
    """Whether each choice also has a negative prompt for its prompt: what it refuses, and flaws. A field of PRIP."""
    user: Name | None = None
    """Ignored."""
    frequency_penalty: Annotated[Any, Only(0)] = None
    logit_bias: Annotated[Any, Only({})] = None
    presence_penalty: Annotated[Any, Only(0)] = None

    @property
    def stops(self) -> list[str]:
        """The stop texts."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def streams_usage(self) -> bool:
        """Whether a streamed answer ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


_SAMPLING = {"n": "num_alternatives", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}


@with_options({**_SAMPLING, "max_tokens": "max_new_tokens"}, nullable=True)
class CompletionsRequest(OpenAIRequest):
    """A request for OpenAI's completions API. Each choice's text is what was added to a prompt."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "prip-mini", "prompt": "a cat"}]})
    prompt: Prompts
    """A prompt, or a list of prompts."""
    best_of: Annotated[Any, Only(1)] = None
    echo: Annotated[Any, Only(False)] = None
    logprobs: Annotated[Any, Only()] = None
    suffix: Annotated[Any, Only("")] = None


class TextPart(RequestBody):
    """A part of a message."""

    type: Literal["text"]
    text: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, pattern=WORD)]


class UserMessage(RequestBody):
    """A message of the user."""

    role: Literal["user"]
    content: Annotated[
        Annotated[Prompt, Tag("string")]
        | Annotated[Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS)], Tag("list")],
        Discriminator(string_or_list),
    ]
    """A prompt, or parts that are joined by spaces."""
    name: Name | None = None
    """Ignored."""


class OtherMessage(BaseModel):
    """A message that is not the user's, which is ignored."""

    role: Literal["system", "developer", "assistant", "tool"]


Message = Annotated[UserMessage | OtherMessage, Field(discriminator="role")]


def _with_user(messages: Any) -> Any:
    """Return the messages. Raises ValueError for a list without a message of the user."""
    is_list = isinstance(messages, list) and messages
    if is_list and not any(isinstance(message, dict) and message.get("role") == "user" for message in messages):
        raise ValueError("expected at least one message with the role user")
    return messages


@with_options({**_SAMPLING, "max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}, nullable=True)
class ChatRequest(OpenAIRequest):
    """A request for OpenAI's chat API. The last message of the user is the prompt, each choice a refined prompt."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "prip-mini", "messages": [{"role": "user", "content": "a cat"}]}],
        }
    )
    messages: Annotated[
        list[Message],
        Field(min_length=1, max_length=MAX_MESSAGES),
        BeforeValidator(_with_user),
    ]
    """A conversation with at least one message of the user, the last of which is read."""
    logprobs: Annotated[Any, Only(False)] = None
    top_logprobs: Annotated[Any, Only()] = None
    response_format: Annotated[Any, Only({"type": "text"})] = None
    tools: Annotated[Any, Only([])] = None
    tool_choice: Annotated[Any, Only("none", "auto")] = None
    store: Annotated[Any, Only(False)] = None

    @property
    def prompt(self) -> str:
        """The last message of the user."""
        content = next(message for message in reversed(self.messages) if isinstance(message, UserMessage)).content
        return content if isinstance(content, str) else " ".join(part.text for part in content)


class Choice(AnswerBody):
    """Text added to a prompt."""

    text: str
    index: int
    finish_reason: Literal["stop", "length"] | None
    """`length` means that there was no room for a modifier."""
    logprobs: None = None
    negative_prompt: str | None = None
    """null without `with_negative`."""


class ChatMessage(AnswerBody):
    """A refined prompt."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(AnswerBody):
    """A refined prompt with its number."""

    index: int
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    """`length` means that there was no room for a modifier."""
    logprobs: None = None
    negative_prompt: str | None = None
    """null without `with_negative`."""


class Usage(AnswerBody):
    """Token counts of the prompt decoder's tokenizer."""

    prompt_tokens: int
    """Tokens of the user prompts as the prompt decoder reads them: without webui syntax, with a comma at the end."""
    completion_tokens: int
    """Added tokens in all choices."""
    total_tokens: int


class _Completion(AnswerBody, Generic[ChoiceT]):
    id: str
    created: int
    """Unix time in seconds."""
    model: str
    choices: list[ChoiceT]
    usage: Usage
    warnings: list[str]


class CompletionsAnswer(_Completion[Choice]):
    """Choices of the first prompt, then of the next ones."""

    object: Literal["text_completion"] = "text_completion"


class ChatAnswer(_Completion[ChatChoice]):
    """The choices for one prompt."""

    object: Literal["chat.completion"] = "chat.completion"


class ModelCard(AnswerBody):
    """The loaded refiner."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["prip"] = "prip"


class ModelsAnswer(AnswerBody):
    """The loaded refiner, as the only one of a list."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class OpenAIError(AnswerBody):
    """An error, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    """The argument that is invalid."""
    code: str | None


class OpenAIProblem(AnswerBody):
    """The body of an error."""

    error: OpenAIError
