"""The node as ComfyUI loads, checks and runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from comfyui_host import Host, load_custom_node, validated

import prip
from prip.errors import CheckpointError, InputError
from prip.inference.cli import main
from prip.text.clip_tokens import count_clip_tokens

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def custom_nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's folder with PRIP in it, as the command puts it there."""
    folder = tmp_path_factory.mktemp("host") / "Comfy.UI"
    (folder / "custom_nodes").mkdir(parents=True)
    assert main(["install", "comfyui", str(folder)]) == 0
    return folder / "custom_nodes" / "prip"


@pytest.fixture(scope="module")
def module(custom_nodes: Path) -> Any:
    return load_custom_node(custom_nodes)


@pytest.fixture
def host(module: Any) -> Host:
    return Host(module.NODE_CLASS_MAPPINGS["PripRefinePrompt"])


def test_the_folder_is_a_custom_node(module: Any, custom_nodes: Path) -> None:
    assert set(module.NODE_CLASS_MAPPINGS) == set(module.NODE_DISPLAY_NAME_MAPPINGS) == {"PripRefinePrompt"}
    assert [file.name for file in (custom_nodes / module.WEB_DIRECTORY).glob("*.js")] == ["prip.js"]
    node = module.NODE_CLASS_MAPPINGS["PripRefinePrompt"]
    assert node.OUTPUT_NODE and len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS) == 3
    assert list(node.INPUT_TYPES()["optional"])[-2:] == ["refined_prompt", "keep_edit"], "the script wants this order"
    seed = node.INPUT_TYPES()["required"]["seed"]
    assert seed[0] == "INT" and seed[1]["control_after_generate"] == "fixed"


@pytest.mark.parametrize("how", ["copied", "linked"])
def test_loading_it_loads_nothing_heavy(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "custom_nodes" / "prip"
    folder.parent.mkdir()
    if how == "copied":
        shutil.copytree(ROOT / "inference" / "comfyui", folder)
    else:
        folder.symlink_to(ROOT / "inference" / "comfyui")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests' / 'support')!r})\n"
        "from pathlib import Path; from comfyui_host import load_custom_node\n"
        f"before = set(sys.modules); node = load_custom_node(Path({str(folder)!r}))\n"
        "node.NODE_CLASS_MAPPINGS['PripRefinePrompt'].INPUT_TYPES()\n"
        "loaded = set(sys.modules) - before; packages = {name.split('.')[0] for name in loaded}\n"
        "print(sorted(packages & {'torch', 'transformers', 'tokenizers', 'numpy'}))\n"
        "print(*sorted(name for name in loaded if name.startswith('prip.')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "[]",
        "prip.errors prip.import_warnings prip.options prip.text prip.text.prompts prip.text.regions "
        "prip.text.templates prip.text.webui_syntax",
    ]


def test_it_refines_and_shows_what_it_made(host: Host) -> None:
    output = host.queue(**{**host.defaults(), "prompt": "a cat"})
    text, added, negative = output["result"]
    assert text == prip.refine("a cat", device="cpu") == f"a cat, {added}"
    assert output["ui"] == {"refined_prompt": [text], "added": [added], "notes": []}
    assert negative == prip.negative_prompt(text) != ""


def test_it_suggests_a_negative_prompt(host: Host) -> None:
    negative = host.queue(**{**host.defaults(), "prompt": "a beach, no people"})["result"][2]
    assert negative.startswith("people, ") and host.queue(**{**host.defaults(), "prompt": "."})["result"][2] == ""


def test_only_the_required_inputs_are_needed(host: Host) -> None:
    required = host.node.INPUT_TYPES()["required"]
    output = host.queue(**{name: host.defaults()[name] for name in required} | {"prompt": "a boat"})
    assert output["result"][0].startswith("a boat, ")


def test_the_options_reach_refine(host: Host) -> None:
    inputs = {**host.defaults(), "prompt": "a cat"}
    banned = host.queue(**{**inputs, "banned_terms": "golden hour, bokeh\nwarm sunlight"})["result"][0]
    assert not any(term in banned for term in ("golden hour", "bokeh", "warm sunlight"))
    assert host.queue(**{**inputs, "styles": "watercolor"})["result"][0].startswith("a cat, watercolor, ")
    assert host.queue(**{**inputs, "strength": 0})["result"][:2] == ("a cat", "")
    short = host.queue(**{**inputs, "token_budget": 12})["result"][0]
    assert short.startswith("a cat, ") and 6 < count_clip_tokens(short) <= 12
    sampled = {**inputs, "temperature": 1.0, "seed": 2**64 - 1}
    expected = prip.refine("a cat", device="cpu", temperature=1.0, seed=2**64 - 1)
    assert host.queue(**sampled)["result"][0] == expected != host.queue(**{**sampled, "seed": 3})["result"][0]


def test_alternatives_are_chosen_by_number(host: Host) -> None:
    expected = prip.refine("a cat", device="cpu", num_alternatives=3)
    inputs = {**host.defaults(), "prompt": "a cat"}
    assert [host.queue(**{**inputs, "alternative": number})["result"][0] for number in range(3)] == expected


def test_nothing_runs_twice_while_nothing_changes(host: Host, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "checkpoints" / "prip-mini" / "refiner", tmp_path / "mine")
    inputs = {**host.defaults(), "prompt": "a cat", "model": str(tmp_path / "mine")}
    first = host.queue(**inputs)
    assert host.queue(**inputs) is first and host.runs == 1
    host.queue(**{**inputs, "seed": 1})
    assert host.runs == 2
    weights = next((tmp_path / "mine").rglob("*.safetensors"))
    shutil.copyfile(weights, weights.with_name("again"))
    weights.with_name("again").replace(weights)
    host.queue(**inputs)
    assert host.runs == 3, "a checkpoint that was written anew is loaded anew"


def test_a_linked_or_blank_checkpoint_runs_once_too(host: Host, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of-another.safetensors").touch()
    inputs = {**host.defaults(), "prompt": "a cat"}
    first = host.queue(**{**inputs, "model": ["7", 0], "linked": "prip-mini"})
    assert host.queue(**{**inputs, "model": ["7", 0], "linked": "prip-mini"}) is first and host.runs == 1
    assert host.node.IS_CHANGED(**dict.fromkeys(inputs)) == 0, "every input is linked"
    blank = host.queue(**{**inputs, "model": " "})
    (tmp_path / "another.safetensors").touch()
    assert host.queue(**{**inputs, "model": " "}) is blank and host.runs == 2
    assert blank["result"] == first["result"], "no checkpoint is the default one"


def test_an_edit_is_kept(host: Host) -> None:
    inputs = {**host.defaults(), "prompt": "a cat", "refined_prompt": "a cat, in the rain", "model": "no such model"}
    output = host.queue(**{**inputs, "keep_edit": True})
    assert output["result"][:2] == ("a cat, in the rain", "in the rain")
    other = host.queue(**{**inputs, "keep_edit": True, "refined_prompt": "a dog"})
    assert other["result"][:2] == ("a dog", ""), "what was added cannot be told where the prompt itself was edited"
    inputs["model"] = "prip-mini"
    assert host.queue(**{**inputs, "keep_edit": True, "refined_prompt": " "})["result"][0].startswith("a cat, ")
    assert host.queue(**inputs)["result"][0] == prip.refine("a cat", device="cpu")


def test_a_prompt_from_another_node(host: Host) -> None:
    output = host.queue(**{**host.defaults(), "prompt": ["7", 0], "linked": "a rocket"})
    assert output["result"][0].startswith("a rocket, ")


def test_mistakes_are_told_in_words(host: Host) -> None:
    inputs = {**host.defaults(), "prompt": "a cat"}
    for change, message in (
        ({"strength": 2}, "strength: 2.0 bigger than max of 1.0"),
        ({"device": "tpu"}, "device: 'tpu' not in"),
    ):
        assert [wrong for wrong in validated(host.node, {**inputs, **change})[1] if message in wrong], message
    assert validated(host.node, {"prompt": "a cat"})[1][0] == "strength: required input is missing"
    with pytest.raises(CheckpointError, match="nowhere"):
        host.queue(**{**inputs, "model": "./nowhere"})
    with pytest.raises(InputError, match="prompt: expected no control characters"):
        host.queue(**{**inputs, "prompt": ["7", 0], "linked": "a\0cat"})


@pytest.mark.parametrize("prompt", ["a cat,\nin the rain", "a cat\r\n\tin the rain\n\n"])
def test_a_prompt_of_several_lines_stays_as_it_was_typed(host: Host, prompt: str) -> None:
    text, added, _ = host.queue(**{**host.defaults(), "prompt": prompt})["result"]
    assert text == prip.refine(prompt, device="cpu") and text.startswith(prompt.rstrip() + ", ")
    assert added and added.split(", ")[0] in text


def test_a_prompt_without_words_goes_through(host: Host) -> None:
    for prompt in ("", " \n", ".,"):
        output = host.queue(**{**host.defaults(), "prompt": prompt, "styles": "watercolor", "model": "no such model"})
        assert output["result"][:2] == (prompt, "")
        assert output["ui"]["notes"] == ["the prompt has no words; nothing was refined"]
    edit = {"refined_prompt": "a cat", "keep_edit": True}
    assert host.queue(**{**host.defaults(), **edit})["result"][0] == "a cat"


def test_a_prompt_without_room_is_told_of(host: Host) -> None:
    output = host.queue(**{**host.defaults(), "prompt": "a cat", "token_budget": 3})
    assert output["result"][:2] == ("a cat", "") and "unchanged" in output["ui"]["notes"][0]


def test_what_was_loaded_in_the_host_serves_outside_of_it(host: Host) -> None:
    """ComfyUI runs nodes in torch.inference_mode, whose tensors may not be changed elsewhere."""
    host.queue(**{**host.defaults(), "prompt": "a cat"})
    assert prip.refine("a dog", device="cpu").startswith("a dog, ")


def test_without_prip_the_command_is_named(custom_nodes: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests' / 'support')!r})\n"
        "from pathlib import Path; from comfyui_host import load_custom_node\n"
        f"node = load_custom_node(Path({str(custom_nodes)!r})).NODE_CLASS_MAPPINGS['PripRefinePrompt']\n"
        "assert list(node.INPUT_TYPES()['required']) == ['prompt', 'alternative']\n"
        "try: node().refine(prompt='a cat')\n"
        "except ImportError as error: print(error)"
    )
    bare = [sys.executable, "-S", "-E", "-c", code]  # neither what is installed nor PYTHONPATH
    result = subprocess.run(bare, capture_output=True, text=True, check=True, cwd=custom_nodes)
    assert f"in the folder of PRIP, run: {sys.executable} -m pip install ." in result.stdout
