"""Measure a refiner at lower precision: memory of its weights, speed, and share of unchanged texts.

    python -m benchmarks.precision

Two refiners: prip-mini, and one with random weights the size of Flan-T5-base and a Llama of 124M parameters, whose
texts mean nothing but whose speed is realistic. `prip evaluate --config precision` measures the images.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.common import make_parser, table_head, table_row
from prip import PreferenceEncoder, PripModel, PromptDecoder, Refiner
from prip.errors import CheckpointError
from prip.miniature.vocabulary import PLACES, SUBJECTS
from prip.modeling.quantization import weight_bytes
from prip.training.from_scratch import llama_config, t5_config
from prip.training.settings import LlamaSizes, T5Sizes

PRECISIONS = (("float32", None), ("float16", None), ("bfloat16", None), ("float32", "int8"), ("bfloat16", "int8"))
HEAD = table_head(["precision", "weights, MiB", "speed alone", "speed in batches of 32", "texts as in float32"])
PROMPTS = [f"a {subject.name} {place.user_phrases[0]}" for subject in SUBJECTS for place in PLACES]


def base_sized(folder: Path) -> Path:
    """Write a refiner with random weights and prip-mini's tokenizers; return its folder."""
    torch.manual_seed(0)
    processor = Refiner.from_pretrained("prip-mini").processor
    assert processor.encoder_tokenizer is not None
    t5 = t5_config(processor.encoder_tokenizer, T5Sizes(d_model=768, d_ff=2048, layers=12, heads=12))
    sizes = LlamaSizes(hidden_size=768, intermediate_size=3072, layers=12, heads=12)
    llama = llama_config(processor.decoder_tokenizer, sizes)
    encoder = PreferenceEncoder.from_t5(t5, 32, 768)
    decoder = PromptDecoder.from_lm(llama, processor.decoder_tokenizer, 32, 768)
    Refiner(PripModel(encoder, decoder), processor).save_pretrained(folder)
    return folder


def timed(refiner: Refiner, prompts: Sequence[str], batch: int, max_new_tokens: int) -> tuple[float, list[str]]:
    """Refine the prompts in batches; return the seconds per prompt, and the texts."""
    began = time.perf_counter()
    texts = refiner.refine(prompts, batch_size=batch, max_new_tokens=max_new_tokens) if batch > 1 else []
    if batch == 1:
        texts = [refiner.refine(prompt, max_new_tokens=max_new_tokens) for prompt in prompts]
    return (time.perf_counter() - began) / len(prompts), texts


def measure(place: str, prompts: int, rounds: int, max_new_tokens: int, device: str | None) -> Iterator[str]:
    """Yield the table row of each precision; the precisions run in turns, so that other load affects all alike."""
    refiners, failed = {}, []
    for dtype, quantization in PRECISIONS:
        name = dtype if quantization is None else f"{dtype}, {quantization}"
        try:
            refiners[name] = Refiner.from_pretrained(place, dtype=dtype, quantization=quantization, device=device)
            refiners[name].refine(PROMPTS[:4])
        except (CheckpointError, RuntimeError) as error:
            failed.append(table_row([name, f"cannot run here: {' '.join(str(error).split())[:80]}", "", "", ""]))
    seconds: dict[tuple[str, int], list[float]] = {}
    texts: dict[str, list[str]] = {}
    for _ in range(rounds):
        for name, refiner in refiners.items():
            for batch, count in ((1, max(4, prompts // 8)), (32, prompts)):
                per_prompt, texts[name] = timed(refiner, PROMPTS[:count], batch, max_new_tokens)
                seconds.setdefault((name, batch), []).append(per_prompt)
    first = next(iter(refiners))
    for name, refiner in refiners.items():
        same = sum(map(str.__eq__, texts[name], texts[first])) / len(texts[name])
        one, many = (
            statistics.median(seconds[first, batch]) / statistics.median(seconds[name, batch]) for batch in (1, 32)
        )
        mebibytes = weight_bytes(refiner.model) / 2**20
        yield table_row([name, f"{mebibytes:,.1f}", f"{one:.2f}", f"{many:.2f}", f"{100 * same:.0f} %"])
    yield from failed


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="timings of each; the median counts (default: 3)")
    parser.add_argument("--prompts", type=int, default=64, help="user prompts (default: 64, at most 320)")
    parser.add_argument(
        "--sizes", nargs="+", choices=["mini", "base"], default=["mini", "base"], help="of the refiner (default: both)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as folder:
        for size in arguments.sizes:
            title, place, tokens = "prip-mini", "prip-mini", 60
            if size == "base":
                title, place, tokens = "base size, random weights", str(base_sized(Path(folder) / "base")), 24
            print(f"\n{title}\n\n{HEAD}")
            for row in measure(place, arguments.prompts, arguments.rounds, tokens, arguments.device):
                print(row, flush=True)


if __name__ == "__main__":
    main()
