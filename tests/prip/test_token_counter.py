"""The token budget by other tokenizers than CLIP's: never exceeded, and the default untouched."""

from __future__ import annotations

import random

import pytest
from tiny_parts import MODIFIERS, USER_PROMPTS

from prip.decoding.token_table import normal_bytes
from prip.errors import InputError
from prip.refiner import Refiner
from prip.text.clip_tokens import count_clip_tokens
from prip.text.token_counter import TokenCounter


class Counting:
    """A generator as far as the budget is concerned."""

    name = "counting"

    def __init__(self, tokenizer, token_limit: int) -> None:
        self.tokenizer, self.token_limit = tokenizer, token_limit

    def __call__(self, prompts, seeds):
        raise AssertionError("nothing is drawn")

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


@pytest.fixture(scope="module", params=["unigram", "byte-level"])
def generator(request):
    from tiny_pipelines import clip_like_tokenizer, t5_like_tokenizer

    return Counting(t5_like_tokenizer() if request.param == "unigram" else clip_like_tokenizer(), 40)


@pytest.fixture(scope="module")
def refiner(tiny_model, tiny_processor):
    return Refiner(tiny_model, tiny_processor)


def test_a_text_has_as_many_as_its_parts_and_never_too_few(generator):
    counter = TokenCounter.of(generator)
    source = random.Random(0)
    words = " ".join([*USER_PROMPTS, *MODIFIERS, "ﬁne ½ é 猫 K x, 8k,"]).split()
    for _ in range(200):
        parts = source.choices(words, k=source.randrange(1, 9))
        text = " ".join(parts)
        assert counter(text) == sum(map(counter, parts)) == counter(" " + text)
        assert counter(text) >= generator.count_tokens(text)
        assert all(counter(part) <= normal_bytes(part) + 1 for part in parts)
    with pytest.raises(InputError, match="limit"):
        TokenCounter(generator.count_tokens, 0)


def test_counting_clip_by_its_own_tokenizer_is_exact():
    counter = TokenCounter(count_clip_tokens, 75)
    assert all(counter(text) == count_clip_tokens(text) for text in [*USER_PROMPTS, "A Cat, golden hour,, 8k  é"])


@pytest.mark.filterwarnings("ignore::prip.errors.PripWarning")
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_no_text_exceeds_what_the_generator_reads(refiner, generator, temperature):
    counted = refiner.counted_by(generator)
    assert counted.token_limit == 40 and counted.model is refiner.model
    budgets = {None: 40, 9: 9, 14: 14, 23: 23}
    longest = 0
    for budget, limit in budgets.items():
        texts = counted.refine(USER_PROMPTS, token_budget=budget, temperature=temperature, max_new_tokens=50)
        for user_prompt, text in zip(USER_PROMPTS, texts, strict=True):
            if text != user_prompt:
                assert generator.count_tokens(text) <= limit
                longest = max(longest, generator.count_tokens(text) / limit)
    assert longest > 0.7, "the budget is what bounds them"


@pytest.mark.filterwarnings("ignore::prip.errors.PripWarning")
def test_the_default_budget_is_clips(refiner):
    assert refiner.token_limit == 75
    prompts = [" ".join(USER_PROMPTS), "a cat"]
    texts = refiner.refine(prompts, max_new_tokens=90)
    assert texts == refiner.refine(prompts, max_new_tokens=90, token_budget=75)
    assert refiner.sampler.constraints._count_tokens is count_clip_tokens
    assert all(count_clip_tokens(text) <= 75 for text in texts)
