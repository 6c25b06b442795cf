"""The rewards by name, and how a text refers to one."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CheckpointError, InputError, broken_packages
from ..hub.commits import pinned
from ..hub.names import split_revision
from ..loading.folders import resolve_folder
from ..loading.untrusted import read_json
from ..protocols import Reward

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Published:
    """A published reward."""

    module: str
    """Module in this package."""
    class_name: str
    """Class in the module; its `from_original` loads the authors' files."""
    release: str | None = None
    """Release of the weights, if there are several."""


REWARDS = {
    "image-reward": Published("image_reward", "ImageReward"),
    "hps-v2.0": Published("hps_v2", "HpsV2", "hps-v2.0"),
    "hps-v2.1": Published("hps_v2", "HpsV2", "hps-v2.1"),
    "pick-score": Published("clip_scorer", "PickScore"),
    "clip-score": Published("clip_scorer", "ClipScore"),
    "aesthetic": Published("aesthetic", "Aesthetic"),
}
"""Published rewards by name."""

OWN_FORMATS = {
    "prip_prompt_reward": ("prompt_reward", "PromptReward"),
    "prip_image_reward": ("image_reward", "ImageReward"),
    "prip_hps_v2": ("hps_v2", "HpsV2"),
    "prip_pick_score": ("clip_scorer", "PickScore"),
    "prip_clip_score": ("clip_scorer", "ClipScore"),
    "prip_aesthetic": ("aesthetic", "Aesthetic"),
}
"""Module and class of saved rewards, by the model_type in config.json."""

_NAME = re.compile(r"[\w.-]+")


class RewardReference(NamedTuple):
    """A parsed reference to a reward."""

    name: str | None
    """Registered name; None for a reward in PRIP's own format."""
    place: str | None
    """File, folder or Hub id of the weights; None for the published ones."""
    revision: str | None
    """Of the Hub repository."""


def parse_reward(text: str, names: Collection[str] = tuple(REWARDS)) -> RewardReference:
    """Parse `NAME`, `NAME=PLACE`, `NAME@REVISION`, `NAME=PLACE@REVISION`, `PLACE` or `PLACE@REVISION`.

    A revision may follow a name or a Hub id, owner/name; in any other PLACE an @ is part of the path.

    Raises:
        InputError: If a NAME before = is not in `names`, or a PLACE or REVISION is empty.
    """
    name, equals, place = text.partition("=")
    if equals and name in names:
        if not place:
            raise InputError(f"reward: expected a folder, file or Hub id after =, got {text!r}")
        return RewardReference(name, *split_revision(place))
    if equals and _NAME.fullmatch(name):
        raise unknown_reward(name, names)
    name, at, revision = text.partition("@")
    if name in names:
        if at and not revision:
            raise InputError(f"reward: expected a revision after @, got {text!r}")
        return RewardReference(name, None, revision or None)
    return RewardReference(None, *split_revision(text))


def pinned_reward(text: str) -> str:
    """Return the reference to the same reward with the commit of its weights, if they are on the Hub.

    Raises:
        InputError: If the text is not a reference, as in `parse_reward`.
        CheckpointError: If the Hub cannot be asked for the commit.
    """
    reference = parse_reward(text)
    place = reference.place
    if place is None:
        assert reference.name is not None
        place = str(_published_class(reference.name).published)
    fixed = pinned(place if reference.revision is None else f"{place}@{reference.revision}")
    return fixed if reference.name is None else f"{reference.name}={fixed}"


def unknown_reward(name: str, names: Collection[str] = tuple(REWARDS)) -> InputError:
    """Return the error that lists the rewards there are."""
    return InputError(f"reward: expected one of {', '.join(names)}, a folder or a Hub id (owner/name), got {name!r}")


@broken_packages()
def load_reward(name_or_path: str | Path, device: str | None = None, dtype: str | torch.dtype | None = None) -> Reward:
    """Load a reward, frozen and in evaluation mode.

    Args:
        name_or_path: A registered name (`image-reward`, `hps-v2.0`, `hps-v2.1`, `pick-score`, `clip-score`,
            `aesthetic`), `NAME=PLACE` for weights of that reward in a file, folder or Hub repository, in the authors'
            format or PRIP's, or a folder or Hub id in PRIP's format. `@REVISION` may follow a name or a Hub id.
        device: Of the networks; None is the CPU.
        dtype: Of the networks, by name or torch's; None is float32. Scores are always float32.

    Returns:
        A reward: call it with n user prompts and uint8 images `(n, 3, height, width)` for float32 scores `(n,)`.

    Raises:
        InputError: If the name is unknown.
        CheckpointError: If there are no weights, or they do not fit.
    """
    import torch

    torch_dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
    reference = parse_reward(str(name_or_path))
    if reference.name is None:
        assert reference.place is not None
        if "/" not in reference.place and not Path(reference.place).exists():
            raise unknown_reward(reference.place)
        reward = _load_own(reference.place, reference.revision, torch_dtype)
    else:
        reward = _load_named(reference, torch_dtype)
    torch.nn.Module.to(reward, device or "cpu")
    return reward.requires_grad_(False).eval()


def _load_own(place: str, revision: str | None, dtype: torch.dtype) -> Any:
    config = resolve_folder(place, revision) / "config.json"
    model_type = read_json(config).get("model_type")
    if model_type not in OWN_FORMATS:
        raise CheckpointError(f"{config}: expected a reward's model_type, got {model_type!r}")
    return _class(*OWN_FORMATS[model_type]).from_pretrained(place, revision=revision, dtype=dtype)


def _load_named(reference: RewardReference, dtype: torch.dtype) -> Any:
    """Load a registered reward, from the authors' files or from a folder that `save_pretrained` wrote."""
    assert reference.name is not None
    config = Path(reference.place or "").expanduser() / "config.json"
    if reference.place and config.is_file() and read_json(config).get("model_type") in OWN_FORMATS:
        reward = _load_own(reference.place, reference.revision, dtype)
        if reward.name != reference.name:
            raise CheckpointError(f"{reference.place}: expected the reward {reference.name!r}, got {reward.name!r}")
        return reward
    release = REWARDS[reference.name].release
    options = {} if release is None else {"release": release}
    return _published_class(reference.name).from_original(reference.place, reference.revision, dtype, **options)


def _published_class(name: str) -> Any:
    return _class(REWARDS[name].module, REWARDS[name].class_name)


def _class(module: str, class_name: str) -> Any:
    return getattr(import_module(f".{module}", __package__), class_name)
