#!/usr/bin/env python3
"""Packages for test_packages.py, some of which are wrong: make_packages.py FOLDER, in PyTorch's Python
with evaserve-ops. Beside each is what it takes and what PyTorch makes of it, as .npz."""

import json
import pathlib
import shutil
import sys

import numpy
import torch
from evaserve_ops import EvaAttention1d
from torch import nn

VOCABULARY, DIM = 50, 16
LENGTHS = (5, 17, 40, 5, 1)


def spec(name: str, datatype: str, *shape: int) -> dict:
    return {"name": name, "datatype": datatype, "shape": [-1, *shape]}


def declare(folder: pathlib.Path, model_type: str, inputs: list, outputs: list) -> None:
    config = {"model_type": model_type, "inputs": inputs, "outputs": outputs}
    (folder / "config.json").write_text(json.dumps(config))


def write_aot_inductor(folder: pathlib.Path, inputs: list) -> None:
    """A linear layer of four numbers, whatever is declared."""
    folder.mkdir()
    declare(folder, "aot_inductor", inputs, [spec("y", "FP32", 4)])
    layer = nn.Linear(4, 4).requires_grad_(False)
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(layer, (torch.randn(2, 4),), dynamic_shapes=sizes)
    torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(folder / "model.pt2"),
        # Otherwise it compiles a program for each to see whether it runs.
        inductor_configs={"cpp.vec_isa_ok": True},
    )


def write(folder: pathlib.Path, module: nn.Module, inputs: list, outputs: list, **serving) -> None:
    folder.mkdir(parents=True)
    declare(folder, "torchscript", inputs, outputs)
    if serving:
        (folder / "serving.json").write_text(json.dumps(serving))
    module.save(folder / "model.pt")


class Encoder(nn.Module):
    """The tokens of all rows, one after the other, and each row's number of them -> hidden states of
    the tokens, and for each row their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, DIM)
        self.attention = EvaAttention1d(
            DIM, 2, window_size=4, num_landmarks=2, overlap_window=True, use_t5_rpe=True
        )

    def forward(
        self, ids: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.attention(self.embedding(ids).unsqueeze(0), lengths).squeeze(0)
        rows = torch.arange(lengths.shape[0]).repeat_interleave(lengths)
        sums = torch.zeros(lengths.shape[0], hidden.shape[1]).index_add(0, rows, hidden)
        return hidden, sums / lengths.unsqueeze(1)


def write_ragged(folder: pathlib.Path) -> None:
    torch.manual_seed(1)
    encoder = Encoder().requires_grad_(False).eval()
    ids = [torch.randint(VOCABULARY, (length,)) for length in LENGTHS]
    example = (torch.cat(ids), torch.tensor(LENGTHS))
    inputs = [spec("ids", "INT64", -1)]
    outputs = [spec("hidden", "FP32", -1, DIM), spec("mean", "FP32", DIM)]
    ragged = {"inputs": ["ids"], "outputs": ["hidden"]}
    script = torch.jit.trace(encoder, example)
    write(folder / "ragged", script, inputs, outputs, ragged=ragged, max_queue_delay_ms=200)
    hidden, mean = encoder(*example)
    arrays = {"ids": example[0], "lengths": example[1], "hidden": hidden, "mean": mean}
    numpy.savez(folder / "ragged.npz", **{name: array.numpy() for name, array in arrays.items()})


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)  # in place: a request that comes again must not find it done


class Types(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        return [~a, b + 1]


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    write_ragged(folder)
    double = torch.jit.script(Double())
    x = spec("x", "FP32", 4)
    write(folder / "double", double, [x], [spec("y", "FP32", 4)])
    types = [spec("a", "BOOL", 2), spec("b", "FP16", 2)]
    write(folder / "types", torch.jit.script(Types()), types, types)
    write(folder / "wrong-output", double, [x], [spec("y", "FP32", 5)])
    bad = folder / "bad"
    write(bad / "wrong-inputs", double, [x, spec("z", "FP32")], [spec("y", "FP32", 4)])
    write(bad / "no-package", double, [x], [x])
    (bad / "no-package" / "model.pt").write_bytes(b"not TorchScript")
    write_aot_inductor(folder / "aot-shape", [spec("x", "FP32", 3)])
    (bad / "aot-inputs").mkdir()
    shutil.copy(folder / "aot-shape" / "model.pt2", bad / "aot-inputs")
    declare(bad / "aot-inputs", "aot_inductor", [x, spec("z", "FP32")], [spec("y", "FP32", 4)])


if __name__ == "__main__":
    main()
