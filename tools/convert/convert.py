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
import training_files
from conversion import Conversion, Failure, Line, one_line, shown
from restricted_pickle import Refused

SHOWN_NAMES = 8
UNFORESEEN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
UNFORESEEN_WORD = "unforeseen"

TRAINING_FILES = {
    "--data": ("FOLDER", "fairseq's data-bin: dictionaries, and byte pairs if they are there"),
    "--dict": ("FILE", "dict.txt of a language model, or of both languages of a translation"),
    "--srcdict": ("FILE", "dictionary of the source language"),
    "--tgtdict": ("FILE", "dictionary of the target language"),
    "--bpe-codes": ("FILE", "merges of subword-nmt"),
    "--nonbreaking-prefixes": ("FILE", "Moses's nonbreaking_prefix of the source language"),
}


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
    names = sorted(map(shown, data))[:SHOWN_NAMES] if isinstance(data, dict) else []
    held = ", ".join(names) or f"a {type(data).__name__}"
    wanted = "averaged weights of " if averaged else ""
    raise Failure(f"no {wanted}EVA-ViT, EVA-PVTv2 or EVA model of fairseq in it; it holds {held}")


def write(conversion: Conversion, files: dict[str, bytes], out: pathlib.Path) -> None:
    config = json.dumps(conversion.config, indent=2) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)
    safetensors_file.write(out / "model.safetensors", conversion.tensors)
    (out / "config.json").write_text(config)


def parse(arguments: list[str] | None) -> argparse.Namespace:
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
    group = parser.add_argument_group("files of the training data, for a model of text")
    for option, (metavar, text) in TRAINING_FILES.items():
        group.add_argument(option, type=pathlib.Path, metavar=metavar, help=text)
    return parser.parse_args(arguments)


def given(args: argparse.Namespace) -> training_files.Given:
    values = {option: getattr(args, option[2:].replace("-", "_")) for option in TRAINING_FILES}
    return {option: path for option, path in values.items() if path}


def fail(*messages: str) -> int:
    for message in messages:
        print(one_line(f"convert.py: {message}"), file=sys.stderr)
    return 2


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        return run(args)
    except Refused as error:  # names the file
        return fail(str(error))
    except (Failure, OSError) as error:
        return fail(f"{args.checkpoint}: {error}")
    # A checkpoint may hold anything anywhere, so more than the checks above can name. But it may be
    # a bug of ours: the exception's name is in the line, and no test takes it for a refusal.
    except UNFORESEEN as error:
        return fail(f"{args.checkpoint}: {UNFORESEEN_WORD} {type(error).__name__}: {error}")


def run(args: argparse.Namespace) -> int:
    conversion = convert(checkpoint.read(args.checkpoint), args.averaged, dict(args.set))
    files = training_files.collect(given(args), conversion.config)
    training_files.check_earlier(files, conversion.config, args.out)
    print(*conversion.report, sep="\n")
    print(
        ", ".join(
            f"{n} {action}"
            for action, n in Counter(line.action for line in conversion.report).items()
        )
    )
    if wrong := [line for line in conversion.report if line.action in Line.BAD]:
        return fail(*(f"{args.checkpoint}: {line}" for line in wrong))
    write(conversion, files, args.out)
    if lacks := training_files.missing(conversion.config, args.out):
        print(f"{args.out} lacks {', '.join(lacks)}, without which it is not served")
    return 0


if __name__ == "__main__":
    sys.exit(main())
