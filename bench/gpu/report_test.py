#!/usr/bin/env python3
"""The report of a few lines, some of which are as we want them and some not."""

import json
import unittest

import report

LINES = """
{"device": "a device", "compute_capability": 90}
{"floor": "multiply", "tflops": 700.0}
{"op": "prefill window", "context": 8192, "attend_us": 100.0, "share_of_multiply": 0.66, \
"store_us": 20.0, "share_of_copy": 0.84}
{"op": "prefill window", "context": 131072, "attend_us": 200.0, "share_of_multiply": 0.76, \
"store_us": 30.0, "share_of_copy": 0.85}
{"op": "decode", "context": 8192, "sequences": 1, "attend_us": 9.0, "times_floor": 1.5}
{"op": "decode", "context": 8192, "sequences": 8, "attend_us": 30.0, "times_floor": 1.26}
{"op": "prefill ragged", "context": 33333, "sequences": 4, "attend_us": 50.0, \
"share_of_multiply": 0.5}
{"op": "model prefill", "context": 2048, "ms": 41.25, "share": 0.848}
{"op": "model decode", "context": 2048, "sequences": 1, "ms": 4.1, "times_floor": 1.31}
{"op": "model decode", "context": 2048, "sequences": 8, "ms": 9.1, "times_floor": 2.0}
{"op": "eva deit-tiny/8", "context": 784, "sequences": 8, "attend_us": 20.0, \
"landmarks_us": 8.0, "times_floor": 3.0}
{"op": "eva wiki103", "context": 512, "sequences": 1, "attend_us": 30.0, "landmarks_us": 9.0, \
"times_floor": 4.0}
{"backend": "flashinfer", "skipped": "not installed"}
{"op": "prefill window", "context": 8192, "sequences": 1, "backend": "flash", "attend_us": 171}
{"op": "prefill window", "context": 8192, "sequences": 1, "backend": "triton", "attend_us": 149}
{"op": "prefill window", "context": 131072, "sequences": 1, "backend": "flash", \
"errors": ["RuntimeError: no kernel"]}
{"op": "decode", "context": 8192, "sequences": 8, "backend": "flash", "attend_us": 30.0}
{"op": "prefill ragged", "context": 33333, "sequences": 4, "backend": "triton", "attend_us": 85.0}
{"op": "eva deit-tiny/8", "context": 784, "sequences": 8, "backend": "eager", "attend_us": 150.0}
"""


class ReportTest(unittest.TestCase):
    def setUp(self):
        lines = [json.loads(line) for line in LINES.strip().splitlines()]
        self.report = list(report.report(lines))

    def expect_row(self, *cells: str) -> None:
        self.assertIn("| " + " | ".join(cells) + " |", self.report)

    def test_a_window_is_held_to_the_product_and_to_each_baseline(self):
        self.expect_row(
            *("prefill window", "8192", "1", "100.0", "0.66 of >= 0.66"),
            *("171.0: 1.71x of >= 1.7", "**149.0: 1.49x of >= 1.5**", "-"),
        )

    def test_a_baseline_without_a_time_has_no_ratio_but_its_error_is_told(self):
        self.expect_row("prefill window", "131072", "1", "200.0", "**0.76 of >= 0.77**", *"---")
        self.assertIn("- prefill window 131072 1, flash: RuntimeError: no kernel", self.report)

    def test_decoding_is_held_to_its_bytes_by_the_number_of_sequences(self):
        self.expect_row("decode", "8192", "1", "9.0", "1.50x of <= 1.5", *"---")
        self.expect_row(
            *("decode", "8192", "8", "30.0", "**1.26x of <= 1.25**"),
            *("30.0: 1.00x of >= 1.0", "-", "-"),
        )

    def test_ragged_batches_are_held_to_more(self):
        self.expect_row(
            "prefill ragged", "33333", "4", "50.0", "0.50", "-", "**85.0: 1.70x of >= 1.8**", "-"
        )

    def test_the_papers_eva_is_held_to_eager_operations(self):
        self.expect_row(
            *("eva deit-tiny/8", "784", "8", "20.0", "3.00x", "-", "-"),
            "**150.0: 7.50x of >= 8.0**",
        )

    def test_no_floor_is_set_for_the_papers_eva(self):
        self.expect_row("eva wiki103", "512", "1", "30.0", "4.00x", *"---")

    def test_storing_is_held_to_a_copy(self):
        self.expect_row("prefill window", "8192", "1", "20.0", "**0.84 of >= 0.85**")
        self.expect_row("prefill window", "131072", "1", "30.0", "0.85 of >= 0.85")

    def test_a_model_is_held_to_its_floors(self):
        self.expect_row("model prefill", "2048", "1", "41.25", "0.85 of >= 0.8")
        self.expect_row("model decode", "2048", "1", "4.1", "**1.31x of <= 1.2**")
        self.expect_row("model decode", "2048", "8", "9.1", "2.00x")

    def test_what_was_measured_where_and_what_was_not_is_told(self):
        self.assertIn("- floor: multiply, tflops: 700.0", self.report)
        self.assertIn("- backend: flashinfer, skipped: not installed", self.report)
        self.assertIn("6 of 13 figures are as we want them.", self.report)


if __name__ == "__main__":
    unittest.main()
