"""Fits the network of the preference prior, and measures it on prompts that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from prip.randomness import random_generator

from ..settings import PriorFitSettings

_RARE = 1e-3
_SKIPPED = 20


@dataclass(frozen=True)
class Observations:
    """Prompts as the fit reads them; every tensor has one row for each."""

    features: tuple[Tensor, ...]
    """Float32 `(n, width)` each: the whole heads, then other forms of them to train on."""
    added: Tensor
    """Float32 `(n, concepts)`, 1 where the writer added the concept."""
    open: Tensor
    """Float32 `(n, concepts)`, 0 where the head names the concept, so that its absence says nothing."""
    weights: Tensor
    """Float32 `(n,)`: one over the size of the prompt's series."""

    def rows(self, chosen: Tensor) -> Observations:
        """Return some of the rows."""
        parts = {name: getattr(self, name)[chosen] for name in ("added", "open", "weights")}
        return replace(self, features=tuple(form[chosen] for form in self.features), **parts)

    def loss(self, odds: Tensor) -> Tensor:
        """Return the negative log-likelihood of the additions per prompt, in nats, each series weighted as one."""
        nats = binary_cross_entropy_with_logits(odds, self.added, reduction="none") * self.open
        return (nats.sum(1) * self.weights).sum() / self.weights.sum()


def base_rates(data: Observations) -> Tensor:
    """Return the weighted share of the prompts that add each concept, among those not naming it, `(concepts,)`."""
    seen = data.open * data.weights[:, None]
    return ((data.added * seen).sum(0) + _RARE) / (seen.sum(0) + 1)


class PriorNetwork(nn.Module):
    """Log-odds of the additions relative to the base rates: one hidden layer on a prompt's vector; 0 at first."""

    def __init__(self, width: int, hidden: int, concepts: int, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, concepts, bias=False)
        with torch.no_grad():
            generator = random_generator("prior", "network", seed)
            self.hidden.weight.copy_(torch.randn(hidden, width, generator=generator) / width**0.5)
            self.hidden.bias.zero_()
            self.output.weight.zero_()

    def forward(self, features: Tensor) -> Tensor:
        return self.output(self.dropout(torch.relu(self.hidden(self.dropout(features)))))


def fit(train: Observations, dev: Observations, base: Tensor, settings: PriorFitSettings, seed: int) -> PriorNetwork:
    """Return the mean of several networks, each at its best epoch on `dev`, as one network.

    Args:
        train: What is fitted.
        dev: What chooses the epochs.
        base: Probabilities `(concepts,)`; the networks learn the rest.
        settings: Size, regularization and optimizer.
        seed: Of the initial weights, the order and the dropout.
    """
    seeds = [settings.members * seed + index for index in range(settings.members)]
    members = [_fit_member(train, dev, base, settings, member) for member in seeds]
    joint = PriorNetwork(train.features[0].shape[1], settings.members * settings.hidden, len(base))
    with torch.no_grad():
        joint.hidden.weight.copy_(torch.cat([member.hidden.weight for member in members]))
        joint.hidden.bias.copy_(torch.cat([member.hidden.bias for member in members]))
        joint.output.weight.copy_(torch.cat([member.output.weight for member in members], dim=1) / settings.members)
    return joint.eval()


def _fit_member(
    train: Observations, dev: Observations, base: Tensor, settings: PriorFitSettings, seed: int
) -> PriorNetwork:
    odds, generator = torch.logit(base), random_generator("prior", "order", seed)
    model = PriorNetwork(train.features[0].shape[1], settings.hidden, len(base), settings.dropout, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    rows, batches = len(train.weights), max(len(train.weights) // settings.batch_size, 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=settings.epochs * batches)
    best, best_state = float("inf"), model.state_dict()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(settings.epochs):
            model.train()
            order = torch.randperm(rows, generator=generator)
            for chosen in order.tensor_split(batches):
                batch = train.rows(chosen)
                form = int(torch.randint(len(batch.features), (1,), generator=generator))
                optimizer.zero_grad()
                batch.loss(odds + model(batch.features[form])).backward()
                optimizer.step()
                schedule.step()
            loss = float(dev.loss(predict(model, dev, base)))
            if loss < best:
                best, best_state = loss, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_state)
    return model.eval()


@torch.inference_mode()
def predict(model: PriorNetwork, data: Observations, base: Tensor) -> Tensor:
    """Return the log-odds `(n, concepts)` of the additions."""
    model.eval()
    return torch.logit(base) + model(data.features[0])


def specific_recall(odds: Tensor, data: Observations, base: Tensor, count: int = 5) -> float | None:
    """Return the mean share of a prompt's specific additions among the `count` likeliest concepts.

    The twenty commonest concepts are left out, and prompts without another addition; each series counts as one. None
    if no prompt is left.
    """
    common = base.topk(_SKIPPED).indices
    scores = odds.masked_fill(data.open == 0, -np.inf).index_fill(1, common, -np.inf)
    wanted = data.added.index_fill(1, common, 0)
    found = wanted.gather(1, scores.topk(count).indices).sum(1)
    any_wanted = wanted.sum(1) > 0
    if not any_wanted.any():
        return None
    shares = found[any_wanted] / wanted.sum(1)[any_wanted]
    weights = data.weights[any_wanted]
    return float((shares * weights).sum() / weights.sum())
