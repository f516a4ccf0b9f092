"""How many bytes a step greedy multi-byte decoding would accept, with a published speculation tree.

Continues prompts from the held-out text greedily with the first head, then replays the text: a step
takes the next byte and as many further ones as a path of the tree guesses from the other heads.

    python3 accepted_bytes.py --model DIR --text heldout.txt --trees evabyte_trees.json
"""

import argparse
import json
import pathlib

import safetensors.torch
import torch
import torch.nn.functional as F

from model import Config, EvaByte
from train import BOS, read_ids

CHOICES = 10  # a tree's ranks are among the ten best guesses of a head


def load(folder: pathlib.Path) -> EvaByte:
    model = EvaByte(Config())
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model.eval()


def logits_of(model: EvaByte, ids: list[int]) -> torch.Tensor:
    """[N, heads, vocab]; what pads the last window is after every token that counts."""
    padding = -len(ids) % model.config.window_size
    return model(F.pad(torch.tensor([ids]), (0, padding)))[0, : len(ids)]


def accepted_per_step(model: EvaByte, prompt: list[int], new_bytes: int, paths: set) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + new_bytes:
        ids.append(logits_of(model, ids)[-1, 0].argmax().item())
    guesses = logits_of(model, ids).topk(CHOICES, dim=-1).indices.tolist()
    steps, at = [], len(prompt) - 1  # `at`: the last token that is in the state
    while at + 1 + model.config.num_pred_heads < len(ids):
        path = ()
        for head in range(1, model.config.num_pred_heads):
            target = ids[at + 1 + head]
            if target not in guesses[at][head]:
                break
            longer = path + (guesses[at][head].index(target),)
            if longer not in paths:
                break
            path = longer
        steps.append(1 + len(path))
        at += steps[-1]
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument(
        "--trees",
        type=pathlib.Path,
        required=True,
        help="JSON: name -> sorted_paths, lists of ranks",
    )
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt-bytes", type=int, default=200)
    parser.add_argument("--new-bytes", type=int, default=256)
    args = parser.parse_args()

    model, ids = load(args.model), read_ids(args.text)
    torch.set_num_threads(1)
    trees = {
        name: tree
        for name, tree in json.loads(args.trees.read_text()).items()
        if isinstance(tree, dict)
    }
    for name, tree in trees.items():
        paths = {tuple(path) for path in tree["sorted_paths"]}
        steps = []
        with torch.no_grad():
            for start in range(0, len(ids) - args.prompt_bytes, len(ids) // args.prompts)[
                : args.prompts
            ]:
                prompt = [BOS, *ids[start : start + args.prompt_bytes].tolist()]
                steps += accepted_per_step(model, prompt, args.new_bytes, paths)
        print(f"{name}: {sum(steps) / len(steps):.2f} bytes a step over {sum(steps)} bytes")


if __name__ == "__main__":
    main()
