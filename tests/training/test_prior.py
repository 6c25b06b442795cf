"""`prip-train prior`: the corpus, the word vectors and the fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prip.errors import InputError
from prip.prior.concepts import concept_names
from prip.prior.preference_prior import PreferencePrior
from prip.prior.word_vectors import ngram_buckets
from prip.training.cli.command import main
from prip.training.prior.corpus import read_corpus
from prip.training.prior.distillation import choose_words, fit_ngrams, read_words
from prip.training.prior.fit import Observations, base_rates, fit, predict, specific_recall
from prip.training.settings import PriorFitSettings

COLORS = ("red", "blue", "green", "grey", "black", "white", "tiny", "huge", "young", "happy", "quiet", "round")
PLACES = ("garden", "street", "harbor", "valley", "kitchen", "meadow", "desert", "castle")


def corpus_lines() -> list[str]:
    """Cats are written with bokeh, robots with neon lights; each prompt is a series of its own."""
    return [
        f"{color} {subject} of some {place}, {concept}, 8k"
        for subject, concept in (("cat", "bokeh"), ("robot", "neon glow"))
        for color in COLORS
        for place in PLACES
    ]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join([*corpus_lines(), corpus_lines()[0].upper(), ""]), encoding="utf-8")
    return path


def test_the_corpus_drops_repeats_and_weighs_series(prompts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("an old owl on a tree, 8k\nan old owl on a roof, sketch\n", encoding="utf-8")
    corpus = read_corpus([prompts, other], seed=0)
    assert len(corpus.prompts) == 2 * len(COLORS) * len(PLACES) + 2
    assert corpus.weights[-2:].tolist() == [0.5, 0.5]
    added = corpus.added[0]
    assert {concept_names()[index] for index in np.flatnonzero(added)} == {"bokeh", "8k"}
    assert (corpus.between(0, 0.5) ^ corpus.between(0.5, 1)).all()
    other.write_bytes(b"\xef\xbb\xbfan old owl on a tree, 8k\ran old owl on a roof, sketch\r")
    assert read_corpus([prompts, other], seed=0).prompts == corpus.prompts
    other.write_bytes(b"an owl\r\n\xff")
    with pytest.raises(InputError, match=r"prompts: .*other\.txt, line 2: expected UTF-8, got byte 0xff"):
        read_corpus([other], seed=0)


def observations(rows: int = 400) -> Observations:
    """Concept 30 is added where the first feature is positive, concept 31 by every second writer."""
    features = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    added = torch.zeros(rows, len(concept_names()))
    added[:, 30] = (features[:, 0] > 0).float()
    added[:, 31] = torch.arange(rows) % 2
    return Observations((features, features), added, torch.ones_like(added), torch.ones(rows))


def test_base_rates_are_weighted_counts_of_prompts_that_do_not_name_the_concept() -> None:
    data = observations()
    assert base_rates(data)[31] == pytest.approx((200 + 1e-3) / 401)
    heavy = torch.where(data.added[:, 31] > 0, 0.5, 1.0)  # the writers that add it are half as many series
    assert base_rates(replace(data, weights=heavy))[31] == pytest.approx((100 + 1e-3) / 301)
    assert base_rates(replace(data, open=1 - data.added))[31] < 1e-3


def test_the_fit_finds_what_depends_on_the_prompt() -> None:
    data = observations()
    base = base_rates(data)
    model = fit(
        data, data, base, PriorFitSettings(hidden=16, dropout=0.0, weight_decay=0.0, epochs=40, batch_size=50), 0
    )
    odds = predict(model, data, base)
    likely = odds[:, 30] > 0
    assert (likely == (data.features[0][:, 0] > 0)).float().mean() > 0.95
    assert data.loss(odds) < data.loss(torch.logit(base).expand(400, -1)) - 0.3


def test_specific_recall_leaves_the_commonest_out() -> None:
    data = observations(4)
    base = torch.full((len(concept_names()),), 0.01)
    base[:20] = 0.5
    odds = torch.zeros(4, len(concept_names()))
    odds[:, 30] = 1
    data.added[:] = 0
    data.added[0, [3, 30]] = 1  # the commonest does not count: 1 of 1
    data.added[1, [30, 170]] = 1  # 1 of 2
    data.added[2, 3] = 1  # nothing to find: left out
    assert specific_recall(odds, data, base, count=1) == pytest.approx(0.75)


def test_ngrams_learn_the_vectors_of_words() -> None:
    words = ["cat", "cats", "robot", "robots"]
    vectors = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    fitted = fit_ngrams(words, vectors, 512, penalty=1e-3)
    assert fitted.shape == (512, 2) and fitted.abs().max() <= 1
    means = torch.stack([fitted[list(ngram_buckets(word, 512))].mean(0) for word in words])
    assert means.argmax(1).tolist() == [0, 0, 1, 1] and means.amax(1).min() > 10 * means.amin(1).abs().max()


def test_word_lists_are_read_by_their_first_field(tmp_path: Path) -> None:
    path = tmp_path / "index.noun"
    path.write_text("  1 This is a licence\ncat n 8 5\nhot_dog n 1\nzebra n 1\n# no word\n", encoding="utf-8")
    assert read_words(path) == ["cat", "zebra"]
    path.write_bytes(b"\xef\xbb\xbfcat n 8 5\rhot_dog n 1\r\nzebra\xe2\x80\xa8owl")
    assert read_words(path) == ["cat", "zebra"]
    with pytest.raises(InputError, match=r"words: .*nowhere cannot be read: No such file"):
        read_words(tmp_path / "nowhere")


class Encoder:
    """Writes words of up to four letters in one piece."""

    def is_common(self, word: str) -> bool:
        return len(word) <= 4


def test_the_vocabulary_has_repeated_words_and_common_ones_of_lists(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("kite\nplatypus\ncat\n", encoding="utf-8")
    counts = choose_words(["a cat", "a Cat", "one owl"], [path], Encoder())  # type: ignore[arg-type]
    assert counts == {"a": 2, "cat": 2, "kite": 0}


@pytest.fixture
def sentence_encoder(tmp_path: Path) -> Path:
    """A small BERT with random weights and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word for line in corpus_lines() for word in line.replace(",", "").split()})
    vocabulary = {token: index for index, token in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    folder = tmp_path / "sentence-encoder"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)
    return folder


def test_the_command_fits_a_prior_that_refines(prompts: Path, sentence_encoder: Path, tmp_path: Path) -> None:
    command = ["prior", "--run", str(tmp_path / "run"), "--prompts", f"[{prompts}]", "--width", "16"]
    command += ["--sentence_encoder", str(sentence_encoder), "--ngram_buckets", "64", "--no_progress"]
    command += ["--fit.dropout", "0", "--fit.weight_decay", "0.01", "--fit.epochs", "60", "--fit.batch_size", "32"]
    command += ["--fit.lr", "0.03"]
    assert main(command) == 0
    metrics = json.loads((tmp_path / "run" / "prior" / "metrics.json").read_text())
    assert metrics["prompts"] == metrics["series"] == 2 * len(COLORS) * len(PLACES)
    assert metrics["test"]["gain_nats"] > 0.2
    prior = PreferencePrior.load(tmp_path / "run" / "prior" / "part")
    cat, robot = prior(["red cat", "red robot"])
    bokeh, neon = concept_names().index("bokeh"), concept_names().index("neon lights")
    assert cat[bokeh] > 2 * cat[neon] and robot[neon] > 2 * robot[bokeh]
    assert prior.support[bokeh] > 50 and prior.position[bokeh] < prior.position[concept_names().index("8k")]
    before = (tmp_path / "run" / "prior" / "part" / "prior.safetensors").read_bytes()
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "run" / "prior" / "part" / "prior.safetensors").read_bytes() == before


def test_a_prior_without_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prior", "--run", str(tmp_path)]) == 2
    assert "prompts: expected at least one file, got none" in capsys.readouterr().err
