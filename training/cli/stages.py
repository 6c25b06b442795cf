"""The stages of prip-train and their presets. Imports no package of the extra `train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prip.command_line import Parser

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_EPILOG = """examples:
  prip-train world --config miniature --checkpoint prip-mini --run runs/mine
  prip-train encoder --config miniature --run runs/mine --loop.steps 500
  prip-train encoder --config miniature --run runs/mine --loop.steps 500 --resume
  prip-train encoder --config paper --print_config
  prip-train encoder --help

exit status: 0 done, 1 failed, 2 wrong settings, 130 interrupted"""


@dataclass(frozen=True)
class Stage:
    """A stage: its module under prip.training with `run(settings)`, the name of its settings class, and a summary."""

    module: str
    settings: str
    summary: str
    first: tuple[str, ...] = ()
    """Settings that its --help shows besides SHOWN_BY_ALL; none for all settings."""


SHOWN_BY_ALL = ("run", "seed", "device", "resume", "overwrite")
"""Settings that --help shows for every stage with a list of its own."""
_TRAINING = ("loop.steps", "loop.batch_size", "optimizer.lr")
STAGES = {
    "prior": Stage(
        "prior.stage",
        "PriorSettings",
        "fit what users add to their prompts, from files of real prompts",
        ("prompts", "sentence_encoder", "words", "fit.members", "fit.hidden", "fit.epochs", "fit.lr"),
    ),
    "world": Stage(
        "world",
        "WorldSettings",
        "train the miniature's frozen parts (generator, pivot encoder, rewards)",
        ("parts", "checkpoint", "image_size", "renders", "generator_loop.steps", "loop.steps", "reward_loop.steps"),
    ),
    "stand-ins": Stage(
        "stand_ins", "StandInsSettings", "write tiny random models and data, to rehearse the preset paper"
    ),
    "prepare": Stage(
        "prepare.stage",
        "PrepareSettings",
        "make the warm-ups' data: images, scores, pivots",
        ("generator", "rewards", "diffusiondb", "pivot_encoder", "batch_size", "source.part_limit", "ray.workers"),
    ),
    "rewrites": Stage(
        "prepare.rewrites",
        "RewritesSettings",
        "make the prompt pairs of the paper's baselines",
        ("source", "data", "synthetic.table", "synthetic.limit", "sessions.log", "gain.generator", "gain.rewards"),
    ),
    "encoder": Stage(
        "warmup.encoder",
        "EncoderSettings",
        "warm up the preference encoder (user prompt to pivot)",
        (*_TRAINING, "data", "images", "base", "word_dropout"),
    ),
    "decoder": Stage(
        "warmup.decoder",
        "DecoderSettings",
        "warm up the prompt decoder (pivot to system prompt)",
        (*_TRAINING, "data", "pivot", "base", "word_dropout", "lora.rank"),
    ),
    "rl": Stage(
        "rl.stage",
        "RlSettings",
        "train the encoder (or the decoder) on rewards, by PPO",
        (*_TRAINING, "learns", "parts.generator", "parts.rewards", "ppo.kl"),
    ),
    "tune": Stage(
        "tune.stage",
        "TuneSettings",
        "fine-tune the generator on the rewards, by ReFL",
        (*_TRAINING, "generator", "rewards", "data", "pull.weight", "anchor.weight"),
    ),
    "export": Stage("export", "ExportSettings", "write all parts of a run as one checkpoint"),
}


def preset_files(stage: str) -> dict[str, Path]:
    """Return the configs of a stage by the name of their preset."""
    return {path.parent.name: path for path in sorted(CONFIGS.glob(f"*/{stage}.yaml"))}


def top_parser() -> Parser:
    """Return the parser of the first argument, the stage."""
    lines = [f"  {name:11}{stage.summary}" for name, stage in STAGES.items()]
    parser = Parser(
        prog="prip-train",
        description="Train PRIP, stage by stage:\n" + "\n".join(lines),
        epilog=_EPILOG,
    )
    parser.add_argument("stage", choices=STAGES, metavar="stage", help="one of the above; its options follow")
    return parser
