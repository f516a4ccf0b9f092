"""What the tensors are of no use without: files of the training data, to be served beside them."""

import pathlib

from conversion import Failure

NUM_SPECIAL = 4  # fairseq's dictionaries begin with <s>, <pad>, </s>, <unk>
PADDING_FACTOR = 8  # fairseq may fill up a vocabulary to a multiple of this
NEED_DICTIONARY = ("eva_causal_lm",)


def dictionary_size(text: bytes) -> int:
    """How many ids fairseq gives a dictionary: lines are words with their counts."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        word, _, count = line.rstrip().removesuffix(b" #fairseq:overwrite").rpartition(b" ")
        if not word or not count.isdigit():
            raise Failure(f"line {number} of the dictionary is {line[:64]!r}, no word and count")
    return NUM_SPECIAL + len(lines)


def dictionary(path: pathlib.Path, vocabulary: int) -> bytes:
    """The contents of fairseq's dict.txt, which must have a word for each embedding."""
    text = path.read_bytes()
    size = dictionary_size(text)
    if not vocabulary - PADDING_FACTOR < size <= vocabulary:
        raise Failure(
            f"{path} has {size} words, special tokens included; the model has {vocabulary}"
        )
    return text
