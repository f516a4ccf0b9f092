"""What the tensors are of no use without: dictionaries and other files of the training data, which
the server reads beside them. They are held to its rules (models/text), so that what is written
loads."""

import dataclasses
import pathlib
import re
from typing import Any

from conversion import Failure

SPECIAL = (b"<s>", b"<pad>", b"</s>", b"<unk>")  # fairseq's dictionaries begin with these
PADDING_FACTOR = 8  # fairseq may fill up a vocabulary to a multiple of this
DICTIONARY, CODES = "dict.txt", "bpe.codes"
# As fairseq itself looks for them in a model's directory, and our own name.
CODES_IN_DATA = (CODES, "bpecodes", "code")
SHOWN_BYTES = 64

Given = dict[str, pathlib.Path]  # by the options of the command line


@dataclasses.dataclass(frozen=True)
class File:
    """One that is to be written, and whence it is."""

    option: str
    path: pathlib.Path
    content: bytes

    def fail(self, problem: str) -> Failure:
        return Failure(f"{self.option}: {self.path}{problem}")


def read(option: str, path: pathlib.Path) -> File:
    try:
        return File(option, path, path.read_bytes())
    except OSError as error:
        raise Failure(f"{option}: {path}: {error.strerror}") from error


# ---- What a file must be.


def is_count(text: bytes) -> bool:
    return re.fullmatch(rb"[+-]?[0-9]+", text) is not None and -(2**63) <= int(text) < 2**63


def words_of(file: File) -> list[bytes]:
    """The words of a dictionary of fairseq, whose lines are words with their counts."""
    words: list[bytes] = []
    seen = set(SPECIAL)
    for number, line in enumerate(lines_of(file.content), 1):
        stripped = line.rstrip(b" \t\r\f\v")
        line = stripped.removesuffix(b" #fairseq:overwrite")
        word, _, count = line.rpartition(b" ")
        if not word or not is_count(count):
            raise file.fail(f": line {number} is {shown(line)}, allowed are a word and its count")
        if word in seen and line == stripped:
            raise file.fail(f": line {number}: {shown(word)} comes twice")
        seen.add(word)
        words.append(word)
    return words


def lines_of(content: bytes) -> list[bytes]:
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def shown(text: bytes) -> str:
    return repr(text[:SHOWN_BYTES].decode(errors="replace"))


def check_dictionary(file: File, vocabulary: int) -> None:
    """That each embedding has a word, but for those that fill up."""
    size, least = len(SPECIAL) + len(words_of(file)), max(vocabulary - PADDING_FACTOR + 1, 1)
    if not least <= size <= vocabulary:
        raise file.fail(
            f" has {size} words, special tokens included; the model's {vocabulary} embeddings "
            f"allow {least} to {vocabulary}"
        )


def check_codes(file: File) -> None:
    """That they are merges of subword-nmt."""
    for number, line in enumerate(lines_of(file.content.rstrip(b"\n")), 1):
        line = line.strip(b"\r ")
        if number == 1 and line.startswith(b"#version:"):
            if line.rpartition(b" ")[2] not in (b"0.1", b"0.2"):
                raise file.fail(f": line 1 is {shown(line)}, allowed are versions 0.1 and 0.2")
        elif line.count(b" ") != 1:
            raise file.fail(f": line {number} is {shown(line)}, allowed are two symbols")


def check_prefixes(file: File) -> None:
    try:
        lines = file.content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise file.fail(f": byte {error.start} is not UTF-8") from error
    if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        raise file.fail(" has no word; allowed is Moses's nonbreaking_prefix file")


# ---- Which files a model has.


def find(given: Given, option: str, *names: str) -> File | None:
    """What `option` names, or else the first of `names` in the folder of the training data."""
    if option in given:
        return read(option, given[option])
    if "--data" not in given:
        return None
    data = given["--data"]
    if not data.is_dir():
        raise Failure(f"--data: {data} is not a folder")
    path = next((p for name in names if (p := data / name).is_file()), None)
    return read("--data", path) if path else None


def find_dictionary(given: Given, option: str, vocabulary: int, *names: str) -> File | None:
    """The same, which a folder must have; for so many embeddings."""
    file = find(given, option, *names)
    if file is not None:
        check_dictionary(file, vocabulary)
    elif data := given.get("--data"):
        there = ", ".join(sorted(p.name for p in data.glob("dict*.txt"))) or "none"
        raise Failure(f"--data: {data} has dictionaries {there}; needed is {' or '.join(names)}")
    return file


def allow(given: Given, kind: str, *options: str) -> None:
    for option, path in given.items():
        if option not in options:
            choices = " ".join(options) or "none of these files"
            raise Failure(f"{option}: got {path}; allowed for {kind} is {choices}")


def languages(config: dict[str, Any]) -> list[tuple[str, int]]:
    """The names of both dictionaries of a translation model, each with its number of embeddings."""
    return [
        (f"dict.{config[lang]}.txt", config[part]["vocab_size"])
        for lang, part in (("source_lang", "encoder"), ("target_lang", "decoder"))
    ]


def one_dictionary(given: Given, config: dict[str, Any]) -> dict[str, File]:
    """For both languages."""
    if other := next((option for option in ("--srcdict", "--tgtdict") if option in given), None):
        raise Failure(
            f"--dict: got {given['--dict']} beside {other}; allowed is one dictionary for both "
            "languages or one for each"
        )
    file = read("--dict", given["--dict"])
    for _, vocabulary in languages(config):
        check_dictionary(file, vocabulary)
    return {DICTIONARY: file}


def two_dictionaries(given: Given, config: dict[str, Any]) -> dict[str, File]:
    files = []
    for option, (name, vocabulary) in zip(
        ("--srcdict", "--tgtdict"), languages(config), strict=True
    ):
        if file := find_dictionary(given, option, vocabulary, name, DICTIONARY):
            files.append((name, file))
    if len(files) == 2:
        (source_name, source), (target_name, target) = files
        is_one = config["share_all_embeddings"] or source_name == target_name
        if is_one and words_of(source) != words_of(target):
            raise target.fail(f" has not the words of {source.path}; this model's are the same")
    return dict(files)


def only_with(given: Given, option: str, key: str, value: str) -> Failure:
    return Failure(f"{option}: got {given[option]}; allowed with --set {key}={value}")


def translation_files(given: Given, config: dict[str, Any]) -> dict[str, File]:
    files = (one_dictionary if "--dict" in given else two_dictionaries)(given, config)
    codes, prefixes = "--bpe-codes", "--nonbreaking-prefixes"
    if config["bpe"] == "subword_nmt":
        if file := find(given, codes, *CODES_IN_DATA):
            check_codes(file)
            files[CODES] = file
    elif codes in given:
        raise only_with(given, codes, "bpe", "subword_nmt")
    if prefixes in given:
        if config["tokenization"] != "moses":
            raise only_with(given, prefixes, "tokenization", "moses")
        file = read(prefixes, given[prefixes])
        check_prefixes(file)
        files[f"nonbreaking_prefix.{config['source_lang']}"] = file
    return files


def collect(given: Given, config: dict[str, Any]) -> dict[str, bytes]:
    """The files that were given for the model of `config`, by the names that the server reads."""
    kind = config["model_type"]
    if kind == "eva_translation":
        options = ("--data", "--dict", "--srcdict", "--tgtdict", "--bpe-codes")
        allow(given, kind, *options, "--nonbreaking-prefixes")
        files = translation_files(given, config)
    elif "vocab_size" in config:
        allow(given, kind, "--data", "--dict")
        file = find_dictionary(given, "--dict", config["vocab_size"], DICTIONARY)
        files = {DICTIONARY: file} if file else {}
    else:
        allow(given, kind)
        files = {}
    return {name: file.content for name, file in files.items()}


def missing(config: dict[str, Any], directory: pathlib.Path) -> list[str]:
    """What the server needs and `directory` lacks, with the options that write it."""
    has = lambda name: (directory / name).exists()  # noqa: E731
    if config["model_type"] == "eva_causal_lm":
        return [] if has(DICTIONARY) else [f"{DICTIONARY} (--data, --dict)"]
    if config["model_type"] != "eva_translation":
        return []
    (source, _), (target, _) = languages(config)
    names = {source: "--data, --srcdict", target: "--data, --tgtdict"}
    wanted = {} if has(DICTIONARY) else names
    if config["bpe"] == "subword_nmt":
        wanted |= {CODES: "--bpe-codes"}
    return [f"{name} ({options})" for name, options in wanted.items() if not has(name)]


def check_earlier(files: dict[str, bytes], config: dict[str, Any], directory: pathlib.Path) -> None:
    """A language's own dictionary of an earlier conversion would be read instead of dict.txt."""
    if config["model_type"] != "eva_translation" or DICTIONARY not in files:
        return
    for name, _ in languages(config):
        if (directory / name).exists():
            raise Failure(f"--dict: {directory / name} is there already and would count before it")
