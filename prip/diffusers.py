"""A diffusers pipeline that refines its prompt first: `pipe = with_refiner(pipe)`."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from .errors import InputError, require
from .options import RefineOptions
from .text.prompts import check_user_prompts, own_words

if TYPE_CHECKING:
    import torch

    from .refiner import Refiner

_NOT_HERE = ("num_alternatives",)


def with_refiner(pipe: Any, refiner: Refiner | str | os.PathLike[str] | None = None, **options: Any) -> Any:
    """Return a pipeline with the parts of `pipe` that refines its prompt before it draws.

    pipe: a text-to-image pipeline of diffusers, or an image-to-image one that reads a prompt. refiner: a Refiner, or
    what Refiner.from_pretrained takes; None is the embedded one. A Refiner stays where it is; one that is loaded here
    is put on the pipeline's device, and moves along with what is returned. options: those of Refiner.refine, for every
    call, but `num_alternatives`: a prompt has one text here. The token budget is counted by the tokenizer of the
    pipeline's text encoder that reads furthest, and is all that this encoder reads (within `max_sequence_length`, a
    call's or the pipeline's own).

    The result is an instance of a subclass of the pipeline's class, not a wrapper: isinstance, components, devices,
    LoRA, offloading, copying, pickling and save_pretrained are diffusers' own. It shares the parts with `pipe`, which
    stays as it is; save_pretrained writes the plain pipeline, and from_pipe makes a plain one.
    It is called as the pipeline is, with one argument more: `refine=False` draws the prompt as it is, a mapping of
    options overrides those given here. A prompt without words, and `prompt_embeds`, are used as they are; `prompt_2`
    and `prompt_3` too when they are given, and else follow the refined prompt. All else, negative prompts and seeds
    among it, goes through.

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
    given = isinstance(refiner, Refiner)
    if not isinstance(refiner, Refiner):
        refiner = Refiner.from_pretrained("prip-mini" if refiner is None else refiner, device=_place(pipe))
    kind = _plain_class(type(pipe))
    refining = _empty(kind)
    vars(refining).update({name: value for name, value in vars(pipe).items() if name not in _OWN})
    refining._refinement = _Refinement(refiner.counted_by(tokens), tokens.frame, defaults, follows=not given)
    return refining


@dataclass(frozen=True)
class _Refinement:
    """How a pipeline refines."""

    refiner: Refiner
    frame: int
    """Tokens that the text encoder adds to every prompt"""
    defaults: RefineOptions
    follows: bool
    """Whether the refiner moves along with the pipeline"""

    def __call__(self, prompt: Any, options: RefineOptions, max_sequence_length: int | None) -> Any:
        """Return the refined prompt of a string, or those of a list; where there are no words, it is the prompt."""
        budget = options.token_budget
        if budget is None and max_sequence_length is not None:
            budget = max(1, min(self.refiner.token_limit, max_sequence_length - self.frame))
        options = replace(options, token_budget=budget)
        if isinstance(prompt, str) or not isinstance(prompt, Sequence):
            return prompt if _is_wordless(prompt) else self.refiner.refine(prompt, options)
        check_user_prompts(["-" if _is_wordless(one) else one for one in prompt])  # tells places in the whole list
        refined = iter(self.refiner.refine([one for one in prompt if not _is_wordless(one)], options))
        return [one if _is_wordless(one) else next(refined) for one in prompt]


class _Refining:
    """What a refining pipeline has before its own class. Without a refinement it is as the plain pipeline is: what
    diffusers itself makes of the class (from_pipe, say) has none."""

    refined_prompt: str | list[str] | None = None
    _refinement: _Refinement | None = None

    def to(self, *arguments: Any, **named: Any) -> Any:
        """As the pipeline's own; a refiner that was loaded for the pipeline goes to its device, not to its dtype."""
        moved = super().to(*arguments, **named)  # type: ignore[misc]
        if self._refinement is not None and self._refinement.follows:
            self._refinement.refiner.to(_place(self))
        return moved

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _empty, (_plain_class(type(self)),), vars(self)


_OWN = ("refined_prompt", "_refinement")


def _empty(kind: type) -> Any:
    """Return a refining pipeline of a pipeline's class that has no parts yet."""
    return object.__new__(_refining_class(kind))


@functools.cache
def _refining_class(kind: type) -> type:
    """Return the subclass of a pipeline's class. It has the same name: diffusers stores that, and looks it up."""
    signature = inspect.signature(kind.__call__)
    own_length = signature.parameters.get("max_sequence_length")
    default_length = own_length.default if own_length is not None and isinstance(own_length.default, int) else None

    @functools.wraps(kind.__call__)
    def call(self: Any, *arguments: Any, refine: bool | Mapping[str, Any] = True, **named: Any) -> Any:
        bound = signature.bind(self, *arguments, **named)
        refinement, given = self._refinement, bound.arguments
        if not isinstance(refine, bool | Mapping):
            raise InputError(f"refine must be True, False or a mapping of options, it is {refine!r}")
        self.refined_prompt = None
        if refinement is not None and refine is not False:
            options = _checked(refine, refinement.defaults) if isinstance(refine, Mapping) else refinement.defaults
            if given.get("prompt") is not None and given.get("prompt_embeds") is None:
                length = given.get("max_sequence_length", default_length)
                given["prompt"] = self.refined_prompt = refinement(given["prompt"], options, length)
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


def _is_wordless(prompt: Any) -> bool:
    return isinstance(prompt, str) and not own_words(prompt)


def _place(pipe: Any) -> torch.device | str:
    """Return the device of a pipeline; the CPU where it keeps its weights elsewhere until they are needed."""
    return "cpu" if pipe.device.type == "meta" else pipe.device


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
