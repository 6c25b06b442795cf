"""The stages of prip-train by name. It takes no package that comes with the extra `train`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from prip.command_line import Parser

_OUTLINE = """examples:
  prip-train world --config miniature --checkpoint prip-mini --run runs/mine
  prip-train encoder --config miniature --run runs/mine --loop.steps 500
  prip-train encoder --config miniature --run runs/mine --loop.steps 500 --resume
  prip-train encoder --config paper --print_config
  prip-train encoder --help

exit status: 0 done, 1 failed, 2 wrong settings, 130 interrupted"""


@dataclass(frozen=True)
class Stage:
    """Where a stage is: a module of this package with `run(settings)`, and the class of its settings."""

    module: str
    settings: str
    summary: str


STAGES = {
    "world": Stage("world", "WorldSettings", "train the miniature's frozen parts: generator, pivot encoder, rewards"),
    "stand-ins": Stage("stand_ins", "StandInsSettings", "write small random models and a DiffusionDB, for a rehearsal"),
    "prepare": Stage("prepare.stage", "PrepareSettings", "draw images, choose the preferred ones, cache their pivots"),
    "rewrites": Stage(
        "prepare.rewrites", "RewritesSettings", "make pairs of user and system prompt, for the paper's peers"
    ),
    "encoder": Stage("warmup.encoder", "EncoderSettings", "warm up the preference encoder: user prompt to pivot"),
    "decoder": Stage("warmup.decoder", "DecoderSettings", "warm up the prompt decoder: pivot to system prompt"),
    "rl": Stage("rl.stage", "RlSettings", "train the encoder end to end by PPO, or the decoder"),
    "tune": Stage("tune.stage", "TuneSettings", "tune the generator itself on the rewards, as ReFL does"),
    "export": Stage("export", "ExportSettings", "put all parts of a run together as one checkpoint"),
}


def top_parser() -> Parser:
    """Returns the parser of the stage's name, the first of the arguments."""
    lines = [f"  {name:11}{stage.summary}" for name, stage in STAGES.items()]
    parser = Parser(
        prog="prip-train",
        description="Train PRIP, stage by stage:\n" + "\n".join(lines),
        epilog=_OUTLINE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=STAGES, metavar="stage", help="one of the above; more options follow it")
    return parser
