"""Extracts the training text of the demo model: Jane Austen's six novels (public domain).

The novels come from Debian's package r-cran-janeaustenr (MIT), which carries them as an R data
base. Lines are joined into paragraphs, because people do not type a line break every 72 columns.
Writes train.txt and heldout.txt; the held-out part is the end of "Persuasion" and is in no other
file.

    python3 prepare_text.py --out DIR [--package FILE.deb]
"""

import argparse
import pathlib
import subprocess
import tempfile
import warnings
import zlib

import rdata

PACKAGE = "r-cran-janeaustenr"
DATABASE = "usr/lib/R/site-library/janeaustenr/data/Rdata"
ZLIB_OR_GZIP = 47  # "wbits" that accept either header
HELDOUT_NOVEL = "persuasion"
HELDOUT_BYTES = 128 * 1024


def fetch_package(folder: pathlib.Path) -> pathlib.Path:
    subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=folder, check=True)
    return next(folder.glob(f"{PACKAGE}_*.deb"))


def read_r_value(compressed: bytes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "assumed RDS": it is
        return rdata.conversion.convert(
            rdata.parser.parse_data(zlib.decompress(compressed, ZLIB_OR_GZIP))
        )


def read_novels(deb: pathlib.Path, folder: pathlib.Path) -> dict[str, list[str]]:
    """Lines of each novel, by the name of its R variable."""
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    index = read_r_value((folder / f"{DATABASE}.rdx").read_bytes())
    values = (folder / f"{DATABASE}.rdb").read_bytes()
    novels = {}
    for name, (offset, length) in index["variables"].items():
        # An entry is its unpacked size (4 bytes), then a zlib stream.
        novels[str(name)] = [
            str(line) for line in read_r_value(values[offset + 4 : offset + length])
        ]
    return novels


def join_paragraphs(lines: list[str]) -> str:
    paragraphs = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line.strip())
        elif paragraphs[-1]:
            paragraphs.append([])
    return "\n\n".join(" ".join(paragraph) for paragraph in paragraphs if paragraph) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--package", type=pathlib.Path, help=f"a {PACKAGE} .deb; fetched if absent")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        deb = args.package or fetch_package(folder)
        novels = {n: join_paragraphs(lines) for n, lines in read_novels(deb, folder).items()}

    held = novels[HELDOUT_NOVEL]
    cut = (
        held.index("\n\nChapter", len(held) - HELDOUT_BYTES) + 2
    )  # at a chapter, at most this long
    novels[HELDOUT_NOVEL] = held[:cut]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "train.txt").write_text("\n\n".join(novels.values()))
    (args.out / "heldout.txt").write_text(held[cut:])


if __name__ == "__main__":
    main()
