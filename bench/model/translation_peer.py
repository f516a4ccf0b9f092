#!/usr/bin/env python3
"""translation_bench beside the authors' fairseq in PyTorch, both on one thread and by CPU time.

    translation_peer.py --bench build/release/bench/model/translation_bench --model DIRECTORY \\
        --checkout CHECKOUT [--sentences 8] [--beam-size 5]

CHECKOUT is HKUNLP/efficient-attention; needs PyTorch and einops. Says how many translations are the
same: with random weights hypotheses can be equally good up to rounding.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import torch

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "models" / "eva_translation" / "testing"))
import official_translations  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--checkout", type=pathlib.Path, required=True)
    parser.add_argument("--sentences", type=int, default=8)
    parser.add_argument("--beam-size", type=int, default=5)
    args = parser.parse_args()
    command = [args.bench, "--model", args.model, "--sentences", str(args.sentences)]
    command += ["--beam-size", str(args.beam_size)]
    ours = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    torch.set_num_threads(1)
    fairseq = official_translations.import_fairseq(args.checkout)
    model, config = official_translations.build(fairseq, args.model)
    model = model.float()
    usual = config["generation"]
    generator = fairseq.Generator(
        [model],
        official_translations.Vocabulary(range(config["decoder"]["vocab_size"])),
        beam_size=args.beam_size,
        max_len_a=usual["max_len_a"],
        max_len_b=usual["max_len_b"],
        min_len=usual["min_len"],
        len_penalty=usual.get("length_penalty", 1.0),
    )
    rows = [[int(word[1:]) for word in text.split()] + [2] for text in ours["sources"]]

    def translate(some: list[list[int]]) -> list[str]:
        net_input = {
            "src_tokens": torch.tensor(some),
            "src_lengths": torch.tensor([len(row) for row in some]),
        }
        with torch.no_grad():
            found = generator.generate([model], {"net_input": net_input})
        return [" ".join(f"w{t}" for t in one[0]["tokens"].tolist()[:-1]) for one in found]

    translate(rows[:1])
    begin = time.process_time()
    alone = [text for row in rows for text in translate([row])]
    middle = time.process_time()
    translate(rows)
    end = time.process_time()
    same = sum(a == b for a, b in zip(alone, ours["translations"], strict=True))
    count = len(rows)
    print(f"{same} of {count} translations are the same")
    for name, we, they in (
        ("one by one", ours["seconds_one_by_one"], middle - begin),
        ("together", ours["seconds_together"], end - middle),
    ):
        print(f"{name}: {count / we:.2f} and {count / they:.2f} per second, {they / we:.2f}x")
    ratio = ours["seconds_one_by_one"] / ours["seconds_together"]
    print(f"together against one by one: {ratio:.2f}x")


if __name__ == "__main__":
    main()
