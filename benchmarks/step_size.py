"""Measure how far an iteration of RL moves the policy when rewards are pure noise, with the optimizer of each preset.

    python -m benchmarks.step_size

There is nothing to learn from noise, so all movement is the optimizer's. Two policies: prip-mini's warmed-up encoder
with its decoder, and one of width 1,024 with random weights. Each preset's optimizer takes as many steps as in an
iteration of its own, at its peak learning rate (no warm-up), on fewer rollouts. Measured on the iteration's own
rollouts, after it: the KL divergence of the new policy from the old one over the whole vocabulary, the share of actions
whose ratio is outside the clipping range, and the mean relative change of the encoder's matrices. The row "unscaled" is
the preset paper at the paper's rate, 1e-3, without scale_parameter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.common import make_parser, table_head, table_row
from prip import PreferenceEncoder, PripModel, PromptDecoder, Refiner
from prip.loading.folders import whole_folder
from prip.miniature.vocabulary import PLACES, SUBJECTS
from prip.training.cli.command import parse_settings
from prip.training.from_scratch import llama_config, t5_config
from prip.training.rl import ppo
from prip.training.rl import stage as rl
from prip.training.rl.parts import RlParts
from prip.training.rollouts.policy import ActionBatch, Policy, Refinement
from prip.training.rollouts.scores import read_rollouts
from prip.training.settings import ChunkSettings, LlamaSizes, RlSettings, T5Sizes

PRESETS = ("paper", "unscaled", "tinyllama", "modern", "paper-dry")
PROMPTS = [f"a {subject.name} {place.user_phrases[0]}" for subject in SUBJECTS for place in PLACES]
HEAD = table_head(["preset", "steps", "KL, nats a token", "clip fraction", "change of matrices"])


class Blank:
    """A `Generator` of gray pixels."""

    name, token_limit = "blank", 75

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return torch.full((len(prompts), 3, 1, 1), 128, dtype=torch.uint8)


class Noise:
    """A `Reward` that reads nothing: numbers of a standard normal distribution."""

    name = "noise"

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        return torch.randn(len(images), generator=self._generator)


@dataclass(frozen=True)
class Movement:
    """How far an iteration moved the policy."""

    steps: int
    kl: float
    """Nats a token"""
    clipped: float
    """Share of the actions"""
    change: float
    """Mean of |difference| / |matrix| over the encoder's matrices"""


def mini() -> Refiner:
    """Return prip-mini with its warmed-up encoder."""
    folder = whole_folder("prip-mini")
    refiner = Refiner.from_pretrained("prip-mini", device="cpu")
    encoder = PreferenceEncoder.from_pretrained(folder / "warmup" / "encoder")
    return Refiner(PripModel(encoder, refiner.model.decoder), refiner.processor)


def wide(width: int = 1024, layers: int = 2) -> Refiner:
    """Return a refiner with random weights, whose decoder heeds the pivot as much as prip-mini's: another prompt's
    pivot moves its policy as far."""
    torch.manual_seed(0)
    model = mini()
    processor = model.processor
    assert processor.encoder_tokenizer is not None
    heads, hidden = width // 64, 11 * width // 4
    t5 = t5_config(processor.encoder_tokenizer, T5Sizes(d_model=width, d_ff=hidden, layers=layers, heads=heads))
    sizes = LlamaSizes(hidden_size=width, intermediate_size=hidden, layers=layers, heads=heads)
    llama = llama_config(processor.decoder_tokenizer, sizes)
    decoder = PromptDecoder.from_lm(llama, processor.decoder_tokenizer, 32, 768)
    refiner = Refiner(PripModel(PreferenceEncoder.from_t5(t5, 32, 768), decoder), processor)
    head = decoder.lm.get_output_embeddings().weight
    expected = heeds_pivot(model)
    with torch.no_grad():
        decoder.lm.get_input_embeddings().weight.normal_()  # so that text weighs as much as what layers add
        for _ in range(4):  # the divergence is about quadratic in the scale of the logits
            head *= (expected / heeds_pivot(refiner)) ** 0.5
    return refiner


def heeds_pivot(refiner: Refiner, prompts: int = 32) -> float:
    """Return the KL divergence in nats a token between the policy and the one that gets another prompt's pivot."""
    policy = Policy(refiner, max_new_tokens=12, token_budget=75)
    refinements = policy.refine(PROMPTS[::7][:prompts], 1.0, [(0, number) for number in range(prompts)])
    batch = policy.collate(refinements)
    moved = replace(batch, encoder_ids=batch.encoder_ids.roll(1, 0), encoder_mask=batch.encoder_mask.roll(1, 0))
    encoder = refiner.model.encoder
    assert encoder is not None
    return divergence(policy, [(encoder, batch), (encoder, moved)], clip=1.0)[0]


POLICIES: dict[str, Callable[[], Refiner]] = {"prip-mini, warmed up": mini, "width 1,024, random": wide}


def settings_of(preset: str, run: Path, rollouts: int, max_new_tokens: int, seed: int) -> RlSettings:
    """Return the settings of one iteration of `rollouts` rollouts in as many optimizer steps as the preset takes."""
    name = "paper" if preset == "unscaled" else preset
    chosen = parse_settings("rl", ["--config", name, "--run", str(run)])
    samples = chosen.rollouts.samples_per_prompt
    whole = chosen.devices * chosen.loop.batch_size * samples
    count = max(samples, rollouts // samples * samples)
    optimizer = replace(chosen.optimizer, warmup_steps=0)
    if preset == "unscaled":
        optimizer = replace(optimizer, lr=1e-3, scale_parameter=False)
    return replace(
        chosen,
        seed=seed,
        device="cpu",
        devices=1,
        progress=False,
        offload=(),
        optimizer=optimizer,
        ppo=replace(chosen.ppo, minibatch=max(1, -(-count * chosen.ppo.minibatch // whole))),
        loop=replace(chosen.loop, steps=1, batch_size=count // samples, precision="32-true"),
        rollouts=replace(
            chosen.rollouts,
            counted_by="clip",
            max_new_tokens=max_new_tokens,
            statistics_images=64,
            dev_prompts=4,
            preview_every=0,
            chunk=ChunkSettings(refine=64, images=256, score=32, update=32),
        ),
    )


@torch.no_grad()
def divergence(
    policy: Policy, both: Sequence[tuple[PreferenceEncoder, ActionBatch]], clip: float
) -> tuple[float, float]:
    """Return the KL divergence in nats a token of the second encoder's policy from the first's on a batch, and the
    share of actions whose ratio is clipped."""
    (_, batch), _ = both
    total, clipped, count = 0.0, 0.0, int(batch.mask.sum())
    for rows in torch.arange(len(batch)).split(16):
        chunk = batch.rows(rows)
        before, after = (
            ppo.allowed_log_softmax(policy.action_logits(encoder, each.rows(rows))[0], chunk.allowed)
            for encoder, each in both
        )
        difference = torch.where(before.isfinite(), before - after, 0)
        total += (before.exp() * difference).sum(dim=-1)[chunk.mask].sum().item()
        chosen = chunk.actions.unsqueeze(-1)
        ratios = (after.gather(-1, chosen) - before.gather(-1, chosen)).squeeze(-1).exp()
        clipped += ((ratios - 1).abs() > clip)[chunk.mask].sum().item()
    return total / count, clipped / count


def relative_change(old: PreferenceEncoder, new: PreferenceEncoder) -> float:
    """Return the mean of |difference| / |matrix| over the matrices."""
    pairs = zip(old.parameters(), new.parameters(), strict=True)
    changes = [((b - a).norm() / a.norm()).item() for a, b in pairs if a.dim() >= 2]
    return sum(changes) / len(changes)


def measure(preset: str, refiner: Refiner, rollouts: int = 128, max_new_tokens: int = 24, seed: int = 0) -> Movement:
    """Take one iteration on noise with the preset's optimizer, and return how far it moved a copy of the policy."""
    encoder = refiner.model.encoder
    assert encoder is not None
    learner = copy.deepcopy(encoder)
    parts = RlParts(
        model=PripModel(learner, refiner.model.decoder),
        processor=refiner.processor,
        generator=Blank(),
        rewards=[Noise(seed)],
        train_prompts=PROMPTS[8:],
        dev_prompts=PROMPTS[:8],
    )
    with TemporaryDirectory() as folder:
        settings = settings_of(preset, Path(folder), rollouts, max_new_tokens, seed)
        rl.run(settings, parts)
        table = read_rollouts(Path(folder) / "rl" / "rollouts")
    refinements = [
        Refinement(row.user_prompt, row.refined_prompt, [int(token) for token in row.actions])
        for row in table.itertuples()
    ]
    policy = Policy(Refiner(parts.model, parts.processor), max_new_tokens, settings.rollouts.token_budget)
    batch = policy.collate(refinements)
    kl, clipped = divergence(policy, [(encoder, batch), (learner, batch)], settings.ppo.ratio_clip)
    steps = settings.ppo.epochs * -(-len(refinements) // settings.ppo.minibatch)
    return Movement(steps, kl, clipped, relative_change(encoder, learner))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS, help="default: all")
    parser.add_argument("--rollouts", type=int, default=128, help="rollouts of the iteration (default: 128)")
    parser.add_argument("--max-new-tokens", type=int, default=24, help="of a rollout (default: 24)")
    parser.add_argument("--seed", type=int, default=0, help="of the rollouts and the noise (default: 0)")
    arguments = parser.parse_args()
    for title, make in POLICIES.items():
        refiner = make()
        print(f"\n{title}\n\n{HEAD}")
        for preset in arguments.presets:
            found = measure(preset, refiner, arguments.rollouts, arguments.max_new_tokens, arguments.seed)
            cells = [preset, found.steps, f"{found.kl:.4f}", f"{found.clipped:.3f}", f"{found.change:.4f}"]
            print(table_row(cells), flush=True)


if __name__ == "__main__":
    main()
