"""A diffusers pipeline that refines its prompt first: `pipe = with_refiner(pipe)`."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from .control.negative import negative_prompt
from .errors import InputError, broken_packages, require
from .options import OneTextOptionsDict, RefineOptions, with_changes
from .text.prompts import check_user_prompts, has_words

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from .refiner import Refiner

Pipeline = TypeVar("Pipeline", bound="DiffusionPipeline")

_UNSUPPORTED = ("num_alternatives",)


@broken_packages()
def with_refiner(
    pipe: Pipeline,
    refiner: Refiner | str | os.PathLike[str] | None = None,
    with_negative: bool = False,
    **options: Unpack[OneTextOptionsDict],
) -> Pipeline:
    """Return a pipeline that refines its prompt before drawing, and shares its components with `pipe`.

    The result is an instance of a subclass of the pipeline's class, not a wrapper: isinstance, components, devices,
    LoRA, offloading, copying and pickling work as in diffusers. `pipe` does not change. `save_pretrained` writes, and
    `from_pipe` creates, a plain pipeline.

    A call takes one more argument: `refine=False` draws the prompt unrefined, a mapping of options overrides those
    given here. Prompts without words and `prompt_embeds` are used as they are; `prompt_2` and `prompt_3` default to the
    refined prompt. All other arguments are passed on.

    The refined prompt, a string or a list like the prompt, is `refined_prompt` of the output and, for
    return_dict=False, of the pipeline until its next call; None if nothing was refined.

    Args:
        pipe: A text-to-image pipeline of diffusers, or an image-to-image pipeline with a prompt. If it already refines,
            this refiner and these options replace its own.
        refiner: A Refiner, which stays on its device, or an argument of `Refiner.from_pretrained`, loaded on the
            pipeline's device and moved with it; None is the embedded one.
        with_negative: Draw with the suggestion of `prip.negative_prompt`, after the call's own negative prompt if it
            has one. A call without guidance, or with negative_prompt_embeds, stays without. The negative prompt drawn
            with is `drawn_negative_prompt` of the output and the pipeline, as `refined_prompt` is.
        **options: Options of `Refiner.refine` for every call. The token budget is counted by the tokenizer of the
            pipeline's text encoder with the highest limit, and is that limit by default (or `max_sequence_length`).

    Raises:
        InputError: The pipeline or an option cannot be used.
        CheckpointError: The refiner cannot be loaded.
        MissingExtraError: diffusers is not installed.
    """
    diffusers = require("diffusers", "generate")
    _check_pipeline(diffusers, pipe)
    defaults = with_changes(None, options, _UNSUPPORTED)
    if with_negative and "negative_prompt" not in inspect.signature(type(pipe).__call__).parameters:
        raise InputError(f"with_negative: expected False for {type(pipe).__name__}, which takes no negative prompt")

    from .generators.prompt_tokens import PipelineTokens
    from .refiner import Refiner

    tokens = PipelineTokens(pipe)
    is_loaded = isinstance(refiner, Refiner)
    if not isinstance(refiner, Refiner):
        refiner = Refiner.from_pretrained("prip-mini" if refiner is None else refiner, device=_device_of(pipe))
    kind = _plain_class(type(pipe))
    refining = _empty(kind)
    vars(refining).update({name: value for name, value in vars(pipe).items() if name not in _STATE})
    refining._refinement = _Refinement(
        refiner.counted_by(tokens), tokens.frame, defaults, follows=not is_loaded, with_negative=with_negative
    )
    return refining


@dataclass(frozen=True)
class _Refinement:
    refiner: Refiner
    frame: int
    """Tokens that the text encoder adds to every prompt."""
    defaults: RefineOptions
    follows: bool
    """Whether the refiner moves with the pipeline."""
    with_negative: bool = False

    def __call__(self, prompt: Any, options: RefineOptions, max_sequence_length: int | None) -> Any:
        """Return the refined prompt or prompts; prompts without words are kept."""
        budget = options.token_budget
        if budget is None and max_sequence_length is not None:
            budget = self._limit(max_sequence_length)
        options = replace(options, token_budget=budget)
        if isinstance(prompt, str) or not isinstance(prompt, Sequence):
            return prompt if _is_wordless(prompt) else self.refiner.refine(prompt, options)
        check_user_prompts(
            ["-" if _is_wordless(text) else text for text in prompt]
        )  # errors give its index in the list
        refined = iter(self.refiner.refine([text for text in prompt if not _is_wordless(text)], options))
        return [text if _is_wordless(text) else next(refined) for text in prompt]

    def negative(self, prompt: Any, own: Any, max_sequence_length: int | None) -> Any:
        """Return a negative prompt for each refined prompt, each after the call's own one."""
        if isinstance(prompt, str):
            if not isinstance(own, str | None):
                return own
            assert self.refiner.sampler.counter is not None
            return negative_prompt(prompt, own or "", self._limit(max_sequence_length), self.refiner.sampler.counter)
        owns = [own] * len(prompt) if own is None or isinstance(own, str) else own
        if len(owns) != len(prompt):
            return own  # which the pipeline refuses in its own words
        return [self.negative(text, one, max_sequence_length) or "" for text, one in zip(prompt, owns, strict=True)]

    def _limit(self, max_sequence_length: int | None) -> int:
        limit = self.refiner.token_limit
        return limit if max_sequence_length is None else max(1, min(limit, max_sequence_length - self.frame))


class _Refining:
    """Mixin of refining pipelines. Without a refinement, as after `from_pipe`, it acts like the plain class."""

    refined_prompt: str | list[str] | None = None
    drawn_negative_prompt: str | list[str] | None = None
    _refinement: _Refinement | None = None

    def to(self, *arguments: Any, **named: Any) -> Any:
        """Move the pipeline; a refiner that was loaded for it moves to its device but keeps its dtype."""
        moved = super().to(*arguments, **named)  # type: ignore[misc]
        if self._refinement is not None and self._refinement.follows:
            self._refinement.refiner.to(_device_of(self))
        return moved

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _empty, (_plain_class(type(self)),), vars(self)


_STATE = ("refined_prompt", "drawn_negative_prompt", "_refinement")


def _empty(kind: type) -> Any:
    """Return a refining pipeline of a pipeline's class, without parts."""
    return object.__new__(_refining_class(kind))


@functools.cache
def _refining_class(kind: type) -> type:
    """Return the refining subclass of a pipeline's class, with the same name, which diffusers stores and looks up."""
    signature = inspect.signature(kind.__call__)
    length = signature.parameters.get("max_sequence_length")
    default_length = length.default if length is not None and isinstance(length.default, int) else None

    @functools.wraps(kind.__call__)
    def call(self: Any, *arguments: Any, refine: bool | Mapping[str, Any] = True, **named: Any) -> Any:
        bound = signature.bind(self, *arguments, **named)
        refinement, values = self._refinement, bound.arguments
        if not isinstance(refine, bool | Mapping):
            raise InputError(f"refine: expected True, False or a mapping of options, got {refine!r}")
        self.refined_prompt = self.drawn_negative_prompt = None
        if refinement is not None and refine is not False:
            changes = refine if isinstance(refine, Mapping) else {}
            options = with_changes(refinement.defaults, changes, _UNSUPPORTED)
            if values.get("prompt") is not None and values.get("prompt_embeds") is None:
                length = values.get("max_sequence_length", default_length)
                values["prompt"] = self.refined_prompt = refinement(values["prompt"], options, length)
                if refinement.with_negative and _is_guided(self, values, signature):
                    negative = refinement.negative(self.refined_prompt, values.get("negative_prompt"), length)
                    values["negative_prompt"] = self.drawn_negative_prompt = negative
        output = kind.__call__(*bound.args, **bound.kwargs)
        if not isinstance(output, tuple):
            output.refined_prompt, output.drawn_negative_prompt = self.refined_prompt, self.drawn_negative_prompt
        return output

    switch = inspect.Parameter("refine", inspect.Parameter.KEYWORD_ONLY, default=True)
    parameters = list(signature.parameters.values())
    last = next((i for i, parameter in enumerate(parameters) if parameter.kind is parameter.VAR_KEYWORD), None)
    parameters.insert(len(parameters) if last is None else last, switch)
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (_Refining, kind), {**names, "__call__": call})


def _is_guided(pipe: Any, values: Mapping[str, Any], signature: inspect.Signature) -> bool:
    """Return whether a call reads a negative prompt: with classifier-free guidance, and no embeddings in its place."""
    names = [name for name in ("true_cfg_scale", "guidance_scale") if name in signature.parameters]
    if not names or values.get("negative_prompt_embeds") is not None:
        return False
    config = getattr(getattr(pipe, "unet", None), "config", None)
    scale = values.get(names[0], signature.parameters[names[0]].default)
    return isinstance(scale, int | float) and scale > 1 and getattr(config, "time_cond_proj_dim", None) is None


def _is_wordless(prompt: Any) -> bool:
    return isinstance(prompt, str) and not has_words(prompt)


def _device_of(pipe: Any) -> torch.device | str:
    """Return the device of a pipeline; the CPU for one that is offloaded."""
    return "cpu" if pipe.device.type == "meta" else pipe.device


def _plain_class(kind: type) -> type:
    return kind.__bases__[1] if issubclass(kind, _Refining) else kind


def _check_pipeline(diffusers: Any, pipe: Any) -> None:
    expected = "pipe: expected a text-to-image pipeline of diffusers"
    if not isinstance(pipe, diffusers.DiffusionPipeline):
        raise InputError(f"{expected}, got {getattr(pipe, '__name__', type(pipe).__name__)}")
    parameters = inspect.signature(type(pipe).__call__).parameters
    if "prompt" not in parameters:
        raise InputError(f"{expected}, got {type(pipe).__name__}, which takes no prompt")
