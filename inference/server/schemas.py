"""What the server reads and answers, with the bounds that OpenAPI tells."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

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

from prip.options import RefineOptions
from prip.text.prompts import MAX_CHARACTERS

from .settings import MAX_IMAGES, MAX_PROMPTS

LARGEST_SEED = 2**53 - 1
"""Beyond it JSON's numbers are not exact everywhere."""
MAX_ALTERNATIVES = 8
MAX_TOKENS = 1000
MAX_TERMS = 100

_ANY = r"[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*"
WORD = rf"^{_ANY}[^\s.,\u0000-\u001f\u007f-\u009f]{_ANY}$"
"""What check_user_prompt wants, as a pattern: no control character but tabs and line breaks, and something besides
blanks, stops and commas."""

Prompt = Annotated[
    str, Field(min_length=1, max_length=MAX_CHARACTERS, json_schema_extra={"pattern": WORD, "examples": ["a cat"]})
]
Term = Annotated[str, Field(min_length=1, max_length=100, json_schema_extra={"pattern": r"[^\s,\u001c-\u001f\u0085]"})]

Style = Annotated[str, Field(min_length=1, max_length=100, json_schema_extra={"pattern": WORD})]


def _whole(value: Any) -> Any:
    """Return 14.0 as 14, as JSON Schema's integers want it."""
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
Seed = Annotated[int, Field(ge=-LARGEST_SEED, le=LARGEST_SEED), BeforeValidator(_whole)]
Temperature = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS), BeforeValidator(_whole)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Only:
    """Marks a field that takes null and these values, with which it changes nothing, and refuses all others."""

    def __init__(self, *values: Any) -> None:
        self.offered = [*values, None]

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> Any:
        checked = Annotated[Any, PlainValidator(self._check), WithJsonSchema({"enum": self.offered})]
        return handler.generate_schema(checked)

    def _check(self, value: Any) -> Any:
        for one in self.offered:
            if value == one and isinstance(value, bool) == isinstance(one, bool):
                return value
        raise ValueError(f"expected {' or '.join(map(json.dumps, self.offered))}")


class _Options(_Request):
    seed: Seed = 0
    """The same seed gives the same text, whatever else the server is asked for."""
    temperature: Temperature = 0.0
    """0 is greedy."""
    top_p: TopP = 0.9
    """Of sampling: the likeliest tokens that have this probability together."""
    max_new_tokens: Tokens = 60
    """What the decoder may add, in its own tokens."""
    token_budget: Tokens | None = None
    """Of the whole prompt; null is all that the text encoder reads."""
    banned_terms: Annotated[list[Term], Field(max_length=MAX_TERMS)] = []
    """Never added, in any casing."""
    styles: Annotated[list[Style], Field(max_length=MAX_TERMS)] = []
    """Names of styles, or any phrases: kept behind the user's words as if typed."""
    keep_attributes: bool = True
    """No other value is added of an attribute (medium, light, ...) that the user or a style names."""
    no_artists: bool = False
    """No artist's name is added."""
    allow_faults: bool = False
    """Something like "badly cropped" may be added that the user does not name."""
    strength: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """The share of the modifiers that is added; 0 returns the prompt as it is."""

    def options(self, **others: Any) -> RefineOptions:
        """Return the options of `refine`. Raises InputError for one that cannot be used."""
        sent = {name: getattr(self, name) for name in _Options.model_fields}
        return RefineOptions(
            **{**sent, "banned_terms": tuple(self.banned_terms), "styles": tuple(self.styles), **others}
        )


class RefineRequest(_Options):
    """Prompts to refine, all under the same options, which are those of `prip.refine`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "a cat"},
                {"prompt": ["a cat", "a boat"], "num_alternatives": 2, "seed": 1, "banned_terms": ["golden hour"]},
            ]
        }
    )
    prompt: Prompts
    num_alternatives: Annotated[int, Field(ge=1, le=MAX_ALTERNATIVES), BeforeValidator(_whole)] = 1
    """Distinct texts for each prompt, first the one that comes alone."""


class ImagesRequest(_Options):
    """Prompts to draw, plain and refined, with the same seeds."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a cat", "images_per_prompt": 2, "seed": 7}]})
    prompt: FewPrompts
    images_per_prompt: Annotated[int, Field(ge=1, le=MAX_IMAGES), BeforeValidator(_whole)] = 1
    """Of each kind; the first has `seed`, the next ones follow."""


class CompletionsRequest(_Request):
    """What a client of OpenAI's completions sends; it reads what was added as the text of a choice."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "prip-mini", "prompt": "a cat"}]})
    model: Annotated[str, Field(max_length=1000)]
    """The loaded refiner, as /v1/models names it."""
    prompt: Prompts
    n: Annotated[int, Field(ge=1, le=MAX_ALTERNATIVES), BeforeValidator(_whole)] | None = None
    """Choices for each prompt; null is 1."""
    temperature: Temperature | None = None
    """null is 0, greedy."""
    top_p: TopP | None = None
    """null is 0.9."""
    seed: Seed | None = None
    """null is 0."""
    max_tokens: Tokens | None = None
    """null is 60."""
    user: Annotated[str, Field(max_length=1000)] | None = None
    """Read by nobody."""
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

    def options(self) -> RefineOptions:
        """Return the options of `refine`."""
        given: dict[str, Any] = {"seed": self.seed, "temperature": self.temperature, "top_p": self.top_p}
        given |= {"num_alternatives": self.n, "max_new_tokens": self.max_tokens}
        return RefineOptions(**{name: value for name, value in given.items() if value is not None})


def prompt_list(prompt: str | list[str]) -> list[str]:
    """Return the prompts of a request as a list."""
    return [prompt] if isinstance(prompt, str) else prompt


class RefinedPrompt(BaseModel):
    user_prompt: str
    refined_prompts: list[str]
    """So many texts as `num_alternatives`, or fewer, with a warning."""
    added: list[list[str]]
    """What each of them adds to the user prompt, modifier by modifier."""


class RefineAnswer(BaseModel):
    model: str
    results: list[RefinedPrompt]
    """In the order of the prompts."""
    warnings: list[str]
    """What the call did otherwise than one would expect: a prompt was left unchanged, say."""


class Drawings(BaseModel):
    images: list[str]
    """PNG files in base64, one a seed."""
    scores: dict[str, list[float]]
    """What each loaded reward gives the images for the user prompt; nothing where none is loaded."""


class DrawnPrompt(BaseModel):
    user_prompt: str
    refined_prompt: str
    added: list[str]
    """What it adds to the user prompt, modifier by modifier."""
    seeds: list[int]
    plain: Drawings
    refined: Drawings


class ImagesAnswer(BaseModel):
    model: str
    generator: str
    results: list[DrawnPrompt]
    warnings: list[str]


class Choice(BaseModel):
    text: str
    index: int
    finish_reason: Literal["stop", "length"]
    """length: there was no room for a modifier."""
    logprobs: None = None


class Usage(BaseModel):
    """Counted in the decoder's own tokens."""

    prompt_tokens: int
    """Of the user prompts, each with the comma behind it and without webui syntax, as the decoder reads them."""
    completion_tokens: int
    """Of what was added, in all choices together."""
    total_tokens: int


class CompletionsAnswer(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    """Seconds since 1970."""
    model: str
    choices: list[Choice]
    """Those of the first prompt, then those of the next."""
    usage: Usage
    warnings: list[str]


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["prip"] = "prip"


class ModelsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    model: str
    generator: str | None
    version: str


class Problem(BaseModel):
    """Every error: which argument, what was wanted, what came."""

    detail: str
