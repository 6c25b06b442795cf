"""The rows of the ablation table: how each is trained, and the commands that train it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.common import link, train
from prip.training.cli.command import parse_settings


@dataclass(frozen=True)
class Row:
    """A way to train a refiner; without an encoder, it is a peer: a language model that rewrites prompts."""

    encoder: tuple[str, ...] | None = ()
    """Further flags of `prip-train encoder`; None is no encoder."""
    decoder: tuple[str, ...] = ()
    rl: tuple[str, ...] = ()
    config: str | None = None
    """Preset; None is the runner's."""
    needs: tuple[str, ...] = field(default=())
    """Stages before the warm-ups, shared by all seeds."""

    def warm_refiner(self, name: str, run: Path) -> dict[str, str]:
        """Return the refiner after warm-up as an entry in a config of `prip evaluate`."""
        if self.encoder is None:
            return {"kind": "prip", "place": str(run / "decoder" / "refiner")}
        return {"kind": "prip", "place": str(run), "stage": "warmup"}


ROWS = {
    "full": Row(),
    "without preferred images": Row(encoder=("--images=random",)),
    "without pivot": Row(decoder=("--pivot=none",)),
    "rew-syn": Row(encoder=None, config="rew-syn", needs=("rewrites",)),
    "rew-log": Row(encoder=None, config="rew-log", needs=("rewrites",)),
    "half decoder": Row(decoder=("--sizes.hidden_size=64", "--sizes.intermediate_size=192")),
    "double decoder": Row(decoder=("--sizes.hidden_size=256", "--sizes.intermediate_size=768")),
    "prefix not learned": Row(decoder=("--no_learn_prefix",)),
    "mini-reward alone": Row(rl=('--parts.rewards=["RUN/parts/rewards/mini-reward"]',)),
    "mini-hps alone": Row(rl=('--parts.rewards=["RUN/parts/rewards/mini-hps"]',)),
}
"""The first three are the paper's Table 4, with and without RL; the next two its strongest peers."""
TABLE_4 = ("full", "without preferred images", "without pivot")
PEERS = ("rew-syn", "rew-log")


def check_steps(run: Path, wanted: int) -> None:
    """Exit if a run's rl was started with another number of iterations than `wanted`."""
    path = run / "rl" / "settings.yaml"
    if not path.is_file():
        return
    recorded = yaml.safe_load(path.read_text(encoding="utf-8"))["loop"]["steps"]
    if recorded != wanted:
        raise SystemExit(
            f"{run / 'rl'} was trained with {recorded} iterations, {wanted} are wanted: choose another --out, or "
            f"--rl-steps {recorded}"
        )


@dataclass(frozen=True)
class Runner:
    """Trains the rows' runs."""

    run: Path
    """Run with the stages world and prepare done."""
    out: Path
    config: str
    rl_steps: int | None

    def train(self, name: str, seed: int, with_rl: bool) -> Path:
        """Train a row with one seed, skipping finished stages and sharing equal ones; return its run."""
        row, run = ROWS[name], self.folder(name, seed)
        config = row.config or self.config
        for folder in ("parts", "data"):
            link(run / folder, self.run / folder)
        for stage in row.needs:
            self._share(stage, config, run, 0, ())
        if row.encoder is not None:
            self._share("encoder", config, run, seed, row.encoder)
        self._share("decoder", config, run, seed, row.decoder)
        if with_rl:
            steps = () if self.rl_steps is None else (f"--loop.steps={self.rl_steps}",)
            flags = (*row.rl, *steps)
            check_steps(run, parse_settings("rl", ["--config", config, "--run", str(run), *flags]).loop.steps)
            self._stage("rl", config, run, seed, flags)
        return run

    def folder(self, name: str, seed: int) -> Path:
        """Return the run of a row."""
        return self.out / f"{name.replace(' ', '-')}-{seed}"

    def _share(self, stage: str, config: str, run: Path, seed: int, flags: Sequence[str]) -> None:
        """Train a stage in the first run that needs it, and link the others to it."""
        key = "-".join([stage, config, *(flag.strip("-").replace("=", "-") for flag in flags), str(seed)])
        marker = self.out / "shared" / key
        if marker.is_symlink() and (run / stage).resolve() != marker.resolve():
            link(run / stage, marker.resolve())
            return
        self._stage(stage, config, run, seed, flags)
        if not marker.is_symlink():
            link(marker, run / stage)

    def _stage(self, stage: str, config: str, run: Path, seed: int, flags: Sequence[str]) -> None:
        if (run / stage / "metrics.json").is_file() and stage != "rl" or (run / stage / "refiner").is_dir():
            return
        train(stage, config, run, seed, *flags)
