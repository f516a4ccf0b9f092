#!/usr/bin/env python3
"""Breaks the attention kernels, one place at a time, and fails if their tests do not notice.

Not here is what the emulator does not model and so cannot notice: fences, waits of a warp's lanes
for each other before an instruction of the whole warp, and what blocks do to each other when they
run at once. Nor what changes the time alone, such as the turns at the tensor cores.

With CHECK_MINUTES in the environment no further one is begun after so many minutes; which come
first is drawn, by the commit, so that in time all do.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOLDER = "kernels/cuda"
RUN_SECONDS = 60  # a test that hangs has noticed


class Mutation(NamedTuple):
    name: str
    file: str
    before: str  # occurs once in the file
    after: str
    test: str  # its source is TEST_test.cc
    filter: str = "*"  # of the tests, one of which must fail


def wide(name: str, before: str, after: str = "", filter: str = "*") -> Mutation:
    return Mutation(name, "attend_wide.cuh", before, after, "attend_wide", filter)


def narrow(name: str, before: str, after: str = "", filter: str = "*") -> Mutation:
    return Mutation(name, "attend_narrow.cuh", before, after, "attend_narrow", filter)


def portable(name: str, before: str, after: str = "", filter: str = "*") -> Mutation:
    return Mutation(name, "attend_portable.cuh", before, after, "attend_portable", filter)


def floats(name: str, before: str, after: str = "", filter: str = "*") -> Mutation:
    return Mutation(name, "attend_float.cuh", before, after, "attend_float", filter)


HALVES = ("attend_wide", "attend_narrow", "attend_portable")
ALL = (*HALVES, "attend_float")


def mask(
    name: str, before: str, after: str, filter: str = "*", tests: tuple[str, ...] = ALL
) -> list[Mutation]:
    """Of what kernels share: the tests of each must notice."""
    return [Mutation(name, "attend_args.h", before, after, test, filter) for test in tests]


def tile(name: str, before: str, after: str = "", filter: str = "*") -> list[Mutation]:
    tests = ("attend_portable", "window_attend")
    return [Mutation(name, "mma_tile.cuh", before, after, test, filter) for test in tests]


def window(name: str, before: str, after: str = "", filter: str = "*bfloat16*") -> Mutation:
    return Mutation(name, "window_attend.cuh", before, after, "window_attend", filter)


def window_float(name: str, before: str, after: str = "") -> Mutation:
    return Mutation(name, "window_attend_float.cuh", before, after, "window_attend", "*float32*")


def seen(name: str, before: str, after: str = "", types: str = "*float*") -> Mutation:
    """Of what window_attend's kernels share."""
    return Mutation(name, "window_args.h", before, after, "window_attend", types)


def landmarks(name: str, before: str, after: str = "") -> Mutation:
    return Mutation(name, "landmarks.cuh", before, after, "landmarks")


TREE, NORMALISER, COUNTERS = "*Tree*", "*Normaliser*", "*Counters*"

MUTATIONS = [
    # What waits for what.
    wide("barriers used before they are made", "  ptx::SyncBlock();\n"),
    wide(
        "keys loaded over keys in use",
        "ptx::Wait(shared.keys_empty(at.stage), at.parity);",
    ),
    wide(
        "values loaded over values in use",
        "ptx::Wait(shared.values_empty(at.stage), at.parity);",
    ),
    wide(
        "queries loaded over queries in use",
        "ptx::Wait(shared.queries_empty(), queries_parity);",
    ),
    wide("no wait for queries", "ptx::Wait(shared.queries_full(), queries_parity);"),
    wide("no wait for the first keys", "ptx::Wait(shared.keys_full(at.stage), at.parity);"),
    wide("no wait for keys", "ptx::Wait(shared.keys_full(next.stage), next.parity);"),
    wide(
        "no wait for values",
        "IssueKeys(next.stage);\n    ptx::Wait(shared.values_full(at.stage), at.parity);",
        "IssueKeys(next.stage);",
    ),
    wide(
        "no wait for the last values",
        "ptx::Arrive(shared.queries_empty());\n"
        "    ptx::Wait(shared.values_full(at.stage), at.parity);",
        "ptx::Arrive(shared.queries_empty());",
    ),
    wide(
        "no wait for the first logits",
        "ptx::WaitForWgmmas<0>();\n    ptx::Pin(s);\n    ptx::Arrive(shared.keys_empty(at.stage));",
        "ptx::Arrive(shared.keys_empty(at.stage));",
    ),
    wide("no wait for logits", "ptx::WaitForWgmmas<1>();"),
    wide(
        "no wait for sums",
        "ptx::WaitAgain(shared.values_full(at.stage), at.parity);\n    ptx::WaitForWgmmas<0>();",
    ),
    wide(
        "no wait for the last sums",
        "IssueValues(at.stage, accumulate);\n    ptx::WaitForWgmmas<0>();",
        "IssueValues(at.stage, accumulate);",
    ),
    wide(
        "first keys given back while in use",
        "ptx::WaitForWgmmas<0>();\n    ptx::Pin(s);\n    ptx::Arrive(shared.keys_empty(at.stage));",
        "ptx::Arrive(shared.keys_empty(at.stage));\n    ptx::WaitForWgmmas<0>();",
    ),
    wide(
        "values given back while in use",
        "    ptx::WaitForWgmmas<0>();\n    ptx::Pin(out);\n"
        "    ptx::Arrive(shared.values_empty(at.stage));\n    EVA",
        "    ptx::Arrive(shared.values_empty(at.stage));\n    ptx::WaitForWgmmas<0>();\n    EVA",
    ),
    wide(
        "last values given back while in use",
        "    ptx::WaitForWgmmas<0>();\n    ptx::Pin(out);\n"
        "    ptx::Arrive(shared.values_empty(at.stage));\n    at =",
        "    ptx::Arrive(shared.values_empty(at.stage));\n    ptx::WaitForWgmmas<0>();\n    at =",
    ),
    narrow("no wait for copies", "ptx::WaitForCopies<kStages - 2>();"),
    narrow("a wait for too few copies", "WaitForCopies<kStages - 2>", "WaitForCopies<kStages - 1>"),
    narrow("results stored over slots in use", "ptx::SyncBlock();  // the stages are free"),
    narrow("no wait for other warps' results", "ptx::SyncBlock();\n    if (split", "if (split"),
    narrow("slots loaded over results in use", "ptx::SyncBlock();  // the results are read"),
    narrow(
        "no wait for who is the last",
        "ptx::SyncBlock();\n    ptx::FenceMemory();\n    return",
        "return",
    ),
    portable("no wait for copies", "ptx::WaitForCopies<0>();"),
    portable("no wait for other threads' copies", "ptx::SyncBlock();"),
    floats("no wait for the query", "+ lane];\n    ptx::SyncWarp();", "+ lane];"),
    floats("no wait for weights", "ptx::SyncWarp();\n      AddValues", "AddValues"),
    # Which buffer.
    wide("keys of the wrong stage", "IssueKeys(next.stage);", "IssueKeys(at.stage);"),
    wide("a parity that never turns", "parity ^ stage}", "parity}"),
    narrow("slots loaded over slots in use", "(stage + kStages - 1) % kStages);", "stage);"),
    narrow("the wrong stage", "stage = (stage + 1) % kStages;", "stage = stage ^ 1;"),
    portable("slots loaded over slots in use", "1 - stage);", "stage);"),
    # What was never written.
    wide("no zeros for values", "if (num_written == kCudaPageSlots)", "if (true)"),
    narrow("no zeros for values", "from + Image::kBytes, is_written", "from + Image::kBytes, true"),
    portable(
        "no zeros for values",
        "from + Image::kBytes + offset, is_written",
        "from + Image::kBytes + offset, true",
    ),
    *mask(
        "a slot too many taken for written",
        "left = sequence_.num_window - begin;",
        "left = sequence_.num_window - begin + 1;",
        tests=HALVES,  # attend_float asks for what is seen alone
    ),
    *mask(
        "a summary too many taken for written",
        "left = sequence_.num_summaries - block * kSlots;",
        "left = sequence_.num_summaries - block * kSlots + 1;",
        tests=HALVES,
    ),
    floats("values added that were never written", "if ((visible >> slot & 1) == 0) continue;"),
    # What is seen.
    *mask("a slot too few seen", "left : first_slot_ + 1 -", "left : first_slot_ -"),
    *mask("a slot too many seen", "left : first_slot_ + 1 -", "left : first_slot_ + 2 -"),
    *mask("a summary too many seen", "result.visible = left;", "result.visible = left + 1;"),
    *mask("a slot too few before a tree", "LowBits(own))", "LowBits(own - 1))", TREE),
    *mask("a tree a slot too late", "tree[0] << own", "tree[0] << (own + 1)", TREE),
    *mask("a tree's words joined a bit off", "<< (32 - shift)", "<< (31 - shift)", TREE),
    *mask("a tree's next word not read", "first + 1 < num_words", "false", TREE),
    wide("a masked block too few", "i < num_masked;", "i + 1 < num_masked;"),
    narrow("a masked block too few", "i < walk.num_masked()", "i + 1 < walk.num_masked()"),
    portable("a masked block too few", "i < walk.num_masked()", "i + 1 < walk.num_masked()"),
    floats("keys of another block", "block.begin + lane", "lane"),
    floats("values of another block", "block.begin + slot", "slot"),
    floats("rows that are not the sequence's", "if (row >= sequence.num_queries) return;"),
    # The softmax.
    wide("rows that have seen nothing", "fmaxf(top, 0.5f * kHidden)", "top"),
    *tile("rows that have seen nothing", "fmaxf(max, 0.5f * kHidden)", "max"),
    wide("sums with the old maximum", "out[i] *= correction[i / 2 % 2];", ""),
    wide("a normaliser with the old maximum", "sum[r] * correction[r] +", "sum[r] +", NORMALISER),
    wide("lanes with different maxima", "top = fmaxf(top, ptx::ShuffleXor(top, 2));"),
    wide("lse without the maximum", "max[r] * args.scale_log2 +", "", NORMALISER),
    narrow("sums with the old maximum", "out[d][2 * r + 1] *= correction;"),
    narrow("a normaliser with the old maximum", "softmax.sum[r] *= correction;", "", NORMALISER),
    narrow("lse without the maximum", "joined.max * attend.scale_log2 +", "", NORMALISER),
    narrow("results joined without their maxima", "one[kHeadDim] - joined.max", "0.f"),
    narrow("counters that are not reset", "if (*is_last != 0) *arrived = 0;", "", COUNTERS),
    *tile("sums with the old maximum", "out[d][2 * r + 1] *= correction;"),
    *tile("lse without the maximum", "softmax.max[r] * scale_log2 +"),
    floats("lanes with different maxima", "step *= 2) max", "step *= 4) max"),
    floats("sums with the old maximum", "out[i] *= correction;", ";"),
    floats("a normaliser with the old maximum", "softmax.sum, correction,", "softmax.sum, 1.f,"),
    floats("a normaliser without some slots", "step *= 2) sum", "step *= 4) sum", NORMALISER),
    floats("lse without the maximum", "softmax.max * args.scale_log2 +", "", NORMALISER),
    # The paper's EVA: what waits for what.
    window("no wait for copies", "ptx::WaitForCopies<0>();"),
    window("no wait for other threads' copies", "ptx::SyncBlock();"),
    window("columns loaded over columns in use", "1 - stage);", "stage);"),
    window_float("no wait for the query", "q[d];\n    ptx::SyncWarp();", "q[d];"),
    window_float("no wait for weights", "ptx::SyncWarp();\n      AddValues", "AddValues"),
    landmarks("no wait for means", "ptx::SyncBlock();\n    MapMeans();", "MapMeans();"),
    landmarks("no wait for mapped means", "MapMeans();\n    ptx::SyncBlock();", "MapMeans();"),
    # Who sees whom.
    seen("a key too few", "args.extension + row + 1", "args.extension + row"),
    seen("a key too many", "args.extension + row + 1", "args.extension + row + 2"),
    seen(
        "the landmark of the own chunk",
        "position / args.causal_chunk",
        "position / args.causal_chunk + 1",
    ),
    seen(
        "a landmark too many",
        "FirstBits(landmarks + seen.landmarks)",
        "FirstBits(landmarks + seen.landmarks + 1)",
    ),
    seen("places between keys and landmarks", " & ~FirstBits(landmarks)"),
    seen(
        "places outside of the tokens",
        "static_cast<uint32_t>(args.tables[at]) & FirstBits",
        "FirstBits",
    ),
    seen(
        "what no row of a tile sees",
        "tile.row_begin + tile.num_rows - 1",
        "tile.row_begin + tile.num_rows + 16",
        "*bfloat16*",
    ),
    seen("rows that are not the tile's", "if (row >= tile.row_begin + tile.num_rows) return -1;"),
    seen(
        "landmarks of the first head",
        "int64_t{head} * item.num_landmarks + landmark",
        "landmark",
    ),
    seen(
        "a block of landmarks left out",
        "first_landmark - num_key_blocks_ : 0",
        "first_landmark - num_key_blocks_ + 1 : 0",
    ),
    window("nothing hidden", "Hide(first, s);"),
    window("places outside written", "if (query < 0) continue;"),
    landmarks(
        "a place outside that weighs",
        "is_there ? ptx::Exp2(logit - max) : 0.f",
        "ptx::Exp2(logit - max)",
    ),
    landmarks(
        "members of the first chunk",
        "int64_t{chunk} * group.num_members + member",
        "member",
    ),
    landmarks("landmarks stored over the first ones", "group.landmark + chunk;", "chunk;"),
    # The numbers.
    window("a bias scaled with the logits", "= 1.f / args.scale;", "= 1.f;"),
    window(
        "a bias of the first rows",
        "int64_t{row} * item.window_keys",
        "int64_t{lane / 4} * item.window_keys",
    ),
    window("a bias for landmarks", "if (column >= item.window_keys) continue;"),
    window("rows written to the end of the tile", "if (d * 8 >= args.head_dim) continue;"),
    window_float("sums with the old maximum", "out[i] *= correction;", ";"),
    window_float(
        "a bias scaled with the logits",
        "args.bias[pair], 1.f / args.scale, dot",
        "args.bias[pair], 1.f, dot",
    ),
    window_float("lse without the maximum", "softmax.max * scale_log2 +"),
    landmarks(
        "means of queries for those of keys",
        "StoreMean(args.k, 1, chunk)",
        "StoreMean(args.q, 1, chunk)",
    ),
    landmarks("keys' squares not halved", "mu.at[d] - 0.5f * k.at[d]", "mu.at[d] - k.at[d]"),
    landmarks("sums with the old maximum", "sum.values.at[i] * correction)", "sum.values.at[i])"),
    landmarks(
        "rows joined without their maxima",
        "sum.values.at[i] *= factor;\n        sum",
        "sum",
    ),
    landmarks(
        "a chunk without tokens",
        "sum.weights > 0.f ? 1.f / sum.weights : 0.f",
        "1.f / sum.weights",
    ),
]
TESTS = sorted({mutation.test for mutation in MUTATIONS})
UNCHANGED = [Mutation("nothing", f"{test}.cuh", "", "", test) for test in TESTS]


class Workshop:
    """Builds and runs the tests of changed kernels in a folder of its own. Thread-safe."""

    # Half of what a test compiles, hence compiled once.
    COMMON_HEADERS = ["gtest/gtest.h", "algorithm", "random", "vector", "kernels/cuda/ptx.h"]

    def __init__(self, folder: pathlib.Path, compiler: str, libraries: list[str]):
        self._folder = folder
        self._compile = [compiler, "-std=c++20", "-O1"]
        self._link = [*libraries, "-lgtest_main", "-lgtest", "-lboost_context", "-pthread"]
        self._link += output_of(["pkg-config", "--libs", "absl_statusor", "absl_strings"]).split()
        self._common = folder / "common.h"
        self._common.write_text("".join(f'#include "{name}"\n' for name in self.COMMON_HEADERS))
        compiled = f"{self._common}.gch"
        output_of(self._compile + [f"-I{ROOT}", "-x", "c++-header", self._common, "-o", compiled])

    def passes(self, mutation: Mutation) -> bool:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            program = self._build(mutation, pathlib.Path(folder))
            command = [program, f"--gtest_filter={mutation.filter}", "--gtest_fail_fast"]
            try:
                done = subprocess.run(command, capture_output=True, timeout=RUN_SECONDS)
            except subprocess.TimeoutExpired:
                return False
            return done.returncode == 0

    def _build(self, mutation: Mutation, folder: pathlib.Path) -> pathlib.Path:
        # Includes are given from the root, so the changed file hides the one it was made from.
        changed = folder / FOLDER / mutation.file
        changed.parent.mkdir(parents=True)
        changed.write_text(apply(mutation))
        program = folder / "program"
        source = ROOT / FOLDER / f"{mutation.test}_test.cc"
        includes = ["-include", self._common, f"-I{folder}", f"-I{ROOT}"]
        output_of(self._compile + includes + [source, "-o", program] + self._link)
        return program


def apply(mutation: Mutation) -> str:
    text = (ROOT / FOLDER / mutation.file).read_text()
    if mutation in UNCHANGED:
        return text
    if text.count(mutation.before) != 1:
        raise ValueError(f"{mutation.file} should hold this once: {mutation.before}")
    return text.replace(mutation.before, mutation.after)


def in_drawn_order(mutations: list[Mutation]) -> list[Mutation]:
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True).stdout
    return random.Random(commit).sample(mutations, len(mutations))


def output_of(command: list) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", metavar="WORDS", help="in the mutation's name")
    parser.add_argument("libraries", nargs="+", help="of the tests, in the order of linking")
    args = parser.parse_args()

    mutations = [mutation for mutation in MUTATIONS if args.only in mutation.name]
    end = float("inf")
    if minutes := os.environ.get("CHECK_MINUTES"):
        end = time.monotonic() + 60 * float(minutes)
        mutations = in_drawn_order(mutations)
    num_tried, num_wrong = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(pathlib.Path(folder), args.compiler, args.libraries)

        def passes_in_time(case: Mutation) -> bool | None:
            return workshop.passes(case) if time.monotonic() < end else None

        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            cases = UNCHANGED + mutations
            for case, passes in zip(cases, pool.map(passes_in_time, cases)):
                if passes is None:
                    continue
                num_tried += case not in UNCHANGED
                is_right = passes == (case in UNCHANGED)
                num_wrong += not is_right
                verdict = f"{'passes' if passes else 'fails'}{'' if is_right else ', WRONG'}"
                print(f"{case.test}_test, {case.name}: {verdict}", flush=True)
    print(f"{num_tried} of {len(mutations)} mutations, {num_wrong} wrong")
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
