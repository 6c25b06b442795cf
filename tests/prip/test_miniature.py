"""The miniature: its language, its splits, its renderer and its true preference."""

from __future__ import annotations

import pytest
import torch

from prip.miniature.preference import expected_preference, preference_table, scene_preference
from prip.miniature.prompts import SPLITS, caption, combinations, sample_modifiers, system_prompt, user_prompts
from prip.miniature.renderer import GLYPH_COLUMNS, GLYPH_SIZE, Renderer, glyph_masks, render
from prip.miniature.scene import FACTOR_SIZES, FACTORS, mentioned_subjects, parse, sample_scene
from prip.miniature.vocabulary import ATTRIBUTES, MODIFIERS, OPEN_DISTRIBUTION, PLACES, POOR, SUBJECTS
from prip.randomness import random_generator


def index_of(attribute: str, name: str) -> int:
    return [value.name for value in ATTRIBUTES[attribute]].index(name)


def test_a_prompt_is_read_back():
    request = parse("draw me a kitten by the sea, out of frame, golden hour, 8k")
    assert SUBJECTS[request["subject"]].name == "cat"
    assert PLACES[request["place"]].name == "beach"
    assert request["light"] == index_of("light", "golden hour")
    assert request["composition"] == POOR
    assert request["color"] is None and request["style"] is None and request["focus"] is None


def test_longer_phrases_win_and_the_first_of_two_counts():
    assert SUBJECTS[parse("a night owl in town")["subject"]].name == "owl"
    assert parse("a night owl in town")["light"] is None
    assert parse("a car, moonlight, golden hour")["light"] == index_of("light", "moonlight")
    assert parse("a catalogue of cargo")["subject"] is None


def test_every_phrase_means_what_its_table_says():
    for subject in SUBJECTS:
        for noun in (subject.name, *subject.user_nouns):
            assert mentioned_subjects(f"a picture of a {noun}") == {subject.name}, noun
    for modifier, (attribute, value) in MODIFIERS.items():
        request = parse(f"a cat, {modifier}")
        assert request[attribute] == value
        assert sum(found is not None for found in request.values) == 2, modifier


def test_splits_share_no_combination_and_all_hold_every_subject():
    rows = {split: {(s.name, p.name) for s, p in combinations(split)} for split in SPLITS}
    assert sum(map(len, rows.values())) == len(SUBJECTS) * len(PLACES) == len(set.union(*rows.values()))
    for split in SPLITS:
        assert {name for name, _ in rows[split]} == {subject.name for subject in SUBJECTS}
    test_places = {prompt for prompt, _ in user_prompts("test", 4, 0)}
    assert not test_places & {prompt for prompt, _ in user_prompts("train", 4, 0, open_place=True)}
    with pytest.raises(ValueError, match="split"):
        combinations("training")


def test_system_prompts_hold_harmful_modifiers_and_no_attribute_twice():
    harmful = 0
    for number in range(300):
        text = system_prompt("train", random_generator(number))
        modifiers = [part for part in text.split(", ")[1:] if part in MODIFIERS]
        attributes = [MODIFIERS[modifier][0] for modifier in modifiers]
        assert len(attributes) == len(set(attributes)) and 2 <= len(attributes) <= 5
        harmful += sum(MODIFIERS[modifier][1] == POOR for modifier in modifiers)
    assert harmful > 200


def test_no_fixed_suffix_is_best_for_all():
    table = preference_table()
    assert table.shape == (len(SUBJECTS), len(ATTRIBUTES), POOR + 1)
    assert (table[..., POOR] == 0).all() and (table.max(-1).values == 1).all()
    for column in range(len(ATTRIBUTES)):
        assert len(set(table[:, column].argmax(-1).tolist())) == POOR
    assert table.mean(0).max(-1).values.mean() < 0.8


def test_preference_by_hand():
    subject, place = torch.tensor([0, 0]), torch.tensor([2, -1])
    best = [int(value) for value in preference_table()[0].argmax(-1)]
    scenes = torch.tensor([[0, 2, *best], [1, 5, *[POOR] * 5]])
    assert scene_preference(subject, place, scenes).tolist() == pytest.approx([1.0, 0.1])
    half = [torch.full((2, size), 1 / size) for size in FACTOR_SIZES]
    worth = 0.2 / FACTOR_SIZES[0] + 0.7 * (1 + 0.55 + 0.25) / 4
    assert expected_preference(subject, place, half).tolist() == pytest.approx(
        [worth + 0.1 / FACTOR_SIZES[1], worth + 0.1]
    )


def test_open_factors_are_filled_as_the_distribution_says():
    generator = torch.Generator().manual_seed(0)
    request = parse("a cat, golden hour")
    scenes = torch.tensor([sample_scene(request, generator) for _ in range(2000)])
    assert (scenes[:, 0] == 0).all() and (scenes[:, FACTORS.index("light")] == 0).all()
    shares = torch.bincount(scenes[:, FACTORS.index("focus")], minlength=4) / 2000
    assert shares.tolist() == pytest.approx(list(OPEN_DISTRIBUTION), abs=0.04)


def test_the_renderer_is_a_function_of_prompt_and_seed():
    renderer = Renderer(batch_size=2)
    prompts, seeds = ["a cat on a beach", "one robot", "a cat on a beach", "kitty, moonlight"], [1, 2, 1, 4]
    images = renderer(prompts, seeds)
    assert images.shape == (4, 3, 32, 32) and images.dtype == torch.uint8
    assert torch.equal(images[0], images[2]) and not torch.equal(images[0], images[1])
    assert torch.equal(renderer(prompts[3:], seeds[3:])[0], images[3])
    assert not torch.equal(renderer(prompts[:1], [7])[0], images[0])
    assert renderer([], []).shape == (0, 3, 32, 32)


def test_the_renderer_fills_what_is_open_alike_for_all_prompts():
    images = Renderer()(["a cat on a beach", "a cat on a beach, sharp focus, crisp edges"] * 30, [*range(30)] * 2)
    named = images[1::2]
    assert len({tuple(image.flatten().tolist()) for image in named}) > 10, "seeds differ"
    pairs = zip(images[::2], Renderer()(["a cat on a beach, masterpiece"] * 60, [*range(30)] * 2)[::2], strict=True)
    assert all(torch.equal(plain, neutral) for plain, neutral in pairs), "a word without effect changes nothing"


def test_every_value_shows():
    jitter = torch.zeros(4, 2)
    for column, size in enumerate(FACTOR_SIZES):
        scenes = torch.tensor([[3, 2, 2, 0, 0, 1, 2]]).repeat(size, 1)
        scenes[:, column] = torch.arange(size)
        images = render(scenes, jitter[:1].expand(size, 2), 32).float()
        gaps = torch.cdist(images.flatten(1), images.flatten(1), p=1) / images[0].numel()
        assert (gaps + 1e9 * torch.eye(size)).min() > 3, FACTORS[column]
    masks = glyph_masks(torch.tensor([[0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]]), jitter[:2], 32)
    assert masks.shape == (2, 1, 32, 32) and masks[0].float().mean() > 2 * masks[1].float().mean()


def test_captions_hold_test_combinations_back():
    seen = {parse(caption(random_generator(number))).values[:2] for number in range(3000)}
    held_back = {(SUBJECTS.index(s), PLACES.index(p)) for s, p in combinations("test")}
    assert not seen & held_back
    assert len(seen) > len(SUBJECTS) * 6, "nearly all others are there"
    assert any(place is None for _, place in seen)
    known = {parse(caption(random_generator(number), SPLITS)).values[:2] for number in range(3000)}
    assert len(known & held_back) > 0.9 * len(held_back), "judges know them"


def test_there_is_a_glyph_for_each_subject():
    assert len(SUBJECTS) >= 40 and {subject.category for subject in SUBJECTS} >= {"animal", "food", "building"}
    scenes = torch.zeros(len(SUBJECTS), len(FACTOR_SIZES), dtype=torch.long)
    scenes[:, 0] = torch.arange(len(SUBJECTS))
    masks = glyph_masks(scenes, torch.zeros(len(SUBJECTS), 2), 32).flatten(1).float()
    assert masks.mean(1).min() > 0.1 * 255, "none is missing"
    assert torch.cdist(masks, masks).fill_diagonal_(1e9).min() > 255, "no two have the same outline"


def test_random_modifiers_are_a_function_of_the_generator():
    assert sample_modifiers(random_generator(1)) == sample_modifiers(random_generator(1))


def test_the_glyph_sheet_has_a_tile_for_each_subject(tmp_path):
    from PIL import ImageFont

    from prip.miniature.glyph_sheet import glyph_sheet

    font = tmp_path / "font.ttf"
    font.write_bytes(ImageFont.load_default(10).font_bytes)
    sheet = glyph_sheet(str(font))
    assert sheet.size == (GLYPH_COLUMNS * GLYPH_SIZE, -(-len(SUBJECTS) // GLYPH_COLUMNS) * GLYPH_SIZE)
    for index in range(len(SUBJECTS)):
        row, column = divmod(index, GLYPH_COLUMNS)
        left, upper = column * GLYPH_SIZE, row * GLYPH_SIZE
        tile = sheet.crop((left, upper, left + GLYPH_SIZE, upper + GLYPH_SIZE))
        assert tile.getbbox()[3] == GLYPH_SIZE, "every glyph stands on the lower edge of its tile"
