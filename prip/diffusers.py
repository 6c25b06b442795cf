"""A diffusers pipeline that refines its prompt first: `pipe = with_refiner(pipe)`."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .errors import InputError, require
from .options import RefineOptions

if TYPE_CHECKING:
    from .refiner import Refiner

_NOT_HERE = ("num_alternatives",)


def with_refiner(pipe: Any, refiner: Refiner | str | os.PathLike[str] | None = None, **options: Any) -> Any:
    """Return a pipeline with the parts of `pipe` that refines its prompt before it draws.

    pipe: a text-to-image pipeline of diffusers, or an image-to-image one that reads a prompt. refiner: a Refiner, or
    what Refiner.from_pretrained takes; None is the embedded one. options: those of Refiner.refine, for every call, but
    `num_alternatives`: a prompt has one text here. The token budget is counted by the tokenizer of the pipeline's text
    encoder that reads furthest, and is all that this encoder reads (within a call's `max_sequence_length`).

    The result is an instance of a subclass of the pipeline's class, not a wrapper: isinstance, components, devices,
    LoRA, offloading and save_pretrained are diffusers' own. It shares the parts with `pipe`, which stays as it is.
    It is called as the pipeline is, with one argument more: `refine=False` draws the prompt as it is, a mapping of
    options overrides those given here. `prompt_embeds` are used as they are; `prompt_2` and `prompt_3` too when they
    are given, and else follow the refined prompt. All else, negative prompts and seeds among it, goes through.

    The refined prompt, a string or a list as the prompt was, is `refined_prompt` of the output, and of the pipeline
    until its next call (for return_dict=False); None where nothing was refined. A pipeline that refines already gets
    this refiner and these options in place of its own.

    Raises InputError for a pipeline or an option that cannot be used, CheckpointError for a refiner that cannot be
    loaded, MissingExtraError without diffusers.
    """
    diffusers = require("diffusers", "generate")
    _check_pipeline(diffusers, pipe)
    defaults = _checked(options)

    from .generators.families import PipelineTokens
    from .refiner import Refiner

    tokens = PipelineTokens(pipe)
    if not isinstance(refiner, Refiner):
        refiner = Refiner.from_pretrained("prip-mini" if refiner is None else refiner)
    kind = _plain_class(type(pipe))
    refining: Any = object.__new__(_refining_class(kind, refiner.counted_by(tokens), tokens.frame, defaults))
    vars(refining).update({name: value for name, value in vars(pipe).items() if name != "refined_prompt"})
    return refining


class _Refining:
    """What a refining pipeline has before its own class."""

    refined_prompt: str | list[str] | None = None


def _refining_class(kind: type, refiner: Refiner, frame: int, defaults: RefineOptions) -> type:
    """Return the subclass of a pipeline's class. It has the same name: diffusers stores that, and looks it up.

    frame: tokens that the text encoder adds to every prompt.
    """
    signature = inspect.signature(kind.__call__)

    @functools.wraps(kind.__call__)
    def call(self: Any, *arguments: Any, refine: bool | Mapping[str, Any] = True, **named: Any) -> Any:
        bound = signature.bind(self, *arguments, **named)
        options = _checked(refine, defaults) if isinstance(refine, Mapping) else defaults
        if not isinstance(refine, bool | Mapping):
            raise InputError(f"refine must be True, False or a mapping of options, it is {refine!r}")
        given, self.refined_prompt = bound.arguments, None
        if refine is not False and given.get("prompt") is not None:
            budget = options.token_budget
            if budget is None and given.get("max_sequence_length") is not None:
                budget = max(1, min(refiner.token_limit, given["max_sequence_length"] - frame))
            chosen = {**vars(options), "token_budget": budget}
            given["prompt"] = self.refined_prompt = refiner.refine(given["prompt"], **chosen)
        output = kind.__call__(*bound.args, **bound.kwargs)
        if not isinstance(output, tuple):
            output.refined_prompt = self.refined_prompt
        return output

    switch = inspect.Parameter("refine", inspect.Parameter.KEYWORD_ONLY, default=True)
    parameters = list(signature.parameters.values())
    place = next((n for n, one in enumerate(parameters) if one.kind is one.VAR_KEYWORD), len(parameters))
    parameters.insert(place, switch)
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    names = {
        "__call__": call,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    return type(kind.__name__, (_Refining, kind), names)


def _plain_class(kind: type) -> type:
    """Return the class of a pipeline, without the refining of an earlier call."""
    return kind.__bases__[1] if issubclass(kind, _Refining) else kind


def _check_pipeline(diffusers: Any, pipe: Any) -> None:
    wanted = "pipe must be a text-to-image pipeline of diffusers"
    if not isinstance(pipe, diffusers.DiffusionPipeline):
        raise InputError(f"{wanted}, a {getattr(pipe, '__name__', type(pipe).__name__)} came")
    parameters = inspect.signature(type(pipe).__call__).parameters
    if "prompt" not in parameters:
        raise InputError(f"{wanted}, a {type(pipe).__name__} came, which reads no prompt")


def _checked(options: Mapping[str, Any], defaults: RefineOptions | None = None) -> RefineOptions:
    """Return the options over the defaults. Raises InputError for one that is unknown or cannot be used."""
    known = [field.name for field in fields(RefineOptions) if field.name not in _NOT_HERE]
    for name in options:
        if name not in known:
            raise InputError(f"refine has no option {name!r} here, it has {', '.join(known)}")
    return RefineOptions(**{**(vars(defaults) if defaults else {}), **options})
