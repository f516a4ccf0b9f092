"""tools/convert: which output is tied to embeddings, and which is one of its own."""

import json

import numpy
import pytest

import published
from test_convert import ENCODER, LM, OUTPUT, Run


def test_an_output_that_is_tied_but_differs_is_refused(tmp_path):
    checkpoint = published.language_model("eva_lm_plain")
    name = "decoder.output_projection.weight"
    checkpoint["model"][name] = checkpoint["model"][name] + 1
    Run(tmp_path, checkpoint).expect_refused("output_projection.weight", "embed_tokens.weight")


def test_an_output_of_its_own_is_kept(tmp_path):
    checkpoint = published.language_model("eva_lm_plain")
    checkpoint["cfg"]["model"]["share_decoder_input_output_embed"] = False
    name = "decoder.output_projection.weight"
    output = checkpoint["model"][name] = checkpoint["model"][name] + 1
    run = Run(tmp_path, checkpoint)
    assert run.config["share_input_output_embed"] is False
    numpy.testing.assert_array_equal(run.tensors["output_projection.weight"], output.numpy())


def without_arguments(checkpoint: dict, attention: dict) -> tuple:
    """The tensors alone, and the options that tell of attention what they do not."""
    names = ("chunk_size", "window_size", "overlap_window", "num_landmarks", "attn_2d")
    told = {name: attention[name] for name in names if name in attention}
    settings = [f"attn.{name}={json.dumps(value)}" for name, value in told.items()]
    options = [part for text in settings for part in ("--set", text)]
    return {"model": checkpoint["model"]}, options


def test_tensors_tell_an_output_of_its_own_where_arguments_do_not(tmp_path):
    checkpoint, options = without_arguments(
        published.language_model(LM), published.config(LM)["attn"]
    )
    output = checkpoint["model"][OUTPUT] = checkpoint["model"][OUTPUT] + 1
    run = Run(tmp_path, checkpoint, *options)
    assert run.config["share_input_output_embed"] is False
    assert run.config["tied_tensors"] == {}
    numpy.testing.assert_array_equal(run.tensors["output_projection.weight"], output.numpy())


@pytest.mark.parametrize("has_output", [True, False])
def test_tensors_tell_a_tied_output_where_arguments_do_not(tmp_path, has_output):
    checkpoint, options = without_arguments(
        published.language_model(LM), published.config(LM)["attn"]
    )
    if not has_output:
        del checkpoint["model"][OUTPUT]
    run = Run(tmp_path, checkpoint, *options)
    assert run.config["share_input_output_embed"] is True
    assert "output_projection.weight" not in run.tensors


def test_a_setting_unties_an_output(tmp_path):
    checkpoint = published.language_model(LM)
    checkpoint["model"][OUTPUT] = checkpoint["model"][OUTPUT] + 1
    setting = "share_input_output_embed=false"
    Run(tmp_path, checkpoint).expect_refused("to which it is tied", f"--set {setting} keeps it")
    run = Run(tmp_path, checkpoint, "--set", setting)
    assert "output_projection.weight" in run.tensors and run.config["tied_tensors"] == {}


def test_a_setting_ties_an_output(tmp_path):
    checkpoint = published.language_model(LM)
    checkpoint["cfg"]["model"]["share_decoder_input_output_embed"] = False
    run = Run(tmp_path, checkpoint, "--set", "share_input_output_embed=true")
    assert "output_projection.weight" not in run.tensors
    assert run.config["tied_tensors"] == {"output_projection.weight": "embed_tokens.weight"}


@pytest.mark.parametrize("told", [{}, {"untie_weights_roberta": True}], ids=["silent", "told"])
def test_masked_language_model_keeps_an_output_of_its_own(tmp_path, told):
    checkpoint = published.masked_language_model(ENCODER)
    name = "encoder.lm_head.weight"
    output = checkpoint["model"][name] = checkpoint["model"][name] + 1
    vars(checkpoint["args"]).update(told)
    run = Run(tmp_path, checkpoint)
    numpy.testing.assert_array_equal(run.tensors["lm_head.weight"], output.numpy())
    assert run.config["tied_tensors"] == {}


def test_masked_language_model_has_the_output_that_its_arguments_tell(tmp_path):
    checkpoint = published.masked_language_model(ENCODER)
    name = "encoder.lm_head.weight"
    checkpoint["model"][name] = checkpoint["model"][name] + 1
    vars(checkpoint["args"]).update(untie_weights_roberta=False)
    setting = "tied_tensors={}"
    Run(tmp_path, checkpoint).expect_refused("lm_head.weight differs", f"--set {setting} keeps it")
    assert "lm_head.weight" in Run(tmp_path, checkpoint, "--set", setting).tensors
    vars(checkpoint["args"]).update(untie_weights_roberta=True)
    del checkpoint["model"][name]
    lacks = Run(tmp_path, checkpoint)
    assert lacks.status == 2 and "missing" in lacks.stderr
