"""Measure speed and memory of `prip-train prepare` by the number of images: time per image should be constant.

    python -m benchmarks.prepare_scale --workers 0 1

Draws 1,000, 4,000 and 16,000 images with the miniature's renderer, packs them as DiffusionDB does (zips of 1,000
images, and metadata.parquet), and runs the command on each set with the parts of prip-mini: without Ray (0 workers),
and with that many Ray actors. Rates exclude the start of Ray and the loading of parts, which is its own column; `whole`
includes it. Ratios are to the first number of workers on the same images. `cpu s` is the CPU time of all processes of
the command and of Ray. Peak memory is the largest sum of their proportional set sizes (PSS).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
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
COMMAND = "import sys; from prip.training.cli.command import main; sys.exit(main(sys.argv[1:]))"
IMAGES_PER_PROMPT = 4


@dataclass(frozen=True)
class Measured:
    """Figures of one run: scored, pivots and whole in images per second, the rest of all its processes."""

    scored: float
    pivots: float
    start_seconds: float
    whole: float
    cpu_seconds: float
    peak_mib: float


def draw(folder: Path, images: int) -> None:
    """Draw `images` images, IMAGES_PER_PROMPT per caption, and pack their parts into zips."""
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


class Usage:
    """CPU time and peak memory of a process and its descendants, by polling."""

    def __init__(self, root: psutil.Process) -> None:
        self._root, self._cpu_seconds = root, dict[int, float]()
        self.peak_mib = 0.0

    @property
    def cpu_seconds(self) -> float:
        """CPU time, including that of processes that have ended."""
        return sum(self._cpu_seconds.values())

    def look(self) -> None:
        """Record what they use now."""
        pss = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                pss += process.memory_full_info().pss
                times = process.cpu_times()
            except psutil.Error:
                continue
            self._cpu_seconds[process.pid] = times.user + times.system
        self.peak_mib = max(self.peak_mib, pss / 2**20)


def measure(images: Path, run: Path, workers: int, batch_size: int) -> Measured:
    """Run the command on `images` into `run`."""
    rewards = sorted(str(path) for path in (PARTS / "rewards").iterdir() if (path / "config.json").exists())
    arguments = ["prepare", "--run", str(run), "--diffusiondb", str(images), "--rewards", json.dumps(rewards)]
    arguments += ["--pivot_encoder", str(PARTS / "pivot_encoder"), "--device", "cpu", "--no_progress"]
    arguments += ["--batch_size", str(batch_size), "--ray.workers", str(workers), "--system.keep_share", "1.0"]
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    usage = Usage(psutil.Process(process.pid))
    while process.poll() is None:
        try:
            usage.look()
        except psutil.NoSuchProcess:
            break
        time.sleep(0.25)
    process.wait()
    elapsed = time.monotonic() - start
    if process.returncode:
        raise SystemExit(process.stderr.read() if process.stderr else "prepare failed")
    metrics = json.loads((run / "prepare" / "metrics.json").read_text())
    seconds, counts = metrics["seconds"], metrics["counts"]
    scored, pivots = counts["images"] / seconds["score"], counts["pivots"] / seconds["pivots"]
    return Measured(scored, pivots, seconds["start"], counts["images"] / elapsed, usage.cpu_seconds, usage.peak_mib)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure speed and memory of prepare by the number of images.")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 4000, 16000], help="numbers of images")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1], help="Ray actors; 0 is without Ray")
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    print(f"{psutil.cpu_count()} CPUs, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}")
    print(
        "images  workers  scored/s  ratio  pivots/s  ratio  start s  whole/s  cpu s  peak MiB  to the first size  load"
    )
    smallest: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for images in arguments.images:
            folder, first = Path(scratch) / f"images-{images}", None
            draw(folder, images)
            for workers in arguments.workers:
                load = psutil.getloadavg()[0]
                run = Path(scratch) / f"run-{images}-{workers}"
                figures = measure(folder, run, workers, arguments.batch_size)
                first = first or figures
                smallest.setdefault(workers, figures.peak_mib)
                print(
                    f"{images:6} {workers:8} {figures.scored:9.1f} {figures.scored / first.scored:6.2f}"
                    f" {figures.pivots:9.1f} {figures.pivots / first.pivots:6.2f} {figures.start_seconds:8.1f}"
                    f" {figures.whole:8.1f} {figures.cpu_seconds:6.1f} {figures.peak_mib:9.0f}"
                    f" {figures.peak_mib / smallest[workers]:18.2f} {load:5.1f}",
                    flush=True,
                )
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
