"""tools/train_digits/model.py against the published code's outputs, and the model made with it."""

import json

import numpy
import pytest
import torch

import golden
import images
import safetensors_file
from model import Attention, EvaVit

DIGITS = golden.ROOT / "demo" / "digits"
# Of the logits, for the same model and input: another number of threads adds up in another order.
SAME_MODEL_TOLERANCE = 1e-4


def load(directory) -> EvaVit:
    model = EvaVit(json.loads((directory / "config.json").read_text()))
    tensors = safetensors_file.read(directory / "model.safetensors")
    model.load_state_dict({name: torch.from_numpy(t) for name, t in tensors.items()})
    return model.requires_grad_(False).eval()


def expect_near(got: torch.Tensor, want: numpy.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(got, torch.from_numpy(want), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["eva_vit_tiny", "eva_vit_overlap"])
def test_computes_what_the_published_model_computes(name):
    model = load(golden.path_of(name))
    cases = golden.read_tensors(f"{name}/cases.safetensors")
    for case in golden.read_json(f"{name}/cases.json")["cases"]:
        tensors = {k: cases[f"{case['case']}.{k}"] for k in ("image", "features", "logits")}
        image = torch.from_numpy(tensors["image"])
        for output in ("features", "logits"):
            got = getattr(model, "forward" if output == "logits" else output)(image)
            expect_near(got, tensors[output], case["tol_fp32"][output])
        for i, got in enumerate(model.blocks_output(image)):
            want = cases[f"{case['case']}.block{i}"]
            # No tolerance is given for these; relative to their size it is that of the features.
            expect_near(got[:1], want, case["tol_fp32"]["features"] * numpy.abs(want).max())


def two_dimensional_cases() -> list:
    if not golden.FOLDER.is_dir():
        return []
    return [c for c in golden.read_json("eva_noncausal.json")["cases"] if c["attn_2d"]]


@pytest.mark.parametrize("case", two_dimensional_cases(), ids=lambda c: c["case"])
def test_attention_computes_what_the_published_attention_computes(case):
    tensors, prefix = golden.read_tensors("eva_noncausal.safetensors"), case["case"] + "."
    module = Attention(case["dim"], case["num_heads"], case, layer_norm_eps=1e-5)
    parameters = prefix + "param."
    module.load_state_dict(
        {
            name.removeprefix(parameters): torch.from_numpy(t)
            for name, t in tensors.items()
            if name.startswith(parameters) and not name.endswith("relative_position_index")
        }
    )
    with torch.no_grad():
        out = module.eval()(torch.from_numpy(tensors[prefix + "x"]))
    expect_near(out, tensors[prefix + "out"], case["tol_fp32"]["out"])


def test_training_adds_noise_and_evaluation_does_not():
    model = load(DIGITS)
    x = torch.from_numpy(safetensors_file.read(DIGITS / "heldout.safetensors")["input"])
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


def heldout() -> dict:
    """`png`: the files; `input`, `label`, `logits`: see demo/digits/MODEL_CARD.md."""
    tensors = safetensors_file.read(DIGITS / "heldout.safetensors")
    begin, end = tensors["png_offset"][:-1], tensors["png_offset"][1:]
    data = tensors["png"].tobytes()
    return tensors | {"png": [data[b:e] for b, e in zip(begin, end, strict=True)]}


def preprocessor() -> dict:
    return json.loads((DIGITS / "preprocessor_config.json").read_text())


def test_digits_are_recognised_from_their_files():
    data, config = heldout(), preprocessor()
    x = numpy.stack([images.preprocess(images.decode(png), config) for png in data["png"]])
    logits = load(DIGITS)(torch.from_numpy(x))
    expect_near(logits, data["logits"], SAME_MODEL_TOLERANCE)
    assert (logits.argmax(-1).numpy() == data["label"]).mean() >= 0.985


def test_the_example_is_a_held_out_seven():
    data = heldout()
    i = data["png"].index((DIGITS / "seven.png").read_bytes())
    assert data["label"][i] == data["logits"][i].argmax() == 7


def test_held_out_files_are_of_many_kinds():
    pictures = [images.decode(png) for png in heldout()["png"]]
    assert {p.mode for p in pictures} == {"L", "RGB"}
    side = preprocessor()["size"]["width"]
    assert min(p.width for p in pictures) < side < max(p.width for p in pictures)
    assert any(p.width != p.height for p in pictures)


def test_preprocessing_gives_the_stored_input():
    data, config = heldout(), preprocessor()
    for png, want in zip(data["png"], data["input"], strict=False):
        numpy.testing.assert_array_equal(images.preprocess(images.decode(png), config), want)


def test_heads_learn_what_they_can_only_see_through_landmarks():
    """A mark in one window reaches the others: EVA is not windows alone."""
    model = load(DIGITS)
    x = torch.zeros(1, 8, 8, model.head.in_features)
    other = x.clone()
    other[0, 0, 0] = 1.0
    attention = model.blocks[0].attn
    assert not torch.equal(attention(x)[0, 7, 7], attention(other)[0, 7, 7])
