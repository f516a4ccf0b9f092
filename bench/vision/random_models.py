#!/usr/bin/env python3
"""Random EVA-ViTs of the published sizes, for benchmarks.

    random_models.py DIR [--size tiny] [--patch 16]

writes one as a directory that evaserve loads, and beside it model.pt, the same for TorchScript.
"""

import argparse
import json
import pathlib
import sys

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tools/train_digits"), str(ROOT / "tools/convert")]

import safetensors_file  # noqa: E402
from model import EvaVit  # noqa: E402

IMAGE_SIZE = 224
SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
ATTENTION = {
    "window_size": 7,
    "num_landmarks": 49,
    "adaptive_proj": "default",
    "attn_2d": True,
    "use_rpe": True,
    "use_t5_rpe": False,
    "overlap_window": False,
    "fp32": False,
}


def config_of(args: argparse.Namespace) -> dict:
    dim, heads = SIZES[args.size]
    return {
        "model_type": "eva_vit",
        "input_size": IMAGE_SIZE,
        "patch_size": args.patch,
        "in_chans": 3,
        "embed_dim": dim,
        "num_heads": heads,
        "depth": 12,
        "mlp_ratio": 4,
        "use_glu": False,
        "qkv_bias": True,
        "num_classes": 1000,
        "layer_norm_eps": 1e-6,
        "adaptive_mu_layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "attn": ATTENTION,
    }


def random_model(config: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    module = EvaVit(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return module


def write_model(module: torch.nn.Module, config: dict, folder: pathlib.Path) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    safetensors_file.write(folder / "model.safetensors", tensors)


def write_torchscript(module: torch.nn.Module, folder: pathlib.Path) -> None:
    """Traced with a batch of 2 and checked with another."""
    pixels = [torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE) for batch in (2, 5)]
    with torch.inference_mode():
        script = torch.jit.freeze(torch.jit.trace(module, pixels[0]))
        torch.testing.assert_close(script(pixels[1]), module(pixels[1]), rtol=1e-3, atol=1e-4)
    script.save(folder / "model.pt")


def add_size(parser: argparse.ArgumentParser, patch: int) -> None:
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--patch", type=int, choices=[8, 16], default=patch)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    add_size(parser, patch=16)
    args = parser.parse_args()
    config = config_of(args)
    module = random_model(config)
    args.folder.mkdir(exist_ok=True)
    write_model(module, config, args.folder)
    write_torchscript(module, args.folder)


if __name__ == "__main__":
    main()
