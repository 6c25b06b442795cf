"""Generators that an evaluation measures: the one of a checkpoint or run, and the one that tuning made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_diffusion import tiny_pipeline
from tiny_pipelines import clip_like_tokenizer

from prip.errors import CheckpointError, InputError
from prip.generators.diffusion import DiffusersGenerator, DrawingOptions
from prip.inference.checkpoint_parts import Parts
from prip.inference.evaluation.kinds.generators import identity, make_diffusers
from prip.inference.evaluation.kinds.registry import GENERATORS, Context
from prip.inference.evaluation.settings import read_settings


def test_the_preset_compares_plain_and_refined_on_both_generators() -> None:
    settings = read_settings("composition")
    assert list(settings.refiners) == ["none", "rl"] and list(settings.generators) == ["diffusion", "tuned"]
    assert ["none@diffusion", "none@tuned"] in settings.comparisons and ["none", "rl"] in settings.comparisons
    assert settings.generators["tuned"] == {"kind": "diffusers", "stage": "tune", "seen": False}
    assert settings.scorers == {
        name: entry for name, entry in read_settings("miniature").scorers.items() if name in settings.scorers
    }


def test_the_tuned_generator_is_that_of_the_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for folder, steps in (("parts/generator", 2), ("tune/part", 3)):
        generator = DiffusersGenerator(tiny_pipeline(clip_like_tokenizer()), DrawingOptions(steps=steps))
        generator.save_pretrained(tmp_path / folder)
    context = Context(Parts.of_run(tmp_path), "cpu", 0)
    plain, tuned = make_diffusers("plain", context), make_diffusers("tuned", context, stage="tune")
    assert (plain.steps, tuned.steps) == (2, 3) and identity(plain) != identity(tuned)  # type: ignore[attr-defined]


def test_a_stage_that_is_not_there_is_told(tmp_path: Path) -> None:
    run, checkpoint = (Context(parts, "cpu", 0) for parts in (Parts.of_run(tmp_path), Parts.of_checkpoint("prip-mini")))
    with pytest.raises(CheckpointError, match="tune/part is missing"):
        make_diffusers("tuned", run, stage="tune")
    with pytest.raises(InputError, match="'tuned': stage: expected world, as only a --run has a tuned generator"):
        GENERATORS.make("tuned", {"kind": "diffusers", "stage": "tune"}, checkpoint)
    with pytest.raises(InputError, match="'tuned': stage: expected world or tune, got 'rl'"):
        GENERATORS.make("tuned", {"kind": "diffusers", "stage": "rl"}, run)
    with pytest.raises(InputError, match="'tuned': stage: expected none with place"):
        GENERATORS.make("tuned", {"kind": "diffusers", "stage": "tune", "place": "elsewhere"}, run)
