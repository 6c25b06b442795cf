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


STAGES = {
    "prior": Stage("prior.stage", "PriorSettings", "fit what users add to their prompts, from files of real prompts"),
    "world": Stage("world", "WorldSettings", "train the miniature's frozen parts (generator, pivot encoder, rewards)"),
    "stand-ins": Stage(
        "stand_ins", "StandInsSettings", "write tiny random models and data, to rehearse the preset paper"
    ),
    "prepare": Stage("prepare.stage", "PrepareSettings", "make the warm-ups' data: images, scores, pivots"),
    "rewrites": Stage("prepare.rewrites", "RewritesSettings", "make the prompt pairs of the paper's baselines"),
    "encoder": Stage("warmup.encoder", "EncoderSettings", "warm up the preference encoder (user prompt to pivot)"),
    "decoder": Stage("warmup.decoder", "DecoderSettings", "warm up the prompt decoder (pivot to system prompt)"),
    "rl": Stage("rl.stage", "RlSettings", "train the encoder (or the decoder) on rewards, by PPO"),
    "tune": Stage("tune.stage", "TuneSettings", "fine-tune the generator on the rewards, by ReFL"),
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
