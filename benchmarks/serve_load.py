"""Load-test `prip serve` with many concurrent clients, with batching and without, in turns.

    python -m benchmarks.serve_load
    python -m benchmarks.serve_load --seconds 10 --rounds 2

Starts two servers of prip-mini, one with batches of 64, one with batches of 1. Each round loads one while the other is
idle: every client sends its next request as soon as the last one is answered, and every prompt is distinct. Prints
requests, errors, requests per second, latency, mean batch size, and each server's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prip.text_files import read_lines

BATCH = 64


@dataclass
class Load:
    """Figures of one server under load."""

    name: str
    process: subprocess.Popen
    port: int
    rates: list[float] = field(default_factory=list)
    """Requests per second in each round."""
    seconds: list[float] = field(default_factory=list)
    """Latency of each request."""
    errors: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    """MB at rest, then after each round."""

    def metrics(self) -> dict[str, float]:
        """Return the server's own metrics, by name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def note_memory(self) -> None:
        self.memory.append(self.metrics()["process_resident_memory_bytes"] / 1e6)


def start(name: str, max_batch: int, threads: int | None) -> Load:
    """Start a server on a free port, and wait until it prints its address."""
    command = [str(Path(sys.executable).with_name("prip")), "serve", "--port", "0", "--max-batch", str(max_batch)]
    command += [] if threads is None else ["--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{' '.join(command)} ended with {process.wait()}")
    return Load(name, process, int(line.split()[0].rstrip("/").rsplit(":", 1)[1]))


def distinct_prompts(file: Path | None) -> Iterator[str]:
    """Yield distinct user prompts without end: those of a file or of the miniature, then pairs of them."""
    if file is None:
        from prip.miniature.prompts import user_prompts

        lines = [prompt for split in ("train", "dev", "test") for prompt, _ in user_prompts(split, 4, 0, True)]
    else:
        lines = read_lines(file)
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    count = len(prompts)
    pairs = (f"{prompts[i]} and {prompts[(i + step) % count]}" for step in itertools.count(1) for i in range(count))
    return itertools.chain(prompts, pairs)


async def client(load: Load, prompts: Iterator[str], until: float) -> None:
    """Send one request after another on one connection, until a time of time.perf_counter."""
    reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
    while time.perf_counter() < until:
        body = json.dumps({"prompt": next(prompts)}).encode()
        head = "POST /v1/refine HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        began = time.perf_counter()
        try:
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            text = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, IndexError) as error:
            load.errors.append(repr(error))
            break
        load.seconds.append(time.perf_counter() - began)
        if not answer.startswith(b"HTTP/1.1 200 ") or b'"refined_prompts":["' not in text:
            load.errors.append(answer.split(b"\r\n")[0].decode() + " " + text.decode()[:200])
    writer.close()


async def round_of(load: Load, prompts: Iterator[str], clients: int, seconds: float) -> float:
    """Load a server for some seconds; return requests per second."""
    before, began = len(load.seconds), time.perf_counter()
    await asyncio.gather(*(client(load, prompts, began + seconds) for _ in range(clients)))
    return (len(load.seconds) - before) / (time.perf_counter() - began)


def line_of(load: Load) -> str:
    """Return the table row of a server."""
    hundredths = statistics.quantiles(load.seconds, n=100)
    metrics = load.metrics()
    size = metrics["prip_refine_batch_size_sum"] / metrics["prip_refine_batch_size_count"]
    return (
        f"{load.name:<18}{len(load.seconds):>9}{len(load.errors):>8}{statistics.mean(load.rates):>9.1f}"
        f"{1000 * hundredths[49]:>9.0f}{1000 * hundredths[98]:>9.0f}{size:>8.1f}"
        f"{load.memory[0]:>10.0f}{load.memory[len(load.memory) // 2]:>8.0f}{load.memory[-1]:>8.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Load-test prip serve.")
    parser.add_argument("--seconds", type=float, default=60, help="of load per server (default: 60)")
    parser.add_argument("--rounds", type=int, default=6, help="that the seconds are split into (default: 6)")
    parser.add_argument("--clients", type=int, default=64, help="concurrent clients (default: 64)")
    parser.add_argument("--threads", type=int, help="torch threads of the servers (default: theirs)")
    parser.add_argument("--file", type=Path, help="user prompts, one per line (default: those of the miniature)")
    arguments = parser.parse_args()
    prompts = distinct_prompts(arguments.file)
    loads = [start("batching", BATCH, arguments.threads), start("without", 1, arguments.threads)]
    try:
        for load in loads:
            asyncio.run(round_of(load, prompts, arguments.clients, 3))  # warm-up
            load.seconds.clear()
            load.note_memory()
        for _ in range(arguments.rounds):
            for load in loads:
                rate = asyncio.run(round_of(load, prompts, arguments.clients, arguments.seconds / arguments.rounds))
                load.rates.append(rate)
                load.note_memory()
        print("server             requests  errors    req/s   p50 ms   p99 ms   batch  MB start  middle     end")
        for load in loads:
            print(line_of(load))
        ratios = [batched / alone for batched, alone in zip(*(load.rates for load in loads), strict=True)]
        print(f"ratio {statistics.median(ratios):.2f} (median of rounds; {min(ratios):.2f} to {max(ratios):.2f})")
        for error in [error for load in loads for error in load.errors][:5]:
            print(error)
    finally:
        for load in loads:
            load.process.terminate()
            load.process.wait()


if __name__ == "__main__":
    main()
