#!/usr/bin/env python3
"""The Triton kernel against plain attention, on the CPU by Triton's interpreter.

Skipped (77) without Triton or PyTorch, or with a NumPy that the interpreter does not work with:
Triton 3.6 needs one before 2.4. On a device baselines.py compares every answer that it times.
"""

import os
import sys
import unittest

os.environ["TRITON_INTERPRET"] = "1"
SKIPPED = 77

try:
    import numpy
    import torch
    import triton
    import triton_baseline
    from slots import Batch, Sequence, Slots
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(SKIPPED)

if triton.__version__ < "3.7" and numpy.__version__ >= "2.4":
    print(f"skipped: Triton {triton.__version__} with NumPy {numpy.__version__}")
    sys.exit(SKIPPED)

# The interpreter multiplies the bits of bfloat16, so it is left to the device.
TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-3}
TILINGS = [tiling for tiling in triton_baseline.TILINGS if tiling.queries == 64]


class TritonBaselineTest(unittest.TestCase):
    def compare(self, *sequences: Sequence) -> None:
        batch = Batch("prefill", 0, sequences, heads=2, head_dim=32)
        for dtype, tolerance in TOLERANCES.items():
            slots = Slots(batch, "cpu", dtype)
            exact = slots.exact()
            for tiling in TILINGS:
                with self.subTest(dtype=dtype, tiling=tiling):
                    out = triton_baseline.prepare(slots, tiling)().float()
                    self.assertLess(((out - exact).norm() / exact.norm()).item(), tolerance)

    def test_full_blocks(self):
        self.compare(Sequence(256, 128, 256))

    def test_the_first_window_has_no_summaries(self):
        self.compare(Sequence(128, 0, 128))

    def test_queries_begin_within_a_window(self):
        self.compare(Sequence(64, 128, 256))

    def test_nothing_is_a_multiple_of_a_block(self):
        self.compare(Sequence(70, 0, 70), Sequence(33, 24, 150), Sequence(1, 130, 1))


if __name__ == "__main__":
    unittest.main()
