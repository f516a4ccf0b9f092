#!/usr/bin/env python3
"""Compiles the kernels for every architecture and fails if what nvcc makes of one got worse.

No device is needed. What a kernel may use is in compiler_report.tsv; --update writes that file
anew. Skipped (77) if nvcc is of another version than the one that the table was made with.
"""

import argparse
import concurrent.futures
import dataclasses
import pathlib
import re
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parent.parent
ROOT = FOLDER.parent.parent
TABLE = FOLDER / "compiler_report.tsv"
ARCHITECTURES = ("sm_80", "sm_89", "sm_90a")
DTYPES = ("float32", "bfloat16", "float16")  # as kernels/dtype.h counts them
WIDE = "attend_wide"  # needs sm_90a, and has a main loop that is looked at
MAX_LOOP_INSTRUCTIONS = 480
SKIPPED = 77


@dataclasses.dataclass(frozen=True)
class Report:
    """One kernel on one architecture, a row of the table. Memory is in bytes."""

    kernel: str
    architecture: str
    registers: int
    stack: int = 0
    spills: int = 0
    static_shared: int = 0
    # Of the main loop of the wide kernel.
    loop_instructions: int = 0
    loop_hgmma: int = 0
    loop_hmma: int = 0
    # Exponentials between the waits for Q K and for P V, which run while P V does.
    loop_overlapped: int = 0
    # Bulk copies in the whole kernel: its producer has them, not the loop.
    ublkcp: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return (self.kernel, self.architecture)


COLUMNS = [field.name for field in dataclasses.fields(Report)]
# What may not grow, and what must stay as it is.
LIMITS = ("registers", "static_shared", "loop_instructions")
EXACT = ("loop_hgmma", "loop_hmma", "loop_overlapped", "ublkcp")


def run(*command) -> str:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=ROOT)
    if result.returncode != 0:
        sys.exit(f"{' '.join(str(c) for c in command)}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def readable(symbol: str) -> str:
    """_ZN8evaserve16AttendWideKernelILNS_5DTypeE1ELi128EEEv...: attend_wide bfloat16 128"""
    mangled = re.match(r"_ZN8evaserve(\d+)(.*)", symbol)
    if mangled is None:
        return symbol
    length, rest = mangled.groups()
    name, arguments = rest[: int(length)], rest[int(length) :]
    words = [re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Kernel")).lower()]
    for dtype, number in re.findall(r"LNS_5DTypeE(\d)E|Li(\d+)E", arguments):
        words.append(number or DTYPES[int(dtype)])
    return " ".join(words)


def read_resources(log: str, architecture: str) -> dict[str, Report]:
    """By symbol, what `ptxas -v` says."""
    reports = {}
    for entry in log.split("Compiling entry function '")[1:]:
        symbol = entry[: entry.index("'")]

        def number(pattern: str) -> int:
            return sum(int(found) for found in re.findall(pattern, entry))

        reports[symbol] = Report(
            readable(symbol),
            architecture,
            registers=number(r"Used (\d+) registers"),
            stack=number(r"(\d+) bytes stack frame"),
            spills=number(r"(\d+) bytes spill"),
            static_shared=number(r"(\d+) bytes smem"),
        )
    return reports


def main_loop(code: list[tuple[int, str]]) -> list[str]:
    """The innermost loop with HGMMA that has the fewest instructions: nothing is masked there."""
    index = {address: i for i, (address, _) in enumerate(code)}
    loops = []
    for end, (address, instruction) in enumerate(code):
        branch = re.search(r"\bBRA\b.*\b0x([0-9a-f]+)", instruction)
        target = int(branch.group(1), 16) if branch else address
        if target < address and target in index:
            loop = [text for _, text in code[index[target] : end + 1]]
            if any("HGMMA" in text for text in loop):
                loops.append(loop)
    return min(loops, key=len, default=[])


def between_waits(loop: list[str]) -> list[str]:
    """From the wait that leaves one group of wgmmas running to the one that leaves none."""
    waits = [i for i, text in enumerate(loop) if "WARPGROUP.DEPBAR" in text]
    return loop[waits[0] : waits[-1]] if waits else []


def read_loops(sass: str, reports: dict[str, Report]) -> dict[str, Report]:
    """`reports` with what cuobjdump shows of the main loops."""
    result = {}
    for function in re.split(r"Function : ", sass)[1:]:
        symbol = function.split()[0]
        lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", function)
        code = [(int(address, 16), text) for address, text in lines]
        loop = main_loop(code)

        def count(opcode: str, texts: list[str]) -> int:
            return sum(re.search(rf"\b{opcode}\b", text) is not None for text in texts)

        result[symbol] = dataclasses.replace(
            reports[symbol],
            loop_instructions=len(loop),
            loop_hgmma=count("HGMMA", loop),
            loop_hmma=count("HMMA", loop),
            loop_overlapped=count("MUFU.EX2", between_waits(loop)),
            ublkcp=count("UBLKCP", [text for _, text in code]),
        )
    return result


def compile_one(tools, source: pathlib.Path, architecture: str) -> list[Report]:
    with tempfile.TemporaryDirectory() as folder:
        cubin = pathlib.Path(folder) / "kernels.cubin"
        options = ("-std=c++20", "-O3", f"-I{ROOT}", "--cubin", "-Xptxas", "-v")
        log = run(tools.nvcc, *options, f"-arch={architecture}", source, "-o", cubin)
        reports = read_resources(log, architecture)
        if source.stem == WIDE:
            reports = read_loops(run(tools.cuobjdump, "-sass", cubin), reports)
    if not reports:
        sys.exit(f"{source.name} has no kernels for {architecture}, or they are not understood")
    return list(reports.values())


def compile_all(tools) -> list[Report]:
    jobs = [
        (tools, source, architecture)
        for source in sorted(FOLDER.glob("*.cu"))
        for architecture in ARCHITECTURES
        if source.stem != WIDE or architecture == "sm_90a"
    ]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        lists = pool.map(lambda job: compile_one(*job), jobs)
        return sorted((r for reports in lists for r in reports), key=sort_key)


def sort_key(report: Report) -> tuple[str, list[str]]:
    return (report.architecture, [word.zfill(3) for word in report.kernel.split()])


def read_table() -> tuple[str, dict[tuple[str, str], Report]]:
    compiler, _, *rows = TABLE.read_text().splitlines()
    cells = [row.split("\t") for row in rows]
    reports = [Report(kernel, arch, *map(int, numbers)) for kernel, arch, *numbers in cells]
    return compiler.removeprefix("# "), {report.key: report for report in reports}


def write_table(compiler: str, reports: list[Report]) -> None:
    lines = [f"# {compiler}", "\t".join(COLUMNS)]
    lines += ["\t".join(str(getattr(report, c)) for c in COLUMNS) for report in reports]
    TABLE.write_text("\n".join(lines) + "\n")


def check_rules(report: Report) -> list[str]:
    """What holds whatever the table says."""
    wrong = []
    if report.spills or report.stack:
        wrong.append(f"spills {report.spills} bytes, {report.stack} bytes of stack")
    if report.kernel.startswith(WIDE):
        # Q K has a product for 16 dimensions, P V one for 16 of the 128 slots of a page.
        products = int(report.kernel.split()[-1]) // 16 + 128 // 16
        if report.loop_hgmma != products or report.loop_hmma:
            wrong.append(f"main loop: {report.loop_hgmma} HGMMA, expected {products} and no HMMA")
        if report.loop_overlapped < 64:  # a thread's weights in a step
            wrong.append(f"main loop: {report.loop_overlapped} exponentials run beside P V, not 64")
        if report.loop_instructions > MAX_LOOP_INSTRUCTIONS:
            count = report.loop_instructions
            wrong.append(f"main loop: {count} instructions, at most {MAX_LOOP_INSTRUCTIONS}")
    return wrong


def compare(now: Report, before: Report | None) -> list[str]:
    if before is None:
        return ["not in the table"]
    changes = [(name, getattr(before, name), getattr(now, name)) for name in LIMITS + EXACT]
    return [
        f"{name}: {old} in the table, now {new}"
        for name, old, new in changes
        if new > old or (name in EXACT and new != old)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--cuobjdump", default="cuobjdump")
    parser.add_argument("--update", action="store_true", help="write the table")
    tools = parser.parse_args()

    compiler = "nvcc " + re.search(r"\bV([\d.]+)", run(tools.nvcc, "--version")).group(1)
    if not tools.update:
        made_with, table = read_table()
        if made_with != compiler:
            print(f"skipped: the table was made with {made_with}, this is {compiler}")
            return SKIPPED

    reports = compile_all(tools)
    wrong = [(report.key, text) for report in reports for text in check_rules(report)]
    if tools.update:
        write_table(compiler, reports)
    else:
        wrong += [(r.key, text) for r in reports for text in compare(r, table.get(r.key))]
        gone = table.keys() - {report.key for report in reports}
        wrong += [(key, "in the table, but not compiled any more") for key in sorted(gone)]
    for (kernel, architecture), text in wrong:
        print(f"{kernel}, {architecture}: {text}")
    if wrong and not tools.update:
        print(f"If this is meant: {pathlib.Path(__file__).name} --update")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
