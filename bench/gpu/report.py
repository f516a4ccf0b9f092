#!/usr/bin/env python3
"""Tables of ours against floors, baselines and what we want, in Markdown.

    report.py FILE...     lines of gpu_bench, windows_bench, model_bench and the baselines

A ratio is the baseline's time over ours. **Bold**: not as we want it.
"""

import argparse
import json
import pathlib
from collections.abc import Iterator

# Of the device's own matrix product, by the least context that it holds for.
WANTED_SHARE = {2048: 0.66, 32768: 0.73, 131072: 0.77}
WANTED_STORE_SHARE = 0.85  # of the device's own copy
WANTED_MODEL_SHARE = 0.8  # of the time that a prefill cannot be below
# How often faster than a baseline; one that is not named here must not be faster than ours.
WANTED_RATIO = {
    ("prefill window", "triton"): 1.5,
    ("prefill ragged", "triton"): 1.8,
    ("prefill window", "flash"): 1.7,
    ("prefill window", "flash varlen"): 1.7,
    ("prefill ragged", "flash varlen"): 1.7,
    ("eva deit-tiny/8", "eager"): 8.0,
    ("eva pvtv2 stage 1", "eager"): 8.0,
}


def most_times_floor(line: dict) -> float | None:
    """What a decoding step may take, in times the bytes' floor. Nobody set it for other lines."""
    if line["op"] == "decode":
        return 1.25 if line["sequences"] >= 8 else 1.5
    return 1.2 if line["op"] == "model decode" and line["sequences"] == 1 else None


def least_share(line: dict) -> float | None:
    if line["op"] == "prefill window":
        reached = [least for least in WANTED_SHARE if least <= line["context"]]
        return WANTED_SHARE[max(reached)] if reached else None
    return WANTED_MODEL_SHARE if line["op"] == "model prefill" else None


class Tally:
    """Writes figures, and counts how many are as we want them."""

    def __init__(self):
        self.wanted = self.met = 0

    def _cell(self, text: str, is_met: bool) -> str:
        self.wanted += 1
        self.met += is_met
        return text if is_met else f"**{text}**"

    def at_least(self, text: str, value: float, wanted: float | None) -> str:
        if wanted is None:
            return text
        return self._cell(f"{text} of >= {wanted}", round(value, 2) >= wanted)

    def at_most(self, text: str, value: float, wanted: float | None) -> str:
        if wanted is None:
            return text
        return self._cell(f"{text} of <= {wanted}", round(value, 2) <= wanted)


def floor_cell(line: dict, tally: Tally) -> str:
    if "times_floor" in line:
        times = line["times_floor"]
        return tally.at_most(f"{times:.2f}x", times, most_times_floor(line))
    share = line.get("share_of_multiply", line.get("share"))
    return tally.at_least(f"{share:.2f}", share, least_share(line))


def baseline_cell(ours: dict, theirs: dict | None, tally: Tally) -> str:
    if theirs is None or "attend_us" not in theirs:
        return "-"
    ratio = theirs["attend_us"] / ours["attend_us"]
    wanted = WANTED_RATIO.get((ours["op"], theirs["backend"]), 1.0)
    return tally.at_least(f"{theirs['attend_us']:.1f}: {ratio:.2f}x", ratio, wanted)


def name(line: dict) -> tuple[str, int, int]:
    return line["op"], line["context"], line.get("sequences", 1)


def table(columns: list[str], rows: list[list]) -> Iterator[str]:
    if not rows:
        return
    yield "| " + " | ".join(columns) + " |"
    yield "|" + " --- |" * len(columns)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"
    yield ""


def attention(ours: list[dict], baselines: list[dict], tally: Tally) -> Iterator[str]:
    theirs = {(name(line), line["backend"]): line for line in baselines}
    backends = list(dict.fromkeys(line["backend"] for line in baselines))
    rows = []
    for line in ours:
        cells = [baseline_cell(line, theirs.get((name(line), b)), tally) for b in backends]
        rows.append([*name(line), f"{line['attend_us']:.1f}", floor_cell(line, tally), *cells])
    columns = ["attention", "context", "sequences", "ours, us", "share of product, times floor"]
    yield from table(columns + [f"{backend}, us: ratio" for backend in backends], rows)


def storing(ours: list[dict], tally: Tally) -> Iterator[str]:
    rows = []
    for line in ours:
        share = line["share_of_copy"]
        cell = tally.at_least(f"{share:.2f}", share, WANTED_STORE_SHARE)
        rows.append([*name(line), f"{line['store_us']:.1f}", cell])
    yield from table(["storing", "context", "sequences", "ours, us", "share of copy"], rows)


def models(ours: list[dict], tally: Tally) -> Iterator[str]:
    rows = [[*name(line), line["ms"], floor_cell(line, tally)] for line in ours]
    yield from table(["model", "context", "sequences", "ours, ms", "share of, times floor"], rows)


def report(lines: list[dict]) -> Iterator[str]:
    steps = [line for line in lines if "op" in line]
    ours = [line for line in steps if "backend" not in line]
    baselines = [line for line in steps if "backend" in line]
    tally = Tally()
    yield "# On the device\n"
    for line in lines:
        if "op" not in line:
            yield "- " + ", ".join(f"{field}: {value}" for field, value in line.items())
    yield ""
    yield from attention([line for line in ours if "attend_us" in line], baselines, tally)
    yield from storing([line for line in ours if "store_us" in line], tally)
    yield from models([line for line in ours if "ms" in line], tally)
    yield f"{tally.met} of {tally.wanted} figures are as we want them."
    for line in baselines:
        for error in line.get("errors", []):
            yield f"- {' '.join(map(str, name(line)))}, {line['backend']}: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    lines = []
    for path in parser.parse_args().files:
        texts = path.read_text().splitlines()
        lines += [json.loads(text) for text in texts if text.startswith("{")]
    print("\n".join(report(lines)))


if __name__ == "__main__":
    main()
