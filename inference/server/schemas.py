"""Requests and answers of the server, with the bounds and descriptions of its OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from fastapi.responses import Response
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
    model_validator,
)

from prip.errors import meant
from prip.options import OptionField, RefineOptions, option_fields
from prip.text.prompts import MAX_CHARACTERS

from .settings import MAX_IMAGES, MAX_PROMPTS

Model = TypeVar("Model", bound="RequestBody")

MAX_NAME = 100
"""Longest name that is compared with those of the fields."""
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


def string_or_list(value: Any) -> str:
    """Return the tag of a value that may be a string or a list of strings."""
    return "list" if isinstance(value, list) else "string"


Prompts = Annotated[
    Annotated[Prompt, Tag("string")]
    | Annotated[Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS)], Tag("list")],
    Discriminator(string_or_list),
]
FewPrompts = Annotated[
    Annotated[Prompt, Tag("string")]
    | Annotated[Annotated[list[Prompt], Field(min_length=1, max_length=MAX_IMAGES)], Tag("list")],
    Discriminator(string_or_list),
]


class UnknownField(ValueError):
    """A request has a field that does not exist."""


class RequestBody(BaseModel):
    """The body of a request: unknown fields and values of other types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
    option_names: ClassVar[Mapping[str, str]] = {}
    """Fields that are options, with the options' names."""

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, values: Any) -> Any:
        """Name a field that does not exist, with the one that may be meant."""
        if isinstance(values, dict) and (unknown := [name for name in values if name not in cls.model_fields]):
            name = unknown[0].encode("ascii", "backslashreplace").decode()
            hint = meant(name, list(cls.model_fields)) if len(name) <= MAX_NAME else ""
            raise UnknownField(f"{name} is not a field of this request{hint}")
        return values

    def options(self) -> RefineOptions:
        """Return the options. Raises InputError for an invalid one."""
        values: dict[str, Any] = {}
        for name, option in self.option_names.items():
            if (value := getattr(self, name)) is not None:
                values[option] = tuple(value) if isinstance(value, list) else value
        return RefineOptions(**values)


class AnswerBody(BaseModel):
    """The body of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    def response(self) -> Response:
        """Return the answer as JSON."""
        return Response(self.model_dump_json(), media_type="application/json")


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
        decorated = create_model(
            model.__name__, __base__=model, __doc__=model.__doc__, __module__=model.__module__, **fields
        )
        decorated.option_names = names
        return decorated

    return decorate


BATCH_OPTIONS = {option.name: option.name for option in option_fields() if option.name != "batch_size"}
"""All options except the batch size, which is the server's."""
IMAGE_OPTIONS = {name: name for name in BATCH_OPTIONS if name != "num_alternatives"}


@with_options(BATCH_OPTIONS)
class RefineRequest(RequestBody):
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
    with_negative: bool = False
    """Also suggest a negative prompt for each text: what it refuses, and flaws."""


@with_options(IMAGE_OPTIONS)
class ImagesRequest(RequestBody):
    """Prompts to draw plain and refined, from the same seeds."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a cat", "images_per_prompt": 2, "seed": 7}]})
    prompt: FewPrompts
    """A prompt, or a list of prompts."""
    images_per_prompt: Annotated[int, Field(ge=1, le=MAX_IMAGES), BeforeValidator(_whole)] = 1
    """Plain images, and refined images, per prompt. Their seeds count up from `seed`."""


def prompt_list(prompt: str | list[str]) -> list[str]:
    """Return the prompts of a request as a list."""
    return [prompt] if isinstance(prompt, str) else prompt


class RefinedPrompt(AnswerBody):
    user_prompt: str
    refined_prompts: list[str]
    """`num_alternatives` distinct texts; fewer with a warning."""
    added: list[list[str]]
    """The modifiers that each text adds to the user prompt."""
    negative_prompts: list[str] | None = None
    """A negative prompt for each text; null without `with_negative`."""


class RefineAnswer(AnswerBody):
    model: str
    results: list[RefinedPrompt]
    """One per prompt, in order."""
    warnings: list[str]
    """Shortcomings, such as a prompt that was left unchanged."""


class Drawings(AnswerBody):
    images: list[str]
    """PNG files in base64, one per seed."""
    scores: dict[str, list[float | None]]
    """Each loaded reward's scores of the images for the user prompt; null for an image that the generator's safety
    checker blackened."""


class DrawnPrompt(AnswerBody):
    user_prompt: str
    refined_prompt: str
    added: list[str]
    """The modifiers added to the user prompt."""
    seeds: list[int]
    plain: Drawings
    refined: Drawings


class ImagesAnswer(AnswerBody):
    model: str
    generator: str
    results: list[DrawnPrompt]
    warnings: list[str]


class Health(AnswerBody):
    status: Literal["ok"] = "ok"
    model: str
    generator: str | None
    version: str


class Problem(AnswerBody):
    """An error."""

    detail: str
    """Which argument is invalid, what was expected and what was sent; or what else went wrong."""
