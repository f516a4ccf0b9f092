"""tools/convert: the files of the training data without which no model of text is served."""

import pathlib

import pytest

import published
from test_convert import Run

VOCABULARY = {"de": 120, "en": 50}  # of a model whose languages have their own


def translation(shares_all: bool = False) -> dict:
    return published.whole_translation("eva_encoder_tiny", shares_all)


def write_words(path: pathlib.Path, letter: str, count: int) -> bytes:
    text = b"".join(b"%s%d %d\n" % (letter.encode(), i, count - i) for i in range(count))
    path.write_bytes(text)
    return text


def write_dictionary(folder: pathlib.Path, words: int) -> str:
    write_words(folder / "dict.txt", "word", words)
    return str(folder / "dict.txt")


@pytest.fixture
def data_bin(tmp_path):
    """As fairseq-preprocess writes it, with byte pairs as fairseq's published models have them."""
    folder = tmp_path / "data-bin"
    folder.mkdir()
    for lang, vocabulary in VOCABULARY.items():
        write_words(folder / f"dict.{lang}.txt", lang[0], vocabulary - 4)
    (folder / "bpecodes").write_text("#version: 0.2\nl o\nlo w</w>\n")
    (folder / "train.de-en.de.idx").write_bytes(b"MMIDIDX")
    return folder


def text_files(out: pathlib.Path) -> set[str]:
    assert out.is_dir()
    return {path.name for path in out.iterdir()} - {"config.json", "model.safetensors"}


def test_a_translation_model_gets_what_is_in_the_data(tmp_path, data_bin):
    run = Run(tmp_path, translation(), "--data", str(data_bin))
    assert run.status == 0, run.stderr
    for name in ("dict.de.txt", "dict.en.txt"):
        assert (run.out / name).read_bytes() == (data_bin / name).read_bytes()
    assert (run.out / "bpe.codes").read_bytes() == (data_bin / "bpecodes").read_bytes()
    assert len(text_files(run.out)) == 3
    assert "lacks" not in run.stdout


def test_options_name_each_file_and_count_before_the_data(tmp_path, data_bin):
    files = {"bpe-codes": b"a b\n", "nonbreaking-prefixes": b"Dr"}
    for option, text in files.items():
        (tmp_path / option).write_bytes(text)
    files["srcdict"] = write_words(tmp_path / "srcdict", "other", 113)
    options = [part for name in files for part in (f"--{name}", str(tmp_path / name))]
    run = Run(tmp_path, translation(), "--data", str(data_bin), *options)
    assert run.status == 0, run.stderr
    assert (run.out / "dict.de.txt").read_bytes() == files["srcdict"]
    assert (run.out / "dict.en.txt").read_bytes() == (data_bin / "dict.en.txt").read_bytes()
    assert (run.out / "bpe.codes").read_bytes() == b"a b\n"
    assert (run.out / "nonbreaking_prefix.de").read_bytes() == b"Dr"


def test_one_dictionary_may_be_for_both_languages(tmp_path):
    path = write_dictionary(tmp_path, 116)
    run = Run(tmp_path, translation(shares_all=True), "--dict", path, "--set", "bpe=none")
    assert run.status == 0, run.stderr
    assert text_files(run.out) == {"dict.txt"}
    assert "lacks" not in run.stdout


def test_a_dictionary_that_would_not_count_is_refused(tmp_path):
    path = write_dictionary(tmp_path, 116)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "dict.en.txt").write_text("of an earlier model 1\n")
    run = Run(tmp_path, translation(shares_all=True), "--dict", path)
    assert run.status == 2
    assert "dict.en.txt is there already" in run.stderr
    assert not (run.out / "config.json").exists()


def test_what_a_translation_model_lacks_is_told_with_the_option(tmp_path, data_bin):
    run = Run(tmp_path, translation(), "--tgtdict", str(data_bin / "dict.en.txt"))
    assert run.status == 0
    assert "lacks dict.de.txt (--data, --srcdict), bpe.codes (--bpe-codes)" in run.stdout
    assert text_files(run.out) == {"dict.en.txt"}


def test_the_encoder_alone_takes_no_byte_pairs(tmp_path, data_bin):
    options = ["--set", "model_type=eva_encoder", "--bpe-codes", str(data_bin / "bpecodes")]
    words = ["--bpe-codes", "allowed for eva_encoder is --data --dict"]
    Run(tmp_path, translation(), *options).expect_refused(*words)


@pytest.mark.parametrize("words", [296, 290], ids=["whole", "not-filled-up"])
def test_a_language_model_gets_its_dictionary(tmp_path, words):
    path = write_dictionary(tmp_path, words)
    run = Run(tmp_path, published.language_model("eva_lm_adaptive"), "--dict", path)
    assert run.status == 0, run.stderr
    assert (run.out / "dict.txt").read_bytes() == (tmp_path / "dict.txt").read_bytes()
    assert "lacks" not in run.stdout


@pytest.mark.parametrize("words", [297, 288])
def test_a_dictionary_of_another_model_is_refused(tmp_path, words):
    path = write_dictionary(tmp_path, words)
    run = Run(tmp_path, published.language_model("eva_lm_adaptive"), "--dict", path)
    run.expect_refused("dict.txt", str(words + 4), "300")


def test_a_damaged_dictionary_is_refused_by_line(tmp_path):
    (tmp_path / "dict.txt").write_text("the 12\ncat\n")
    checkpoint = published.language_model("eva_lm_adaptive")
    for path, word in ((tmp_path / "dict.txt", "line 2"), (tmp_path / "none.txt", "none.txt")):
        Run(tmp_path, checkpoint, "--dict", str(path)).expect_refused(word)


def test_a_language_model_without_a_dictionary_says_so(tmp_path):
    run = Run(tmp_path, published.language_model("eva_lm_adaptive"))
    assert "lacks dict.txt" in run.stdout


def test_a_language_model_gets_the_dictionary_of_its_data(tmp_path, data_bin):
    checkpoint, options = published.language_model("eva_lm_adaptive"), ["--data", str(data_bin)]
    refused = Run(tmp_path, checkpoint, *options)
    refused.expect_refused("has dictionaries dict.de.txt, dict.en.txt; needed is dict.txt")
    want = write_words(data_bin / "dict.txt", "w", 296)
    run = Run(tmp_path, checkpoint, *options)
    assert run.status == 0, run.stderr
    assert (run.out / "dict.txt").read_bytes() == want


def test_an_image_classifier_takes_no_dictionary(tmp_path):
    run = Run(tmp_path, published.image_classifier("eva_vit_tiny"), "--dict", "dict.txt")
    run.expect_refused("--dict: got dict.txt", "allowed for eva_vit is none of these files")


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("srcdict", b"a 1\n", ["has 5 words", "the model's 120 embeddings allow 113 to 120"]),
        ("tgtdict", b"a 1\nb\n", ["line 2 is 'b'", "allowed are a word and its count"]),
        ("tgtdict", b"a 1\n\nb 1\n", ["line 2 is ''"]),
        ("tgtdict", b"a 1\nb 2\na 3\n", ["line 3: 'a' comes twice"]),
        ("tgtdict", b"<pad> 1\n", ["line 1: '<pad>' comes twice"]),
        ("tgtdict", b"a 99999999999999999999\n", ["line 1 is 'a 99999999999999999999'"]),
        ("srcdict", None, ["No such file"]),
        ("bpe-codes", b"l o\nlo w x\n", ["line 2 is 'lo w x'", "allowed are two symbols"]),
        ("bpe-codes", b"#version: 0.3\n", ["'#version: 0.3'", "allowed are versions 0.1 and 0.2"]),
        ("nonbreaking-prefixes", b"\xff\n", ["byte 0 is not UTF-8"]),
        ("nonbreaking-prefixes", b"# Moses\n\n", ["has no word"]),
        ("data", b"", ["is not a folder"]),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(tmp_path, option, text, words):
    path = tmp_path / "file"
    if text is not None:
        path.write_bytes(text)
    Run(tmp_path, translation(), f"--{option}", str(path)).expect_refused(
        f"--{option}: {path}", *words
    )


def test_words_may_come_again_if_they_say_so(tmp_path):
    path = tmp_path / "words"
    path.write_bytes(write_words(path, "w", 45) + b"w0 1 #fairseq:overwrite\r\n")
    run = Run(tmp_path, translation(), "--tgtdict", str(path))
    assert run.status == 0, run.stderr


@pytest.mark.parametrize(
    ("shares_all", "options", "words"),
    [
        (False, ["--dict", "{path}", "--srcdict", "{path}"], ["beside --srcdict"]),
        (False, ["--dict", "{path}"], ["120 words", "50 embeddings allow 43 to 50"]),
        (True, ["--srcdict", "{path}", "--tgtdict", "{other}"], ["has not the words of"]),
        (
            False,
            ["--bpe-codes", "{path}", "--set", "bpe=none"],
            ["--bpe-codes: got", "allowed with --set bpe=subword_nmt"],
        ),
        (
            False,
            ["--nonbreaking-prefixes", "{path}", "--set", "tokenization=space"],
            ["allowed with --set tokenization=moses"],
        ),
        (False, ["--data", "{empty}"], ["dictionaries none; needed is dict.de.txt or dict.txt"]),
        (False, ["--set", "bpe=gpt2"], ["bpe is 'gpt2'", "'subword_nmt' or 'none'"]),
        (False, ["--set", "source_lang=fr"], ["source_lang is 'fr'", "allowed is en or de"]),
    ],
)
def test_options_that_do_not_go_together_are_named(tmp_path, shares_all, options, words):
    names = {"path": write_dictionary(tmp_path, 116), "other": str(tmp_path / "other")}
    write_words(tmp_path / "other", "other", 116)
    names["empty"] = str(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    options = [option.format(**names) for option in options]
    Run(tmp_path, translation(shares_all), *options).expect_refused(*words)
