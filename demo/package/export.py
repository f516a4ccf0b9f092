#!/usr/bin/env python3
"""Takes the small ViT of vit.py, replaces its attention by EVA, and exports it for evaserve.

    export.py FOLDER       needs torch 2.11 and evaserve-ops

makes a repository with the models vit-torchscript and vit-aot, and example.npz: images and the
logits that PyTorch computes for them.
"""

import json
import pathlib
import sys

import numpy
import torch
from evaserve_ops import EvaAttention2d
from torch import nn

import vit

WINDOW, NUM_LANDMARKS = 4, 16  # of 8 x 8 patches: four windows, chunks of 2 x 2
CONFIG = {
    "inputs": [
        {
            "name": "pixel_values",
            "datatype": "FP32",
            "shape": [-1, 3, vit.IMAGE_SIZE, vit.IMAGE_SIZE],
        }
    ],
    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, vit.CLASSES]}],
}
SERVING = {"max_batch_size": 32, "max_queue_delay_ms": 2, "preferred_batch_size": [8, 16]}


class EvaOverPatches(nn.Module):
    """EVA in the place of vit.Attention, with its weights: [batch, patches, dim] -> the same."""

    def __init__(self, attention: vit.Attention) -> None:
        super().__init__()
        # What is new are two small maps of the chunks' means. As identities they make EVA an
        # approximation of the softmax; training them (the authors' code does) makes it a good one.
        self.eva = EvaAttention2d(
            vit.DIM, vit.NUM_HEADS, WINDOW, NUM_LANDMARKS, adaptive_proj="no-ln"
        )
        self.eva.qkv, self.eva.proj = attention.qkv, attention.proj
        for name in ("adaptive_mu_q", "adaptive_mu_k"):
            linear = getattr(self.eva, name)[0]
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.eva(x.unflatten(1, (vit.SIDE, vit.SIDE))).flatten(1, 2)


def write_model(folder: pathlib.Path, model_type: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **CONFIG}, indent=2))
    (folder / "serving.json").write_text(json.dumps(SERVING, indent=2))


def export_torchscript(model: nn.Module, pixels: torch.Tensor, folder: pathlib.Path) -> None:
    write_model(folder, "torchscript")
    torch.jit.freeze(torch.jit.trace(model, pixels)).save(folder / "model.pt")


def export_aot_inductor(model: nn.Module, pixels: torch.Tensor, folder: pathlib.Path) -> None:
    write_model(folder, "aot_inductor")
    program = torch.export.export(
        model, (pixels,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},)
    )
    torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    torch.manual_seed(0)
    model = vit.Vit().requires_grad_(False).eval()
    pixels = torch.randn(8, 3, vit.IMAGE_SIZE, vit.IMAGE_SIZE)
    softmax = model(pixels)
    for block in model.blocks:
        block.attn = EvaOverPatches(block.attn)
    model.requires_grad_(False).eval()
    logits = model(pixels)
    change = (logits - softmax).abs().max() / softmax.abs().max()
    print(f"EVA instead of softmax, untrained: logits change by {change:.2f} of the largest")
    export_torchscript(model, pixels[:2], folder / "vit-torchscript")
    export_aot_inductor(model, pixels[:2], folder / "vit-aot")
    numpy.savez(folder / "example.npz", pixel_values=pixels.numpy(), logits=logits.numpy())


if __name__ == "__main__":
    main()
