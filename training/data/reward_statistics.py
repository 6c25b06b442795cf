"""Means and deviations of rewards on unrefined images, which standardise their sum."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from prip.errors import CheckpointError, InputError
from prip.files import replace_text


@dataclass(frozen=True)
class RewardStatistics:
    """Mean and standard deviation of each reward on unrefined images."""

    means: dict[str, float]
    deviations: dict[str, float]

    @classmethod
    def measure(cls, scores: Mapping[str, Tensor]) -> RewardStatistics:
        """Return the statistics of `scores`, (n,) by reward, with deviations over n. Raise InputError if one is
        constant."""
        exact = {name: values.double() for name, values in scores.items()}
        deviations = {name: values.std(correction=0).item() for name, values in exact.items()}
        for name, deviation in deviations.items():
            if not deviation > 0:
                raise InputError(
                    f"rewards: expected scores that differ from image to image, {name} gave one value only"
                )
        return cls({name: values.mean().item() for name, values in exact.items()}, deviations)

    @classmethod
    def read(cls, path: Path, names: Sequence[str]) -> RewardStatistics | None:
        """Return the statistics of the rewards `names` from a JSON file; None if it is missing or incomplete."""
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            tables = [{name: float(content[key][name]) for name in names} for key in ("means", "deviations")]
        except KeyError:
            return None
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: expected means and deviations by reward, got {error}") from error
        return cls(*tables)

    def write(self, path: Path) -> None:
        """Write the JSON file that `read` reads."""
        replace_text(path, json.dumps(asdict(self), indent=2) + "\n")
