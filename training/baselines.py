"""What images are worth: drawn once, scored by every reward, and compared with the plain prompt's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from prip.errors import CheckpointError, InputError
from prip.protocols import Generator, Reward

from .atomic import replace_text

_TABLE = """create table if not exists baseline (
    user_prompt text, seed integer, reward text, score real, primary key (user_prompt, seed, reward)
)"""

Pair = tuple[str, int]
"""A user prompt and the seed of its image."""


@dataclass(frozen=True)
class RewardStatistics:
    """Mean and deviation of each reward on unrefined images: the scales by which rewards are added up."""

    means: dict[str, float]
    deviations: dict[str, float]

    @classmethod
    def measure(cls, scores: Mapping[str, Tensor]) -> RewardStatistics:
        """Returns those of `scores`: reward name to (n,). Raises InputError for a reward that never varies."""
        deviations = {name: values.double().std().item() for name, values in scores.items()}
        for name, deviation in deviations.items():
            if not deviation > 0:
                raise InputError(f"rewards: wanted scores that differ from image to image, {name} gave one value only")
        return cls({name: values.double().mean().item() for name, values in scores.items()}, deviations)

    @classmethod
    def read(cls, path: Path, names: Sequence[str]) -> RewardStatistics | None:
        """Returns those of the rewards `names` from a JSON file; None if there is no file, or it does not have all."""
        if not path.is_file():
            return None
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            tables = [{name: float(held[key][name]) for name in names} for key in ("means", "deviations")]
        except KeyError:
            return None
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: wanted means and deviations by reward, got {error}") from error
        return cls(*tables)

    def write(self, path: Path) -> None:
        """Writes the JSON file that `read` reads."""
        replace_text(path, json.dumps(asdict(self), indent=2) + "\n")


class BaselineCache:
    """Raw scores of plain images in an SQLite file, by user prompt, seed and reward."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(_TABLE)

    def __len__(self) -> int:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("select count(*) from baseline").fetchone()[0]

    def read(self, pairs: Sequence[Pair]) -> dict[Pair, dict[str, float]]:
        """Returns the scores of those of `pairs` that are known."""
        found: dict[Pair, dict[str, float]] = {}
        query = "select reward, score from baseline where user_prompt = ? and seed = ?"
        with closing(sqlite3.connect(self.path)) as connection:
            for pair in pairs:
                if scores := dict(connection.execute(query, pair)):
                    found[pair] = scores
        return found

    def add(self, scores: Mapping[Pair, Mapping[str, float]]) -> None:
        """Keeps `scores`, all of them or, if the process dies, none."""
        rows = [(*pair, name, score) for pair, own in scores.items() for name, score in own.items()]
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany("insert or replace into baseline values (?, ?, ?, ?)", rows)


class ImageScorer:
    """Draws prompts and scores the images for the USER prompts; plain images come from the cache when they can."""

    def __init__(self, generator: Generator, rewards: Sequence[Reward], cache: BaselineCache) -> None:
        """Raises InputError when there is no reward, or when two have one name."""
        self.generator, self.rewards, self.cache = generator, list(rewards), cache
        self.names = [reward.name for reward in self.rewards]
        if not self.names or len(set(self.names)) < len(self.names):
            raise InputError(f"rewards: wanted one or more of different names, got {self.names}")

    @torch.no_grad()
    def score(self, user_prompts: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Tensor]:
        """Returns raw scores by reward name, float32 (n,), of the images of `prompts`; equal ones are drawn once."""
        jobs = list(zip(user_prompts, prompts, seeds, strict=True))
        places = {job: place for place, job in enumerate(dict.fromkeys(jobs))}
        images = self.generator([job[1] for job in places], [job[2] for job in places])
        chosen = torch.tensor([places[job] for job in jobs])
        owners = [job[0] for job in places]
        return {reward.name: reward(owners, images).float().cpu()[chosen] for reward in self.rewards}

    def score_plain(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Tensor]:
        """Returns the same of the user prompts drawn as they are; what the cache lacks is drawn in one go and added."""
        pairs = list(zip(user_prompts, seeds, strict=True))
        known = self.cache.read(list(dict.fromkeys(pairs)))
        missing = [
            pair
            for pair in dict.fromkeys(pairs)
            if pair not in known or any(name not in known[pair] for name in self.names)
        ]
        if missing:
            owners, missing_seeds = [pair[0] for pair in missing], [pair[1] for pair in missing]
            scores = self.score(owners, owners, missing_seeds)
            drawn = {
                pair: {name: scores[name][place].item() for name in self.names} for place, pair in enumerate(missing)
            }
            self.cache.add(drawn)
            known |= drawn
        return {name: torch.tensor([known[pair][name] for pair in pairs]) for name in self.names}
