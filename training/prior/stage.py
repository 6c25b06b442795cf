"""`prip-train prior`: word vectors from a sentence encoder, and the preference prior on them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from prip.errors import InputError
from prip.files import hash_of, replace_folder
from prip.prior.concepts import concept_columns
from prip.prior.preference_prior import PreferencePrior, normalized
from prip.prior.word_vectors import WordVectors
from prip.text.words import words_of

from ..runs.run_folder import finished_metrics, stage_folder, write_metrics
from ..settings import PriorSettings
from .corpus import Corpus, read_corpus
from .distillation import SentenceEncoder, choose_words, distil
from .fit import Observations, PriorNetwork, base_rates, fit, predict, specific_recall

STAGE = "prior"
STRICT_SIMILARITY = 0.7
_SHORT = 5
_log = logging.getLogger(__name__)


def run(settings: PriorSettings) -> dict[str, Any]:
    """Write RUN/prior/part, a PreferencePrior, and return the metrics on the test series.

    "strict" are the test prompts that resemble no training prompt: their sentence vectors have a cosine below
    STRICT_SIMILARITY with those of all.
    """
    files = (*settings.prompts, *settings.words)
    for path in files:
        if not path.is_file():
            raise InputError(f"prompts, words: expected files, got {path}")
    folder = stage_folder(settings, STAGE, {str(path): hash_of(path) for path in files})
    if (finished := finished_metrics(folder)) is not None:
        return finished
    corpus = read_corpus(settings.prompts, settings.seed)
    encoder = SentenceEncoder(settings.sentence_encoder)
    heads = [prompt.head for prompt in corpus.prompts]
    counts = choose_words(heads, settings.words, encoder)
    vectors = distil(
        counts,
        len(heads),
        encoder,
        width=settings.width,
        buckets=settings.ngram_buckets,
        progress=settings.progress,
    )
    data = observations(corpus, vectors)
    has_additions = corpus.added.any(axis=1)
    test_from = 1 - settings.test_share
    dev_from = test_from - settings.dev_share
    train = torch.from_numpy(corpus.between(0, dev_from) & has_additions)
    dev = torch.from_numpy(corpus.between(dev_from, test_from) & has_additions)
    test = torch.from_numpy(corpus.between(test_from, 1) & has_additions)
    for name, rows in (("train", train), ("dev", dev)):
        if not rows.any():
            raise InputError(f"prompts: expected prompts with additions in the {name} split, got none")
    base = base_rates(data.rows(train))
    model = fit(data.rows(train), data.rows(dev), base, settings.fit, settings.seed)
    prior = PreferencePrior(
        vectors,
        {
            "hidden.weight": model.hidden.weight.detach().numpy(),
            "hidden.bias": model.hidden.bias.detach().numpy(),
            "output.weight": model.output.weight.detach().numpy(),
            "base": base.numpy(),
            "support": support_of(corpus, train.numpy()),
            "position": positions_of(corpus),
        },
    )
    replace_folder(folder / "part", prior.save)
    embedded = encoder(heads, progress=settings.progress)
    nearest = torch.cat([(rows @ embedded[train].T).amax(1) for rows in embedded[test].split(512)])
    strict = test.clone()
    strict[test.nonzero()[:, 0][nearest >= STRICT_SIMILARITY]] = False
    metrics = {
        "stage": STAGE,
        "prompts": len(heads),
        "series": len(set(corpus.series)),
        "words": len(counts),
        "test": figures(model, data.rows(test), base),
        "strict": figures(model, data.rows(strict), base),
    }
    write_metrics(folder, metrics)
    _log.info("prior: %s", metrics)
    return metrics


def figures(model: PriorNetwork, data: Observations, base: torch.Tensor) -> dict[str, float | None]:
    """Return how much better than base rates the network predicts additions: nats per prompt, and specific R@5."""
    if not len(data.weights):
        return {"prompts": 0}
    fitted, unconditional = predict(model, data, base), torch.logit(base).expand(len(data.weights), -1)
    return {
        "prompts": len(data.weights),
        "gain_nats": float(data.loss(unconditional) - data.loss(fitted)),
        "specific_recall_at_5": specific_recall(fitted, data, base),
        "unconditional_recall_at_5": specific_recall(unconditional, data, base),
    }


def observations(corpus: Corpus, vectors: WordVectors) -> Observations:
    """Return a corpus as the fit reads it: whole heads, and their first words, which resemble short user prompts."""
    heads = [prompt.head for prompt in corpus.prompts]
    short = [" ".join(words_of(head.split(",")[0])[:_SHORT]) for head in heads]
    return Observations(
        features=tuple(torch.from_numpy(normalized(vectors(texts))) for texts in (heads, short)),
        added=torch.from_numpy(corpus.added).float(),
        open=1 - torch.from_numpy(corpus.named).float(),
        weights=torch.from_numpy(corpus.weights),
    )


def support_of(corpus: Corpus, chosen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the number of series, among the chosen prompts, that add each concept; float32 `(concepts,)`."""
    adding = (np.flatnonzero(chosen & column) for column in corpus.added.T)
    return np.array([len({corpus.series[row] for row in rows}) for rows in adding], np.float32)


def positions_of(corpus: Corpus) -> np.ndarray[Any, Any]:
    """Return the mean position of each concept among the additions, from 0 (first) to 1; float32 `(concepts,)`."""
    columns = concept_columns()
    totals, counts = np.full(len(columns), 0.5, np.float32), np.ones(len(columns), np.float32)
    for prompt in corpus.prompts:
        for index, concept in enumerate(prompt.added):
            totals[columns[concept]] += index / max(len(prompt.added) - 1, 1)
            counts[columns[concept]] += 1
    return totals / counts
