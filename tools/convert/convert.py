#!/usr/bin/env python3
"""Converts a checkpoint of the published EVA code to a directory that evaserve loads.

    convert.py CHECKPOINT --out DIRECTORY

Needs NumPy alone, and runs nothing that the checkpoint holds. Prints every tensor's fate. Ends with
2 if the checkpoint is damaged, holds anything but tensors and plain data, or is of another model;
then DIRECTORY is not written.
"""

import argparse
import json
import pathlib
import sys
from collections import Counter
from typing import Any

import checkpoint
import from_fairseq
import from_timm
import safetensors_file
from conversion import Conversion, Failure, Line
from restricted_pickle import Refused
from training_files import NEED_DICTIONARY, dictionary


def setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def convert(data: Any, averaged: bool, settings: dict[str, Any]) -> Conversion:
    for family, converter in (
        (from_timm, from_timm.from_timm),
        (from_fairseq, from_fairseq.from_fairseq),
    ):
        try:
            state = family.state_of(data, averaged)
        except Failure:
            continue
        if family.recognises(state):
            return converter(data, averaged, settings)
    names = sorted(data)[:8] if isinstance(data, dict) else type(data).__name__
    wanted = "averaged weights of " if averaged else ""
    raise Failure(f"no {wanted}EVA-ViT, EVA-PVTv2 or EVA model of fairseq in it; it holds {names}")


def write(conversion: Conversion, words: bytes | None, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if words is not None:
        (out / "dict.txt").write_bytes(words)
    safetensors_file.write(out / "model.safetensors", conversion.tensors)
    (out / "config.json").write_text(json.dumps(conversion.config, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=pathlib.Path, help="what torch.save wrote")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to write")
    parser.add_argument(
        "--averaged", action="store_true", help="the moving average of the weights (model_ema)"
    )
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a key of config.json that the checkpoint does not tell: attn.num_landmarks=49",
    )
    parser.add_argument(
        "--dict", type=pathlib.Path, help="dict.txt of the training data, for a model of words"
    )
    args = parser.parse_args(arguments)
    words = None
    try:
        conversion = convert(checkpoint.read(args.checkpoint), args.averaged, dict(args.set))
        if args.dict:
            words = dictionary(args.dict, conversion.config.get("vocab_size", 0))
    except Refused as error:  # names the file
        print(f"convert.py: {error}", file=sys.stderr)
        return 2
    except (Failure, OSError) as error:
        print(f"convert.py: {args.checkpoint}: {error}", file=sys.stderr)
        return 2
    print(*conversion.report, sep="\n")
    print(
        ", ".join(
            f"{n} {action}"
            for action, n in Counter(line.action for line in conversion.report).items()
        )
    )
    if wrong := [line for line in conversion.report if line.action in Line.BAD]:
        for line in wrong:
            print(f"convert.py: {args.checkpoint}: {line}", file=sys.stderr)
        return 2
    write(conversion, words, args.out)
    if conversion.config["model_type"] in NEED_DICTIONARY and not args.dict:
        print(f"{args.out} lacks dict.txt, without which it is not served: --dict writes it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
