"""Measure the overhead of `prip evaluate`: time besides refining, drawing and scoring, and memory by prompts.

    python -m benchmarks.evaluate_scale
    python -m benchmarks.evaluate_scale --prompts 200 800 --overhead-prompts 16

Time: plain and refined prompts of the miniature on its diffusion generator, including the image files. Memory: the
command's peak resident set for 1,000, 4,000 and 16,000 prompts on the renderer, one plain and one refined image each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import make_parser
from prip.miniature.prompts import SPLITS, user_prompts


def write_prompts(path: Path, count: int) -> None:
    """Write `count` distinct user prompts, each with a subject of the miniature."""
    texts = [text for split in SPLITS for text, _ in user_prompts(split, 6, 0)]
    numbered = [f"{texts[index % len(texts)]}, take {index // len(texts) + 1}" for index in range(count)]
    path.write_text("\n".join(numbered) + "\n", encoding="utf-8")


def evaluate(out: Path, *arguments: str) -> tuple[dict, float]:
    """Run the command in a subprocess; return its summary and its peak resident set in MiB."""
    program = (
        "import resource, sys\n"
        "from prip.inference.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "evaluate", "--quiet", "--device", "cpu", "--out", str(out), *arguments]
    process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if process.returncode:
        raise SystemExit(process.stderr)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary, float(process.stderr.strip().splitlines()[-1])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1000, 4000, 16000], help="numbers of prompts")
    parser.add_argument("--overhead-prompts", type=int, default=96, help="prompts that are timed (default: 96)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "scale.yaml"
        config.write_text("extends: miniature\nbootstrap_draws: 10000\n", encoding="utf-8")
        common = ["--config", str(config), "--refiners", "rl"]
        out = Path(scratch) / "overhead"
        limit = ["--prompt-limit", str(arguments.overhead_prompts), "--generators", "diffusion"]
        summary, _ = evaluate(out, *common, *limit)
        seconds = summary["about"]["seconds_by_work"]
        whole = seconds.pop("all") - seconds.pop("load")
        work = sum(seconds.values())
        print(f"{summary['about']['images']} images on diffusion: {work:.1f} s of " + ", ".join(seconds))
        print(f"the evaluator adds {whole - work:.2f} s, {(whole - work) / work:.1%}")
        print("prompts     rows   peak MiB   against the first")
        first = None
        for count in arguments.prompts:
            prompts, out = Path(scratch) / f"{count}.txt", Path(scratch) / f"evaluation-{count}"
            write_prompts(prompts, count)
            options = ["--prompts", str(prompts), "--generators", "renderer", "--images-per-prompt", "1"]
            summary, peak = evaluate(out, *common, *options)
            first = first or peak
            print(f"{count:7} {summary['about']['images']:8} {peak:10.0f}   x {peak / first:.2f}", flush=True)


if __name__ == "__main__":
    main()
