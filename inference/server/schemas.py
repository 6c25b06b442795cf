"""Requests and answers of the server, with the bounds and descriptions of its OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

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
    create_model,
)

from prip.options import OptionField, RefineOptions, option_fields
from prip.text.prompts import MAX_CHARACTERS

from .settings import MAX_IMAGES, MAX_PROMPTS

Model = TypeVar("Model", bound="_Request")

MAX_TERMS = 100
"""Most entries of a list of terms or styles."""
LIMITS = {
    "num_alternatives": (1, 8),
    "seed": (-(2**53) + 1, 2**53 - 1),
    "temperature": (0, 10),
    "max_new_tokens": (1, 1000),
    "token_budget": (1, 1000),
}
"""Bounds of the server, within those of the options. JSON numbers beyond the seed's are not exact everywhere."""

_ANY = r"[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*"
WORD = rf"^{_ANY}[^\s.,\u0000-\u001f\u007f-\u009f]{_ANY}$"
"""The check of user prompts as a pattern: no control character except tabs and line breaks, and at least one word."""

Prompt = Annotated[
    str, Field(min_length=1, max_length=MAX_CHARACTERS, json_schema_extra={"pattern": WORD, "examples": ["a cat"]})
]
Term = Annotated[str, Field(min_length=1, max_length=100, json_schema_extra={"pattern": r"[^\s,\u001c-\u001f\u0085]"})]
Style = Annotated[str, Field(min_length=1, max_length=100, json_schema_extra={"pattern": WORD})]
Terms = Annotated[list[Term], Field(max_length=MAX_TERMS)]
Styles = Annotated[list[Style], Field(max_length=MAX_TERMS)]


def _whole(value: Any) -> Any:
    """Return 14.0 as 14: both are integers in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_list(value: Any) -> str:
    return "list" if isinstance(value, list) else "string"


Prompts = Annotated[
    Annotated[Prompt, Tag("string")]
    | Annotated[Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS)], Tag("list")],
    Discriminator(_is_list),
]
FewPrompts = Annotated[
    Annotated[Prompt, Tag("string")]
    | Annotated[Annotated[list[Prompt], Field(min_length=1, max_length=MAX_IMAGES)], Tag("list")],
    Discriminator(_is_list),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
    option_names: ClassVar[Mapping[str, str]] = {}
    """Fields that are options, with the options' names."""

    def options(self) -> RefineOptions:
        """Return the options. Raises InputError for an invalid one."""
        values: dict[str, Any] = {option: getattr(self, name) for name, option in self.option_names.items()}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return RefineOptions(**{name: value for name, value in values.items() if value is not None})


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


def _type_of(option: OptionField) -> Any:
    """Return the type of an option's field, with its bounds."""
    if option.is_list:
        return Styles if option.name == "styles" else Terms
    if option.kind is bool:
        return bool
    least, most = LIMITS.get(option.name, (option.bounds.minimum, option.bounds.maximum))
    limits: dict[str, Any] = {"gt" if option.bounds.exclusive else "ge": least, "le": most}
    if option.kind is int:
        return Annotated[int, Field(**limits), BeforeValidator(_whole)]
    return Annotated[float, Field(**limits, allow_inf_nan=False)]


def with_options(names: Mapping[str, str], nullable: bool = False) -> Callable[[type[Model]], type[Model]]:
    """Decorate a request to have options of `refine` as fields, with their defaults, bounds and descriptions.

    Args:
        names: Fields, with the names of their options.
        nullable: Whether every field accepts null, which stands for its default.
    """
    options = {option.name: option for option in option_fields()}

    def decorate(model: type[Model]) -> type[Model]:
        fields: dict[str, Any] = {}
        for name, option in ((name, options[option_name]) for name, option_name in names.items()):
            default = list(option.default) if option.is_list else option.default
            text = option.doc.replace("None", "null")
            if nullable:
                text, default = f"{text} Default: {json.dumps(default)}.", None
            kind = _type_of(option)
            fields[name] = (kind | None if nullable or option.is_optional else kind, Field(default, description=text))
        decorated = create_model(model.__name__, __base__=model, __doc__=model.__doc__, __module__=__name__, **fields)
        decorated.option_names = names
        return decorated

    return decorate


BATCH_OPTIONS = {option.name: option.name for option in option_fields() if option.name != "batch_size"}
"""All options except the batch size, which is the server's."""
IMAGE_OPTIONS = {name: name for name in BATCH_OPTIONS if name != "num_alternatives"}


@with_options(BATCH_OPTIONS)
class RefineRequest(_Request):
    """Prompts to refine with the same options."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "a cat"},
                {"prompt": ["a cat", "a boat"], "num_alternatives": 2, "seed": 1, "banned_terms": ["golden hour"]},
            ]
        }
    )
    prompt: Prompts
    """A prompt, or a list of prompts."""


@with_options(IMAGE_OPTIONS)
class ImagesRequest(_Request):
    """Prompts to draw plain and refined, from the same seeds."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a cat", "images_per_prompt": 2, "seed": 7}]})
    prompt: FewPrompts
    """A prompt, or a list of prompts."""
    images_per_prompt: Annotated[int, Field(ge=1, le=MAX_IMAGES), BeforeValidator(_whole)] = 1
    """Plain images, and refined images, per prompt. Their seeds count up from `seed`."""


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


@with_options(
    {
        "n": "num_alternatives",
        "temperature": "temperature",
        "top_p": "top_p",
        "seed": "seed",
        "max_tokens": "max_new_tokens",
    },
    nullable=True,
)
class CompletionsRequest(_Request):
    """A request for OpenAI's completions API. Each choice's text is what was added to a prompt."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "prip-mini", "prompt": "a cat"}]})
    model: Annotated[str, Field(max_length=1000)]
    """Name of the loaded refiner, as listed by /v1/models."""
    prompt: Prompts
    """A prompt, or a list of prompts."""
    user: Annotated[str, Field(max_length=1000)] | None = None
    """Ignored."""
    best_of: Annotated[Any, Only(1)] = None
    echo: Annotated[Any, Only(False)] = None
    frequency_penalty: Annotated[Any, Only(0)] = None
    logit_bias: Annotated[Any, Only({})] = None
    logprobs: Annotated[Any, Only()] = None
    presence_penalty: Annotated[Any, Only(0)] = None
    stop: Annotated[Any, Only([])] = None
    stream: Annotated[Any, Only(False)] = None
    stream_options: Annotated[Any, Only()] = None
    suffix: Annotated[Any, Only("")] = None


def prompt_list(prompt: str | list[str]) -> list[str]:
    """Return the prompts of a request as a list."""
    return [prompt] if isinstance(prompt, str) else prompt


class RefinedPrompt(_Answer):
    user_prompt: str
    refined_prompts: list[str]
    """`num_alternatives` distinct texts; fewer with a warning."""
    added: list[list[str]]
    """The modifiers that each text adds to the user prompt."""


class RefineAnswer(_Answer):
    model: str
    results: list[RefinedPrompt]
    """One per prompt, in order."""
    warnings: list[str]
    """Shortcomings, such as a prompt that was left unchanged."""


class Drawings(_Answer):
    images: list[str]
    """PNG files in base64, one per seed."""
    scores: dict[str, list[float]]
    """Each loaded reward's scores of the images for the user prompt."""


class DrawnPrompt(_Answer):
    user_prompt: str
    refined_prompt: str
    added: list[str]
    """The modifiers added to the user prompt."""
    seeds: list[int]
    plain: Drawings
    refined: Drawings


class ImagesAnswer(_Answer):
    model: str
    generator: str
    results: list[DrawnPrompt]
    warnings: list[str]


class Choice(_Answer):
    text: str
    index: int
    finish_reason: Literal["stop", "length"]
    """`length` means that there was no room for a modifier."""
    logprobs: None = None


class Usage(_Answer):
    """Token counts of the prompt decoder's tokenizer."""

    prompt_tokens: int
    """Tokens of the user prompts as the prompt decoder reads them: without webui syntax, with a comma at the end."""
    completion_tokens: int
    """Added tokens in all choices."""
    total_tokens: int


class CompletionsAnswer(_Answer):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    """Unix time in seconds."""
    model: str
    choices: list[Choice]
    """Choices of the first prompt, then of the next ones."""
    usage: Usage
    warnings: list[str]


class ModelCard(_Answer):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["prip"] = "prip"


class ModelsAnswer(_Answer):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(_Answer):
    status: Literal["ok"] = "ok"
    model: str
    generator: str | None
    version: str


class Problem(_Answer):
    """An error."""

    detail: str
    """Which argument is invalid, what was expected and what was sent; or what else went wrong."""
