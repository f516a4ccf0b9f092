#!/usr/bin/env python3
"""torch.ops.eva under torch.export and AOTInductor, with batch and seq_len of any size.

    torch_export_test.py LIBRARY     the path of libevaserve_torch_ops.so

Ends with 77 where PyTorch is missing. With a device and a library that knows it, it runs there.
"""

import os
import pathlib
import sys
import tempfile
import unittest
import unittest.mock
from collections.abc import Callable, Sequence

try:
    import torch
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

NUM_HEADS, HEAD_DIM = 2, 32
HIDDEN = NUM_HEADS * HEAD_DIM
WINDOW, CHUNK = 16, 4
# batch, seq_len: around chunks and windows. What is exported with summaries has more than one of
# them, since torch.export takes neither 0 nor 1 for any number.
SIZES = ((1, 1), (3, 3), (2, 16), (5, 17), (4, 70))
SIZES_WITH_SUMMARIES = tuple(size for size in SIZES if size[1] >= 2 * CHUNK)
EXAMPLE_SIZE = (2, 33)
TOLERANCE = 1e-5

Forward = Callable[[torch.Tensor], Sequence[torch.Tensor]]


class Layer(torch.nn.Module):
    """EVA attention on projections of x, [batch, seq_len, HIDDEN]."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(HIDDEN, 3 * HIDDEN)
        self.mu = torch.nn.Parameter(torch.randn(NUM_HEADS, HEAD_DIM))
        self.phi = torch.nn.Parameter(torch.randn(NUM_HEADS, HEAD_DIM))

    def heads(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        qkv = self.qkv(x).view(*x.shape[:2], 3, NUM_HEADS, HEAD_DIM)
        return qkv.permute(2, 0, 3, 1, 4).unbind()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = torch.ops.eva.attention(*self.heads(x), self.mu, self.phi, WINDOW, CHUNK)
        return (out.transpose(1, 2).flatten(2),)


class LayerWithSummaries(Layer):
    """The same with the summary keys and values behind it."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        _, k, v = self.heads(x)
        summaries = torch.ops.eva.summarize(k, v, self.mu, self.phi, CHUNK)
        return *super().forward(x), *summaries


def test_device() -> str:
    has_kernels = torch._C._dispatch_has_kernel_for_dispatch_key("eva::attention", "CUDA")
    return "cuda" if has_kernels and torch.cuda.is_available() else "cpu"


def random_input(batch: int, seq_len: int) -> torch.Tensor:
    return torch.randn(batch, seq_len, HIDDEN, device=test_device())


def random_map(device: str) -> list[torch.Tensor]:
    """Of the mean of a chunk, with a norm."""
    sizes = (HEAD_DIM, HEAD_DIM), (HEAD_DIM,), (HEAD_DIM,), (HEAD_DIM,)
    return [torch.randn(size, device=device) for size in sizes]


def export(module: torch.nn.Module) -> torch.export.ExportedProgram:
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    return torch.export.export(module, (random_input(*EXAMPLE_SIZE),), dynamic_shapes={"x": sizes})


def make(layer: type[Layer]) -> Layer:
    return layer().requires_grad_(False).to(test_device())


class TorchExportTest(unittest.TestCase):
    def setUp(self) -> None:
        torch.manual_seed(1)

    def expect_equal(
        self, layer: Forward, other: Forward, sizes: Sequence[tuple[int, int]]
    ) -> None:
        for size in sizes:
            with self.subTest(size=size):
                x = random_input(*size)
                for out, want in zip(other(x), layer(x), strict=True):
                    torch.testing.assert_close(out, want, atol=TOLERANCE, rtol=TOLERANCE)

    def test_exports_with_any_batch_and_seq_len(self) -> None:
        layer = make(Layer)
        program = export(layer)
        self.assertIn("torch.ops.eva.attention", str(program.graph))
        self.expect_equal(layer, program.module(), SIZES)

    def test_summaries_are_as_many_as_whole_chunks(self) -> None:
        program = export(make(LayerWithSummaries))
        out, keys, values = (node.meta["val"] for node in program.graph.output_node().args[0])
        batch, seq_len, _ = out.shape
        want = (batch, NUM_HEADS, seq_len // CHUNK, HEAD_DIM)
        for summaries in (keys, values):
            self.assertEqual([str(n) for n in summaries.shape], [str(n) for n in want])

    def test_shape_functions_agree_with_the_kernels(self) -> None:
        q, k, v = torch.randn(3, 2, 33, NUM_HEADS, HEAD_DIM, device=test_device()).transpose(2, 3)
        per_head = torch.randn(2, NUM_HEADS, HEAD_DIM, device=test_device())
        maps = random_map(test_device()), random_map(test_device())
        checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
        for op, arguments in (
            (torch.ops.eva.attention, (q, k, v, *per_head, WINDOW, CHUNK)),
            (torch.ops.eva.summarize, (k, v, *per_head, CHUNK)),
            (torch.ops.eva.window_attention, (q, k, v, WINDOW, 8, *maps)),
            (torch.ops.eva.causal_attention, (q, k, v, WINDOW, CHUNK, *maps)),
        ):
            torch.library.opcheck(op.default, arguments, test_utils=checks)

    def test_a_device_gives_what_the_cpu_gives(self) -> None:
        if test_device() == "cpu":
            self.skipTest("no device")
        q, k, v = torch.randn(3, 2, NUM_HEADS, 70, HEAD_DIM)
        ragged = torch.randn(3, 1, NUM_HEADS, 70, HEAD_DIM)
        image = torch.randn(3, 2, NUM_HEADS, 8, 12, HEAD_DIM)
        maps = random_map("cpu"), random_map("cpu")
        linear = random_map("cpu")[:2]
        per_head = torch.randn(2, NUM_HEADS, HEAD_DIM)
        bias = torch.randn(NUM_HEADS, WINDOW, 2 * WINDOW)
        lengths = torch.tensor([13, 40, 1, 16])
        window, causal = torch.ops.eva.window_attention, torch.ops.eva.causal_attention
        overlap = {"overlap": True}
        for op, arguments, options in (
            (torch.ops.eva.attention, (q, k, v, *per_head, WINDOW, CHUNK), {}),
            (window, (q, k, v, WINDOW, 8, *maps), {}),
            (window, (q, k, v, WINDOW, 8, [], linear, bias), overlap),
            (window, (*ragged, WINDOW, 8, *maps, bias), {"lengths": lengths, **overlap}),
            (window, (*image, 4, 6, *maps, torch.randn(NUM_HEADS, 16, 64)), overlap),
            (causal, (q, k, v, WINDOW, CHUNK, *maps), {}),
            (causal, (*ragged, WINDOW, CHUNK, *maps, bias[0]), {"lengths": lengths, **overlap}),
        ):
            there = torch.utils._pytree.tree_map_only(torch.Tensor, lambda x: x.cuda(), arguments)
            want = op(*arguments, **options)
            with self.subTest(op=op, options=options):
                out = op(*there, **options)
                torch.testing.assert_close(out.cpu(), want, atol=1e-4, rtol=1e-4)
            for dtype in (torch.bfloat16, torch.float16):
                with self.subTest(op=op, options=options, dtype=dtype):
                    out = op(*(x.to(dtype) for x in there[:3]), *there[3:], **options)
                    error = (out.cpu().float() - want).norm() / want.norm()
                    self.assertLess(error, 3e-2 if dtype == torch.bfloat16 else 5e-3)

    def test_out_is_contiguous_where_q_is_not(self) -> None:
        for device in (test_device(), "meta"):
            q = torch.zeros(2, 9, NUM_HEADS, HEAD_DIM, device=device).transpose(1, 2)
            mu = torch.zeros(NUM_HEADS, HEAD_DIM, device=device)
            with self.subTest(device=device):
                out = torch.ops.eva.attention(q, q, q, mu, mu, WINDOW, CHUNK)
                self.assertTrue(out.is_contiguous())

    def test_shape_functions_name_the_argument_that_is_wrong(self) -> None:
        tokens = torch.empty(2, NUM_HEADS, 9, HEAD_DIM, device="meta")
        mu = torch.empty(NUM_HEADS, HEAD_DIM, device="meta")
        wrong = {
            r"v is \[2, 2, 8, 32\]": (tokens, tokens, tokens[:, :, 1:], mu, mu, WINDOW, CHUNK),
            r"q is Half": (tokens.half(), tokens, tokens, mu, mu, WINDOW, CHUNK),
            r"phi is \[1, 32\]": (tokens, tokens, tokens, mu, mu[1:], WINDOW, CHUNK),
            r"window is 10": (tokens, tokens, tokens, mu, mu, 10, CHUNK),
        }
        for message, arguments in wrong.items():
            with self.subTest(message), self.assertRaisesRegex(RuntimeError, message):
                torch.ops.eva.attention(*arguments)

    def test_runs_from_an_aot_inductor_package(self) -> None:
        layer = make(LayerWithSummaries)
        with tempfile.TemporaryDirectory() as folder:
            with unittest.mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder):
                path = str(pathlib.Path(folder) / "layer.pt2")
                torch._inductor.aoti_compile_and_package(
                    export(layer),
                    package_path=path,
                    # Otherwise it compiles a program for each to see whether it runs.
                    inductor_configs={"cpp.vec_isa_ok": True},
                )
                package = torch._inductor.aoti_load_package(path)
            self.expect_equal(layer, package, SIZES_WITH_SUMMARIES)


if __name__ == "__main__":
    torch.ops.load_library(sys.argv.pop(1))
    unittest.main()
