"""Measure the cost of the paper's sizes on one GPU with random weights: warm-up steps, an RL iteration, refining.

    python -m benchmarks.paper_scale                   # the preset paper, at its sizes, on a GPU
    python -m benchmarks.paper_scale --size small      # the preset paper-dry, on small models, anywhere
    python -m benchmarks.paper_scale --only rl         # one row; the others are read from --json

Each row runs the stage's own code in a subprocess, as prip-train does under the preset: batch, precision, optimizer,
gradient checkpointing. If it fails, the row shows the error. Work that several devices would share is done by one: it
runs the decoder's whole optimizer step, and no gradients are exchanged.

FLOPs are torch's count for a step; a backward pass counts twice the forward pass, or once if the weights are frozen,
and recomputation by gradient checkpointing is not counted. MFU relates their rate to the device's bf16 peak. On a CPU,
memory is the process's. Projected hours are those of the preset's schedule at the measured rates; for RL they include
the plain images that are not in the cache, the images of the statistics, and the dev split.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import make_parser
from prip.files import replace_text
from prip.training.cli.command import parse_settings

NAMES = {
    "encoder": "encoder step",
    "lora": "decoder step, LoRA",
    "full": "decoder step, full",
    "rl": "RL iteration",
    "refine": "refine",
}
"""The rows, in the table's order."""
PAPER_HOURS = {"encoder": 24, "full": 144, "rl": 384}
"""A100-hours of the paper's three stages."""
GOAL_SECONDS, PAPER_SECONDS = 0.15, 2.7
"""Seconds per rollout: the goal on an H200, and the paper's on an A100."""
PRESETS = {"paper": "paper", "small": "paper-dry"}
"""Preset by size."""


def examples_of(settings: Any) -> int:
    """Return the number of examples in a stage's whole schedule; for RL, of user prompts."""
    return settings.loop.steps * settings.loop.batch_size * settings.loop.accumulate * settings.devices


def plain_images(user_prompts: int, taken: int, images_per_prompt: int, seed_pool: int) -> float:
    """Return the expected number of plain images that RL draws for `taken` prompts, in passes over `user_prompts`.

    In pass p, the share 1 - (1 - images_per_prompt / seed_pool) ** (p - 1) of the images is in the cache.
    """
    drawn, missing = 0.0, 1.0
    while taken > 0:
        drawn += min(taken, user_prompts) * images_per_prompt * missing
        missing *= 1 - images_per_prompt / seed_pool
        taken -= user_prompts
    return drawn


def rl_schedule(rl: Any, user_prompts: int) -> dict[str, float]:
    """Count the rollouts, refinements and images of all of stage 3, with `user_prompts` in the train split."""
    rollouts, taken = rl.rollouts, examples_of(rl)
    learned = taken * rollouts.samples_per_prompt
    measured = (rl.loop.steps // rl.loop.validate_every + 1) * rollouts.dev_prompts
    plain = plain_images(user_prompts, taken, rollouts.images_per_prompt, rollouts.seed_pool)
    plain += rollouts.statistics_images + rollouts.dev_prompts * rollouts.dev_images_per_prompt
    refined = learned * rollouts.images_per_prompt + measured * rollouts.dev_images_per_prompt
    return {"rollouts": learned, "refinements": learned + measured, "plain images": plain, "images": refined + plain}


def gpu_hours(row: str, figures: dict[str, Any], preset: str) -> float:
    """Return the hours that the preset's schedule takes on this device at the row's rates."""
    stage = {"full": "decoder"}.get(row, row)
    settings = parse_settings(stage, ["--config", preset, "--run", "unused"])
    if row != "rl":
        return examples_of(settings) * figures["seconds"] / figures["examples"] / 3600
    prepare = parse_settings("prepare", ["--config", preset, "--run", "unused"])
    schedule = rl_schedule(settings, round(prepare.user_prompt_limit * (1 - prepare.dev_share)))
    each = {name: own["seconds"] / figures["examples"] for name, own in figures["phases"].items()}
    per_image = (each["draw"] + each["score"]) / settings.rollouts.images_per_prompt
    seconds = schedule["rollouts"] * (each["update"] + each["all else"])
    return (seconds + schedule["refinements"] * each["refine"] + schedule["images"] * per_image) / 3600


def line(name: str, figures: dict[str, Any]) -> str:
    """Format a row of the table."""
    if "error" in figures:
        return f"{name:22} {figures['error']}"
    seconds, examples = figures["seconds"], figures["examples"]
    rate = f"{examples / seconds:12.2f}" if seconds else f"{'':12}"
    peak = "" if figures["peak_gib"] is None else f"{figures['peak_gib']:.1f}"
    used = "" if figures["mfu"] is None else f"{100 * figures['mfu']:.1f} %"
    return f"{name:22} {examples:6} {seconds:10.3f} {rate} {peak:>10} {used:>8}"


def table(size: str, rows: dict[str, dict[str, Any]]) -> str:
    """Format the measurements and the projections from them."""
    devices = dict.fromkeys(figures["device"] for figures in rows.values() if "device" in figures)
    lines = [f"{', '.join(devices) or 'no device'}, preset {PRESETS[size]}, random weights", ""]
    lines.append(f"{'':22} {'batch':>6} {'seconds':>10} {'samples/s':>12} {'peak GiB':>10} {'MFU':>8}")
    for row in filter(rows.__contains__, NAMES):
        lines.append(line(NAMES[row], rows[row]))
        lines += [line(f"  {name}", own) for name, own in rows[row].get("phases", {}).items()]
    done = {row: figures for row, figures in rows.items() if "error" not in figures}
    if "rl" in done:
        seconds = done["rl"]["seconds"] / done["rl"]["examples"]
        lines += [
            "",
            f"a rollout of {done['rl']['tokens_per_rollout']:.0f} tokens, its plain image cached: {seconds:.3f} s",
        ]
        lines[-1] += f" (goal on an H200: {GOAL_SECONDS}; the paper's, on an A100: {PAPER_SECONDS})"
    projected = [row for row in PAPER_HOURS if row in done]
    if projected:
        lines += ["", f"hours of this device for the schedule of {PRESETS[size]} (the paper's own, on an A100):"]
        for row in projected:
            hours = gpu_hours(row, done[row], PRESETS[size])
            lines.append(f"  {NAMES[row].partition(' step')[0]:20} {hours:10.3g} ({PAPER_HOURS[row]})")
    return "\n".join(lines)


def measured(row: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a row in a subprocess; return its figures or its error."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "benchmarks.paper_scale.rows", row, str(out), "--size", arguments.size]
        command += ["--repeats", str(arguments.repeats)]
        for option in ("device", "strategy"):
            value = getattr(arguments, option)
            command += [] if value is None else [f"--{option}", value]
        status = subprocess.run(command, stdout=2).returncode  # what libraries print goes to stderr
        if out.is_file():
            return json.loads(out.read_text(encoding="utf-8"))
    return {"error": f"its process ended with status {status}"}


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--size", choices=sorted(PRESETS), default="paper", help="of all models (default: paper)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps per row (default: 5)")
    parser.add_argument("--strategy", help="instead of the preset's; auto measures the full decoder without DeepSpeed")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="ROW", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, help="file of the figures (default: paper_scale_SIZE.json)")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats: expected at least 1, got {arguments.repeats}")
    if arguments.size == "paper" and not has_gpu(arguments.device):
        parser.error("--size: expected small without a GPU, got paper")
    path = arguments.json or Path(f"paper_scale_{arguments.size}.json")
    rows: dict[str, dict[str, Any]] = {}
    if arguments.only and path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        rows = kept["rows"] if kept["size"] == arguments.size else {}
    for row in arguments.only or NAMES:
        rows[row] = measured(row, arguments)
        print(line(NAMES[row], rows[row]), file=sys.stderr, flush=True)
        replace_text(path, json.dumps({"size": arguments.size, "rows": rows}, indent=2) + "\n")
    print(table(arguments.size, rows))
    print(f"\nwritten to {path}")
    return 1 if any("error" in rows[row] for row in arguments.only or NAMES) else 0


def has_gpu(device: str | None) -> bool:
    """Return whether the given or default device is a GPU."""
    import torch

    return torch.cuda.is_available() and torch.device(device or "cuda").type == "cuda"


if __name__ == "__main__":
    sys.exit(main())
