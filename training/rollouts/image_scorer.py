"""What images are worth: drawn once, scored by every reward, and compared with the plain prompt's."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prip.errors import CheckpointError, InputError
from prip.files import replace_text
from prip.protocols import Generator, Reward

from .offloading import Residence

Pair = tuple[str, int]
"""A user prompt and the seed of its image."""


class BaselineCache:
    """Raw scores of plain images by user prompt, seed and reward: a folder of JSON files that processes may share.

    Each `add` writes a file of its own, whole or not at all, which never changes. What others have added is read as
    soon as something is asked for that is not known yet, so that a process finds what another has drawn.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._read: set[str] = set()
        self._scores: dict[Pair, dict[str, float]] = {}
        self._moments: dict[str, set[Pair]] = {}

    def __len__(self) -> int:
        self._refresh()
        return sum(len(own) for own in self._scores.values())

    def read(self, pairs: Iterable[Pair], names: Sequence[str]) -> dict[Pair, dict[str, float]]:
        """Returns the scores of those of `pairs` that all rewards in `names` are known of."""
        wanted = list(dict.fromkeys(pairs))

        def known() -> dict[Pair, dict[str, float]]:
            held = {pair: self._scores.get(pair, {}) for pair in wanted}
            return {pair: own for pair, own in held.items() if own.keys() >= set(names)}

        found = known()
        if len(found) < len(wanted):
            self._refresh()
            found = known()
        return found

    def added_at(self, moment: str, pairs: Iterable[Pair]) -> int:
        """Returns how many different ones of `pairs` were added under the name `moment`, by whichever process."""
        return len(self._moments.get(moment, set()).intersection(pairs))

    def add(self, scores: Mapping[Pair, Mapping[str, float]], moment: str = "") -> None:
        """Keeps `scores`, all of them or, if the process dies, none, as of `moment`."""
        held = {"moment": moment, "scores": [[*pair, dict(own)] for pair, own in scores.items()]}
        name = f"{uuid.uuid4().hex}.json"
        replace_text(self.folder / name, json.dumps(held, ensure_ascii=False) + "\n")
        self._take(name, held)

    def _refresh(self) -> None:
        names = {entry.name for entry in os.scandir(self.folder) if not entry.name.startswith(".")}
        for name in sorted(names - self._read):
            path = self.folder / name
            try:
                self._take(name, json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{path}: wanted scores of plain images, got {error}") from error

    def _take(self, name: str, held: dict[str, Any]) -> None:
        moment = self._moments.setdefault(held["moment"], set())
        for user_prompt, seed, own in held["scores"]:
            self._scores.setdefault((user_prompt, seed), {}).update(own)
            moment.add((user_prompt, seed))
        self._read.add(name)


class ImageScorer:
    """Draws prompts and scores the images for the USER prompts; plain images come from the cache when they can."""

    def __init__(
        self,
        generator: Generator,
        rewards: Sequence[Reward],
        cache: BaselineCache,
        chunk: int = 256,
        residence: Residence | None = None,
    ) -> None:
        """chunk: images that are drawn, held and scored at once. residence: where the generator and the rewards are, by
        these names; None leaves them where they are.

        Raises InputError when there is no reward, or when two have one name.
        """
        self.generator, self.rewards, self.cache, self.chunk = generator, list(rewards), cache, chunk
        self.residence = residence or Residence({})
        self.names = [reward.name for reward in self.rewards]
        if not self.names or len(set(self.names)) < len(self.names):
            raise InputError(f"rewards: wanted one or more of different names, got {self.names}")

    def score(self, user_prompts: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Tensor]:
        """Returns raw scores by reward name, float32 (n,), of the images of `prompts`; equal ones are drawn once."""
        jobs = list(zip(user_prompts, prompts, seeds, strict=True))
        places = {job: place for place, job in enumerate(dict.fromkeys(jobs))}
        distinct = list(places)
        found = [self._score(distinct[i : i + self.chunk]) for i in range(0, len(distinct), self.chunk)]
        chosen = torch.tensor([places[job] for job in jobs], dtype=torch.long)
        return {name: torch.cat([own[name] for own in found])[chosen] for name in self.names}

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Returns the images, uint8 (n, 3, height, width) on the CPU."""
        with self.residence.using("generator"):
            return self.generator(prompts, seeds).cpu()

    @torch.no_grad()
    def _score(self, jobs: Sequence[tuple[str, str, int]]) -> dict[str, Tensor]:
        images = self.draw([job[1] for job in jobs], [job[2] for job in jobs])
        owners = [job[0] for job in jobs]
        with self.residence.using("rewards"):
            return {reward.name: reward(owners, images).float().cpu() for reward in self.rewards}

    def score_plain(self, user_prompts: Sequence[str], seeds: Sequence[int], moment: str = "") -> dict[str, Tensor]:
        """Returns the same of the user prompts drawn as they are; what the cache lacks is drawn, and added as of
        `moment`."""
        pairs = list(zip(user_prompts, seeds, strict=True))
        known = self.cache.read(pairs, self.names)
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        for start in range(0, len(missing), self.chunk):
            some = missing[start : start + self.chunk]
            scores = self._score([(user_prompt, user_prompt, seed) for user_prompt, seed in some])
            drawn = {pair: {name: scores[name][place].item() for name in self.names} for place, pair in enumerate(some)}
            self.cache.add(drawn, moment)
            known |= drawn
        return {name: torch.tensor([known[pair][name] for pair in pairs]) for name in self.names}
