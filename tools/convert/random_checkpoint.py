#!/usr/bin/env python3
"""A checkpoint of random weights as the authors' training program saves it, of a published model.

    random_checkpoint.py MODEL --checkout FOLDER --out FILE

MODEL is a name of theirs: evit_tiny_p8, evit_tiny_p16, evit_small_p16, pvt_medium2. FOLDER is a
checkout of HKUNLP/efficient-attention. Needs PyTorch, torchvision, timm 0.5.4, einops and PyYAML.

With convert.py and verify.py it shows that a published size is what evaserve takes it for.
"""

import argparse
import importlib
import pathlib
import sys
import warnings

import torch

IMAGENET_CLASSES = 1000
# The options of their README's commands for EVA.
EVA = "--attn-name eva --num-landmarks 49 --adaptive-proj default --window-size 7 --attn-2d --use-rpe"


def published_model(model: str, checkout: pathlib.Path) -> tuple[torch.nn.Module, argparse.Namespace]:
    """The authors' module and the arguments that it was made of, both by their own program."""
    sys.path[:0] = [str(checkout / "efficient-attention"), str(checkout / "vit")]
    warnings.simplefilter("ignore")
    sys.argv = ["main.py", "--model", model, *EVA.split()]
    program = importlib.import_module("main")
    namespace = importlib.import_module("efficient_attention").NestedNamespace()
    args = program.get_args_parser().parse_args(namespace=namespace)
    args.attn_specific_args = args.attn_args
    args.num_classes = IMAGENET_CLASSES  # of the data set, to their program
    return program.create_model(model, pretrained=False, args=args), args


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--checkout", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    model, args = published_model(options.model, options.checkout)
    with torch.no_grad():
        for parameter in model.parameters():  # some begin as zeros and would show nothing
            parameter.add_(torch.randn_like(parameter) * 0.02)
    torch.save({"model": model.state_dict(), "epoch": 0, "args": args}, options.out)


if __name__ == "__main__":
    main()
