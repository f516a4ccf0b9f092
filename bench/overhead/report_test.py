#!/usr/bin/env python3
"""report.py on made-up samples."""

import unittest

import report
from report import Sample, Series, Target


def sample(rate: float = 100, p50_us: float = 1000) -> Sample:
    return Sample(rate, p50_us, p50_us * 2, 50)


def from_cpp(server: str, concurrency: int = 32) -> Series:
    return Series(server, "C++", concurrency)


class ReportTest(unittest.TestCase):
    def test_compares_round_by_round(self) -> None:
        # The machine was ten times slower in the second round, for both.
        samples = {
            from_cpp("evaserve"): [sample(70), sample(7), sample(90)],
            from_cpp("echo"): [sample(100), sample(10), sample(100)],
        }
        self.assertAlmostEqual(report.targets(samples)[0].reached, 0.7)

    def test_extra_latency_is_in_ms(self) -> None:
        samples = {
            from_cpp("evaserve", 1): [sample(p50_us=250)],
            from_cpp("echo", 1): [sample(p50_us=170)],
        }
        latency = report.targets(samples)[-1]
        self.assertAlmostEqual(latency.reached, 0.08)
        self.assertTrue(latency.is_met)

    def test_what_has_no_samples_is_not_measured(self) -> None:
        samples = {from_cpp("evaserve"): [sample(90)], from_cpp("echo"): [sample(100)]}
        floor, mlserver, kserve, latency = report.targets(samples)
        self.assertTrue(floor.is_met)
        for target in (mlserver, kserve, latency):
            self.assertIsNone(target.reached)
            self.assertFalse(target.is_met)
            self.assertIn("not measured", target.cells())

    def test_limits_are_least_or_most(self) -> None:
        self.assertTrue(Target("", 8, 8, True, "x").is_met)
        self.assertFalse(Target("", 7.9, 8, True, "x").is_met)
        self.assertTrue(Target("", 5, 5, False, " ms").is_met)
        self.assertFalse(Target("", 5.1, 5, False, " ms").is_met)

    def test_missed_is_said(self) -> None:
        lines = list(report.verdicts([Target("a", 1, 2, True, "x"), Target("b", 3, 2, True, "x")]))
        self.assertIn("missed", lines[2])
        self.assertNotIn("missed", lines[3])
        self.assertEqual(lines[-1], "1 of 2 targets reached, 0 not measured")

    def test_a_row_has_medians_and_the_share_of_the_floor(self) -> None:
        samples = {
            from_cpp("echo"): [sample(1000), sample(2000), sample(3000)],
            from_cpp("kserve"): [sample(100), sample(100), sample(600)],
        }
        kserve = list(report.calls(samples))[3].split()
        self.assertEqual(kserve[1:12:2], ["kserve", "C++", "32", "100", "0.10", "1.000"])


if __name__ == "__main__":
    unittest.main()
