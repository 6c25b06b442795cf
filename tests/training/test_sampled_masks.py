"""RL scores actions under the masks that they were sampled under, also near the budget of a large vocabulary."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_parts import llama_config

import prip.decoding.decode as decoding
from prip.modeling import PripModel, PromptDecoder
from prip.processing import PripProcessor
from prip.refiner import Refiner
from prip.training.real_vocabulary import real_vocabulary
from prip.training.rl import ppo
from prip.training.rl.context import RolloutBatch
from prip.training.rl.trl_policy import Rollouts
from prip.training.rollouts.policy import Policy, Refinement

VOCABULARY = 6000
PROMPTS = ["a cat", "a dog on the beach", "two red apples in a bowl", "a cat"]
SEEDS = [(3, number) for number in range(4)]


@pytest.fixture(scope="module")
def policy(tiny_model, tiny_processor) -> Policy:
    """A policy that adds gibberish from a large vocabulary up to a small token budget."""
    tokenizer = real_vocabulary(VOCABULARY)
    config = llama_config(vocab_size=VOCABULARY, eos_token_id=tokenizer.eos_token_id)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = PromptDecoder.from_lm(config, tokenizer, pivot_length=4, pivot_width=16).eval()
    processor = PripProcessor(tiny_processor.encoder_tokenizer, tokenizer)
    return Policy(Refiner(PripModel(tiny_model.encoder, decoder), processor), max_new_tokens=30, token_budget=30)


class Sampled:
    """What was seen while sampling: for each row its masks and its log-probabilities of all tokens, step by step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.masks: dict[int, list[torch.Tensor]] = {}
        self.log_probabilities: dict[int, list[torch.Tensor]] = {}
        self.rows: list[object] = []
        original = decoding._chosen

        def chosen(logits, mask, rows, generators, options):
            scores = logits.masked_fill(~mask, float("-inf")).log_softmax(-1)
            for row, allowed, log_probabilities in zip(rows, mask, scores, strict=True):
                if id(row) not in self.masks:
                    self.rows.append(row)  # keeps its id from being given to another
                self.masks.setdefault(id(row), []).append(allowed.clone())
                self.log_probabilities.setdefault(id(row), []).append(log_probabilities)
            return original(logits, mask, rows, generators, options)

        monkeypatch.setattr(decoding, "_chosen", chosen)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> Sampled:
    return Sampled(monkeypatch)


def check(sampled: Sampled, policy: Policy, refinements: list[Refinement], allowed: torch.Tensor) -> None:
    """The masks are those of sampling, and a replay from the actions alone would have been narrower somewhere."""
    for row, masks in enumerate(sampled.masks.values()):
        assert allowed[row, : len(masks)].equal(torch.stack(masks))
    again = policy.collate([Refinement(one.user_prompt, one.refined_prompt, one.actions) for one in refinements])
    assert not (again.allowed & ~allowed).any() and (allowed & ~again.allowed).any()


def test_masks_are_those_of_sampling(policy: Policy, sampled: Sampled) -> None:
    refinements = policy.refine(PROMPTS, 1.0, SEEDS)
    batch = policy.collate(refinements)
    assert list(map(len, sampled.masks.values())) == [len(one.actions) for one in refinements]
    check(sampled, policy, refinements, batch.allowed)


def test_log_probabilities_are_those_of_sampling(policy: Policy, sampled: Sampled) -> None:
    refinements = policy.refine(PROMPTS, 1.0, SEEDS)
    batch, encoder = policy.collate(refinements), policy.refiner.model.encoder
    with torch.no_grad():
        logits, _ = policy.action_logits(encoder, batch)
    replayed = ppo.token_log_probabilities(logits, batch.allowed, batch.actions, batch.mask)
    for row, (one, steps) in enumerate(zip(refinements, sampled.log_probabilities.values(), strict=True)):
        old = [step[token].item() for step, token in zip(steps, one.actions, strict=True)]
        assert replayed[row, : len(old)].tolist() == pytest.approx(old, abs=1e-4)


def test_trl_scores_under_the_masks_of_sampling(policy: Policy, sampled: Sampled) -> None:
    tokenizer = policy.refiner.processor.decoder_tokenizer
    prompts = dict.fromkeys(PROMPTS)
    ids = {prompt: tokenizer.encode(prompt) for prompt in prompts}
    rollouts = Rollouts(policy, ids, stop=tokenizer.eos_token_id, pad=tokenizer.eos_token_id)
    rollouts.due = RolloutBatch(0, PROMPTS, [[0]] * len(PROMPTS), SEEDS)
    rollouts.generate([tuple(ids[prompt]) for prompt in PROMPTS])
    assert rollouts.current is not None
    check(sampled, policy, rollouts.current.refinements, rollouts.current.actions.allowed)


def test_refinements_in_chunks_keep_their_own_masks(policy: Policy) -> None:
    together = policy.collate(policy.refine(PROMPTS, 1.0, SEEDS))
    chunked = policy.collate(replace(policy, chunk=3).refine(PROMPTS, 1.0, SEEDS))
    assert chunked.allowed.equal(together.allowed)
