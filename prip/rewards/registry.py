"""Which rewards there are by name, and how a text names one."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CheckpointError, InputError
from ..hub.commits import pinned
from ..hub.names import split_revision
from ..loading.folders import resolve_folder
from ..loading.untrusted import read_json
from ..protocols import Reward

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Published:
    """A reward that others have published."""

    module: str
    """Module of this package."""
    class_name: str
    """Class in it; its `from_original` reads the authors' files."""
    release: str | None = None
    """Which of several releases of the weights, None where there is one."""


REWARDS = {
    "image-reward": Published("image_reward", "ImageReward"),
    "hps-v2.0": Published("hps_v2", "HpsV2", "hps-v2.0"),
    "hps-v2.1": Published("hps_v2", "HpsV2", "hps-v2.1"),
    "pick-score": Published("pick_score", "PickScore"),
    "clip-score": Published("clip_score", "ClipScore"),
    "aesthetic": Published("aesthetic", "Aesthetic"),
}
"""Published rewards by name."""

OWN_FORMATS = {
    "prip_prompt_reward": ("prompt_reward", "PromptReward"),
    "prip_image_reward": ("image_reward", "ImageReward"),
    "prip_hps_v2": ("hps_v2", "HpsV2"),
    "prip_pick_score": ("pick_score", "PickScore"),
    "prip_clip_score": ("clip_score", "ClipScore"),
    "prip_aesthetic": ("aesthetic", "Aesthetic"),
}
"""Module and class of what `save_pretrained` writes, by the model_type in its config.json."""

_NAME = re.compile(r"[\w.-]+")


class RewardReference(NamedTuple):
    """What a text names: a registered reward or none, where its weights lie or none, and the Hub revision or none."""

    name: str | None
    place: str | None
    revision: str | None


def parse_reward(text: str, names: Collection[str] = tuple(REWARDS)) -> RewardReference:
    """Reads `NAME`, `NAME=PLACE`, `NAME@REVISION`, `NAME=PLACE@REVISION`, `PLACE` or `PLACE@REVISION`.

    A revision follows a name or an owner/name of the Hub; in any other PLACE an @ is part of the path.
    Raises InputError, which lists `names`, for a NAME= that is not among them, and for an empty PLACE or REVISION.
    """
    name, equals, place = text.partition("=")
    if equals and name in names:
        if not place:
            raise InputError(f"reward: wanted a folder, file or Hub id after the = of {text!r}")
        return RewardReference(name, *split_revision(place))
    if equals and _NAME.fullmatch(name):
        raise unknown_reward(name, names)
    name, at, revision = text.partition("@")
    if name in names:
        if at and not revision:
            raise InputError(f"reward: wanted a revision after the @ of {text!r}")
        return RewardReference(name, None, revision or None)
    return RewardReference(None, *split_revision(text))


def pinned_reward(text: str) -> str:
    """Returns the text that names the same reward with the commit of its weights, where they come from the Hub.

    Raises CheckpointError where the Hub does not tell it, and as `parse_reward` does.
    """
    reference = parse_reward(text)
    place = reference.place
    if place is None:
        assert reference.name is not None
        place = str(_module(REWARDS[reference.name].module).PUBLISHED)
    fixed = pinned(place if reference.revision is None else f"{place}@{reference.revision}")
    return fixed if reference.name is None else f"{reference.name}={fixed}"


def unknown_reward(name: str, names: Collection[str] = tuple(REWARDS)) -> InputError:
    """The error that says which rewards there are."""
    return InputError(f"reward: {name!r} is none of {', '.join(names)}, and no folder or owner/name on the Hub")


def load_reward(name_or_path: str | Path, device: str | None = None, dtype: str | torch.dtype | None = None) -> Reward:
    """Loads a reward, frozen. `name_or_path` is read as `parse_reward` says.

    A registered name takes the weights that its authors have published, from the Hub or from PLACE, in their own format
    or in PRIP's; all else is PRIP's format, in a folder or on the Hub. device: None is the CPU. dtype: of the networks,
    None is float32. Raises InputError for an unknown name, CheckpointError where there are no weights that fit.
    """
    import torch

    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
    reference = parse_reward(str(name_or_path))
    if reference.name is None:
        assert reference.place is not None
        if "/" not in reference.place and not Path(reference.place).exists():
            raise unknown_reward(reference.place)
        reward = _load_own(reference.place, reference.revision, wanted)
    else:
        reward = _load_named(reference, wanted)
    torch.nn.Module.to(reward, device or "cpu")
    return reward.requires_grad_(False).eval()


def _load_own(place: str, revision: str | None, dtype: torch.dtype) -> Any:
    """What `save_pretrained` wrote."""
    config = resolve_folder(place, revision) / "config.json"
    found = read_json(config).get("model_type")
    if found not in OWN_FORMATS:
        raise CheckpointError(f"{config} is foreign: a reward's model_type expected, {found!r} found")
    return _named_class(*OWN_FORMATS[found]).from_pretrained(place, revision=revision, dtype=dtype)


def _load_named(reference: RewardReference, dtype: torch.dtype) -> Any:
    """A registered reward, from its authors' files or from a folder that `save_pretrained` wrote."""
    assert reference.name is not None
    config = Path(reference.place or "").expanduser() / "config.json"
    if reference.place and config.is_file() and read_json(config).get("model_type") in OWN_FORMATS:
        reward = _load_own(reference.place, reference.revision, dtype)
        if reward.name != reference.name:
            raise CheckpointError(f"{reference.place} holds the reward {reward.name!r}, {reference.name!r} was wanted")
        return reward
    published = REWARDS[reference.name]
    cls = _named_class(published.module, published.class_name)
    given = {"place": reference.place, "release": published.release}
    options = {key: value for key, value in given.items() if value is not None}
    return cls.from_original(revision=reference.revision, dtype=dtype, **options)


def _named_class(module: str, class_name: str) -> Any:
    return getattr(_module(module), class_name)


def _module(name: str) -> Any:
    return import_module(f".{name}", __package__)
