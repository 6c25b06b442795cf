"""Speed and memory of `prip-train prepare` as the images grow in number: both should stay what they are per image.

    python benchmarks/prepare_scale.py --workers 1

Draws 1,000, 4,000 and 16,000 images with the miniature's renderer, packs them as DiffusionDB is distributed (zips of
1,000 images and metadata.parquet), and runs the command on each set with the parts of prip-mini. --workers 0 does
without Ray. The rates hold the start of Ray and the loading of the parts; the marginal ones are those of the images
beyond the row before, without that. Peak memory is the largest sum, over all processes of the command, of what each
alone holds and of its share in what they have in common (PSS).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from prip.checkpoints import __file__ as checkpoints_file
from prip.generators import load_generator
from prip.miniature.prompts import caption
from prip.randomness import random_generator
from prip.training.data.diffusiondb import Sampling
from prip.training.data.drawing import draw_all, plan_drawings

PARTS = Path(checkpoints_file).parent / "prip-mini"
COMMAND = "import sys; from prip.training.cli import main; sys.exit(main(sys.argv[1:]))"
IMAGES_PER_PROMPT = 4


@dataclass(frozen=True)
class Measured:
    """What one run took. pivots: images that it made pivots of; peak_mib: of all its processes together."""

    images: int
    pivots: int
    score_seconds: float
    pivot_seconds: float
    peak_mib: float


def draw(folder: Path, images: int) -> None:
    """Draws `images` images, IMAGES_PER_PROMPT of each caption, and packs their parts into zips."""
    captions: dict[str, None] = {}
    for number in range(10 * images):
        captions[caption(random_generator("prepare_scale", number))] = None
        if len(captions) == images // IMAGES_PER_PROMPT:
            break
    prompts = pd.DataFrame({"prompt": list(captions), "split": "train"})
    plan = plan_drawings(prompts, "user", IMAGES_PER_PROMPT, seed=0)
    draw_all(plan, load_generator("renderer"), Sampling(0, 0.0), folder, 250, progress=False)
    for part in sorted(path for path in (folder / "images").iterdir() if path.is_dir()):
        with zipfile.ZipFile(part.with_suffix(".zip"), "w") as archive:
            for file in sorted(part.iterdir()):
                archive.write(file, file.name)
                file.unlink()
        part.rmdir()


def memory_mib(root: psutil.Process) -> float:
    """Returns the memory of a process and all that it started, as long as they are its children."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def measure(images: Path, run: Path, workers: int, batch_size: int) -> Measured:
    """Runs the command on `images` into `run`."""
    rewards = sorted(str(path) for path in (PARTS / "rewards").iterdir() if (path / "config.json").exists())
    arguments = ["prepare", "--run", str(run), "--diffusiondb", str(images), "--rewards", json.dumps(rewards)]
    arguments += ["--pivot_encoder", str(PARTS / "pivot_encoder"), "--device", "cpu", "--no_progress"]
    arguments += ["--batch_size", str(batch_size), "--ray.workers", str(workers), "--system.keep_share", "1.0"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    root, peak = psutil.Process(process.pid), 0.0
    while process.poll() is None:
        peak = max(peak, memory_mib(root))
        time.sleep(0.25)
    if process.returncode:
        raise SystemExit(process.stderr.read() if process.stderr else "prepare failed")
    metrics = json.loads((run / "prepare" / "metrics.json").read_text())
    seconds, counts = metrics["seconds"], metrics["counts"]
    return Measured(counts["images"], counts["pivots"], seconds["score"], seconds["pivots"], peak)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of prepare as the images grow in number.")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 4000, 16000], help="sizes of the sets")
    parser.add_argument("--workers", type=int, default=1, help="Ray actors; 0 does without Ray (default: 1)")
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    load = psutil.getloadavg()[0]
    print(f"{psutil.cpu_count()} CPUs, load {load:.1f} before the start, {arguments.workers} Ray workers")
    print("images   scored/s  marginal   pivots/s  marginal   peak MiB   peak against the first")
    before, first = Measured(0, 0, 0.0, 0.0, 0.0), None
    with tempfile.TemporaryDirectory() as scratch:
        for images in arguments.images:
            folder, run = Path(scratch) / f"images-{images}", Path(scratch) / f"run-{images}"
            draw(folder, images)
            found = measure(folder, run, arguments.workers, arguments.batch_size)
            first = first or found
            more_scored = (found.images - before.images) / (found.score_seconds - before.score_seconds)
            more_pivots = (found.pivots - before.pivots) / (found.pivot_seconds - before.pivot_seconds)
            print(
                f"{found.images:6} {found.images / found.score_seconds:10.1f} {more_scored:9.1f}"
                f" {found.pivots / found.pivot_seconds:10.1f} {more_pivots:9.1f} {found.peak_mib:10.0f}"
                f"   x {found.peak_mib / first.peak_mib:.2f}",
                flush=True,
            )
            before = found


if __name__ == "__main__":
    main()
