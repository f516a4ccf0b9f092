"""What tools/convert makes of a checkpoint of fairseq is served: the whole way of a text model."""

import json
import pathlib
import shutil
import subprocess

import pytest

import published
import safetensors_file
from evaserve_program import Evaserve
from test_convert import Run, expect_equal
from test_training_files import write_words

SPACE = ("--set", "tokenization=space", "--set", "bpe=none")
# Tokens, by Moses and byte pairs, of a text.
TEXT, TOKENS = "Dr. Low's.", ["Dr.", "Lo@@", "w", "&apos;s", "."]
CODES = """#version: 0.2
L o
& a
&a p
&ap o
&apo s
&apos ;
&apos; s</w>
D r
Dr .</w>
"""


def settings_of(config: dict) -> list[str]:
    """What no checkpoint tells."""
    values = [f"generation.{key}={value}" for key, value in config["generation"].items()]
    return [*SPACE, *(part for value in values for part in ("--set", value))]


class Serving:
    """evaserve with models, each called as its folder's parent, and eva."""

    def __init__(self, program, *models: pathlib.Path) -> None:
        named = [f"--model={path.parent.name}={path}" for path in models]
        self.eva = program("eva")
        self.server = Evaserve(program("evaserve"), "--threads=1", *named)

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *_) -> None:
        assert self.server.terminate() == 0

    def run(self, model: str, *command: str) -> list[dict]:
        eva = [self.eva, "--server", self.server.target, "--model", model, "--json", *command]
        run = subprocess.run(eva, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return [json.loads(line) for line in run.stdout.splitlines()]


def folder(parent: pathlib.Path, name: str) -> pathlib.Path:
    (parent / name).mkdir()
    return parent / name


@pytest.fixture
def original(program, tmp_path):
    """A translation model that no converter has seen."""
    directory = folder(folder(tmp_path, "original"), "model")
    subprocess.run([program("write-random-model"), directory, "translation"], check=True)
    return directory


def converted(parent: pathlib.Path, checkpoint: dict, *options: str) -> pathlib.Path:
    run = Run(parent, checkpoint, *options)
    assert run.status == 0, run.stderr
    assert "lacks" not in run.stdout
    return run.out


def test_a_translation_model_is_what_it_was_before_fairseq(program, tmp_path, original):
    data = folder(tmp_path, "data-bin")
    for lang in ("en", "de"):
        shutil.copy(original / f"dict.{lang}.txt", data)
    config = json.loads((original / "config.json").read_text())
    options = ["--data", str(data), *settings_of(config)]
    copy = converted(folder(tmp_path, "copy"), published.checkpoint_of(original), *options)
    name = "model.safetensors"
    expect_equal(safetensors_file.read(copy / name), safetensors_file.read(original / name))
    texts = ["e4 e20 e17", "e9", "e30 e31 e32 e33 e12 e5 e6"]
    with Serving(program, original, copy) as serving:
        want = serving.run("original", "translate", *texts)
        assert serving.run("copy", "translate", *texts) == want
    assert len({line["translation"] for line in want}) == len(texts)


def test_the_published_search_is_what_the_server_does_unasked(program, tmp_path, original):
    """Beams and penalty of config.json, as if a request had told them."""
    options = ["--dict", str(tmp_path / "words"), *SPACE]
    (tmp_path / "words").write_text("".join(f"word{i} 1\n" for i in range(36)))
    checkpoint = published.checkpoint_of(original)
    model = converted(folder(tmp_path, "published"), checkpoint, *options)
    other = converted(
        folder(tmp_path, "other"),
        checkpoint,
        *options,
        *("--set", "generation.beam_size=1", "--set", "generation.length_penalty=1"),
    )
    asked = ["--beam-size=4", "--length-penalty=0.6"]
    with Serving(program, model, other) as serving:
        want = serving.run("other", "translate", *asked, "word4 word20 word17")
        unlike = serving.run("other", "translate", "word4 word20 word17")
        assert serving.run("published", "translate", "word4 word20 word17") == want != unlike


def test_text_goes_through_all_files_of_a_translation_model(program, tmp_path, original):
    """With byte pairs and Moses's prefixes text has the tokens that it has spelled out."""
    checkpoint = published.checkpoint_of(original)
    words = [*TOKENS, *(f"word{i}" for i in range(36 - len(TOKENS)))]
    files = {"words": "".join(f"{word} 1\n" for word in words), "codes": CODES, "prefixes": "Dr\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    options = ["--dict", str(tmp_path / "words")]
    spelled = converted(folder(tmp_path, "spelled"), checkpoint, *options, *SPACE)
    options += ["--bpe-codes", str(tmp_path / "codes")]
    options += ["--nonbreaking-prefixes", str(tmp_path / "prefixes")]
    written = converted(folder(tmp_path, "written"), checkpoint, *options)
    with Serving(program, spelled, written) as serving:
        (want,) = serving.run("spelled", "translate", " ".join(TOKENS))
        (got,) = serving.run("written", "translate", TEXT)
        (other,) = serving.run("spelled", "translate", TEXT)
    assert got["score"] == want["score"] != other["score"]


def test_what_is_not_tied_is_served(program, tmp_path):
    """The masks' guesses are those of an output of its own."""
    name = "eva_encoder_tiny"
    checkpoint = published.masked_language_model(name)
    write_words(tmp_path / "words", "word", published.config(name)["vocab_size"] - 4)
    options = ["--dict", str(tmp_path / "words")]
    tied = converted(folder(tmp_path, "tied"), checkpoint, *options)
    output = checkpoint["model"]["encoder.lm_head.weight"]
    checkpoint["model"]["encoder.lm_head.weight"] = -output
    untied = converted(folder(tmp_path, "untied"), checkpoint, *options)
    text = ["fill-mask", "word3 <mask> word7"]
    mask = published.config(name)["vocab_size"] - 1
    for model in (tied, untied):
        config = json.loads((model / "config.json").read_text()) | {"mask_token_id": mask}
        (model / "config.json").write_text(json.dumps(config))
    with Serving(program, tied, untied) as serving:
        assert serving.run("tied", *text) != serving.run("untied", *text)


def test_a_classifier_without_bias_of_queries_is_served(program, tmp_path):
    checkpoint = published.image_classifier("eva_vit_tiny")
    state = checkpoint["model"]
    checkpoint["model"] = {n: t for n, t in state.items() if not n.endswith(".qkv.bias")}
    del checkpoint["args"].qkv_bias
    with Serving(program, converted(folder(tmp_path, "vit"), checkpoint)) as serving:
        (told,) = serving.run("vit", "models")
    assert told["name"] == "vit"


def test_a_language_model_is_served_with_its_words(program, tmp_path):
    data = folder(tmp_path, "data-bin")
    write_words(data / "dict.txt", "word", 196)
    checkpoint = published.language_model("eva_lm_plain")
    model = converted(folder(tmp_path, "lm"), checkpoint, "--data", str(data))
    (tmp_path / "text").write_text("word3 word5 word7")
    with Serving(program, model) as serving:
        (told,) = serving.run("lm", "models")
        (score,) = serving.run("lm", "score", str(tmp_path / "text"))
    assert told["token"] == "word"
    assert score["log_likelihood"] < 0
