"""Runs TRL's PPO pieces on random numbers and writes what goes in and comes out to golden.safetensors beside this file.

    python tests/parity/trl/make_golden.py

needs the packages of requirements.txt, in an environment of their own. `masked_mean`, `masked_var` and `masked_whiten`
are called as they are. Generalised advantages and the clipped losses stand in the midst of `PPOTrainer.train`: those
statements are taken from the installed package's source and run, with tensors of ours under the names they read.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from trl.experimental.ppo import ppo_trainer

BATCH, LENGTH = 6, 9
GAMMA, LAMBDA, CLIP, VALUE_CLIP = 0.97, 0.9, 0.2, 0.15


def statements(names: list[str]) -> list[ast.stmt]:
    """Returns the statements of `PPOTrainer.train` from the first that assigns `names[0]` through the first after it
    that assigns `names[-1]`, from one block; every one of `names` must be assigned among them."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(ppo_trainer.PPOTrainer.train)))
    for block in (body for node in ast.walk(tree) for body in [getattr(node, "body", None)] if isinstance(body, list)):
        assigned = [[t.id for t in getattr(s, "targets", []) if isinstance(t, ast.Name)] for s in block]
        first = next((i for i, own in enumerate(assigned) if names[0] in own), None)
        last = next(
            (i for i, own in enumerate(assigned) if names[-1] in own and first is not None and i >= first), None
        )
        if first is not None and last is not None:
            flat = {name for own in assigned[first : last + 1] for name in own}
            if set(names) <= flat:
                return block[first : last + 1]
    raise LookupError(f"PPOTrainer.train assigns {names} nowhere in one block")


def run(names: list[str], given: dict) -> dict:
    """Runs those statements with the package's own globals and the values `given`; returns all names."""
    scope = {**vars(ppo_trainer), **given}
    module = ast.Module(body=statements(names), type_ignores=[])
    exec(compile(ast.fix_missing_locations(module), ppo_trainer.__file__, "exec"), scope)
    return scope


def main() -> None:
    source = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=source)

    lengths = torch.tensor([9, 1, 4, 7, 2, 9])
    mask = torch.arange(LENGTH) < lengths[:, None]
    # TRL's GAE has no mask: it reads zeros behind the last action
    rewards, values = (torch.masked_fill(random(BATCH, LENGTH), ~mask, 0) for _ in range(2))
    golden = {"mask": mask, "rewards": rewards, "values": values}
    golden["masked_mean"] = ppo_trainer.masked_mean(rewards, mask)
    golden["masked_whiten"] = torch.masked_fill(ppo_trainer.masked_whiten(rewards, mask), ~mask, 0)

    args = SimpleNamespace(gamma=GAMMA, lam=LAMBDA, cliprange=CLIP, cliprange_value=VALUE_CLIP)
    common = {"args": args, "responses": torch.zeros(BATCH, LENGTH), "padding_mask": ~mask}
    found = run(["lastgaelam", "returns"], {**common, "rewards": rewards, "values": values})
    golden["advantages"] = torch.masked_fill(found["advantages"], ~mask, 0)
    golden["returns"] = torch.masked_fill(found["returns"], ~mask, 0)

    advantages = golden["advantages"]
    old, new = 0.3 * random(BATCH, LENGTH), 0.3 * random(BATCH, LENGTH)
    new_values = values + 0.3 * random(BATCH, LENGTH)
    rows = torch.arange(BATCH)
    losses = {
        **common,
        "padding_mask_p1": ~mask,
        "micro_batch_inds": rows,
        "mb_advantage": advantages,
        "mb_return": golden["returns"],
        "mb_values": values,
        "vpred": new_values,
        "new_logprobs": new,
        "mb_logprobs": old,
    }
    found = run(["vpredclipped", "vf_loss"], losses)
    golden["value_loss"] = found["vf_loss"]
    found = run(["logprobs_diff", "pg_loss"], losses)
    golden["policy_loss"] = found["pg_loss"]
    golden |= {"old": old, "new": new, "new_values": new_values}
    golden["settings"] = torch.tensor([GAMMA, LAMBDA, CLIP, VALUE_CLIP], dtype=torch.float64)
    tensors = {name: value.detach().clone().contiguous() for name, value in golden.items()}
    save_file(tensors, Path(__file__).with_name("golden.safetensors"))


if __name__ == "__main__":
    main()
