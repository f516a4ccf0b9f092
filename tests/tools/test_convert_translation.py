"""tools/convert: translation models, both parts of them."""

import numpy
import pytest
import torch

import golden
import published
from test_convert import ENCODER, ENCODER_ALONE, OUTPUT, Run, expect_equal, without


def test_a_translation_model_keeps_both_parts(tmp_path):
    checkpoint = published.whole_translation("eva_encoder_tiny")
    run = Run(tmp_path, checkpoint)
    config = run.config
    encoder = golden.read_json("eva_encoder_tiny/config.json")
    assert config["model_type"] == "eva_translation"
    assert config["encoder"] == {k: v for k, v in encoder.items() if k != "model_type"}
    decoder = {"vocab_size": encoder["vocab_size"], "num_attention_heads": 2}
    decoder |= {"intermediate_size": 3 * encoder["hidden_size"], "num_hidden_layers": 2}
    decoder |= {"max_target_positions": 77, "normalize_before": False, "hidden_act": "relu"}
    assert decoder.items() <= config["decoder"].items()
    told = {"share_all_embeddings": True, "share_decoder_input_output_embed": True}
    told |= {"source_lang": "de", "target_lang": "en"}
    assert told.items() <= config.items()
    tied = {"decoder.embed_tokens.weight", "decoder.output_projection.weight"}
    want = {
        name: tensor.numpy()
        for name, tensor in checkpoint["model"].items()
        if name not in tied and not name.endswith(("version", "_float_tensor"))
    }
    expect_equal(run.tensors, want)
    assert sum(line.startswith("dropped") for line in run.stdout.splitlines()) == 2 + 3


def test_a_translation_model_of_two_vocabularies_keeps_its_embeddings(tmp_path):
    checkpoint = published.whole_translation("eva_encoder_tiny", shares_all=False)
    run = Run(tmp_path, checkpoint)
    assert run.config["decoder"]["vocab_size"] == 50
    assert not run.config["share_decoder_input_output_embed"]
    for name in ("decoder.embed_tokens.weight", "decoder.output_projection.weight"):
        numpy.testing.assert_array_equal(run.tensors[name], checkpoint["model"][name].numpy())


def test_a_translation_model_searches_as_the_published_evaluation(tmp_path):
    """main.sh: --beam 4 --lenpen 0.6 --max-len-a 1 --max-len-b 50."""
    run = Run(tmp_path, published.whole_translation("eva_encoder_tiny"))
    told = {"beam_size": 4, "length_penalty": 0.6, "max_len_a": 1, "max_len_b": 50}
    assert told.items() <= run.config["generation"].items()


def test_a_translation_model_searches_as_it_is_told(tmp_path):
    checkpoint = published.whole_translation("eva_encoder_tiny")
    told = {"beam_size": 7, "length_penalty": 1.5, "max_len_a": 0, "max_len_b": 200}
    options = [part for k, v in told.items() for part in ("--set", f"generation.{k}={v}")]
    assert told.items() <= Run(tmp_path, checkpoint, *options).config["generation"].items()


def test_a_translation_model_that_does_not_share_what_it_says_is_refused(tmp_path):
    checkpoint = published.whole_translation("eva_encoder_tiny", shares_all=False)
    vars(checkpoint["cfg"]["model"]).update(share_all_embeddings=True)
    Run(tmp_path, checkpoint).expect_refused("decoder.embed_tokens.weight", "encoder.embed_tokens")


def test_a_translation_model_without_arguments_asks_for_them(tmp_path):
    checkpoint = {"model": published.whole_translation("eva_encoder_tiny")["model"]}
    run = Run(tmp_path, checkpoint)
    run.expect_refused("--set decoder.num_attention_heads", "--set encoder.attn.window_size")


def learned_positions(count: int) -> dict:
    """A translation model whose decoder has a table of so many positions."""
    checkpoint = published.whole_translation("eva_encoder_tiny")
    dim = checkpoint["model"]["encoder.embed_tokens.weight"].shape[1]
    # fairseq has two rows more, since it counts from the padding's number on.
    checkpoint["model"]["decoder.embed_positions.weight"] = torch.randn(count + 2, dim)
    vars(checkpoint["cfg"]["model"]).update(decoder_learned_pos=True)
    return checkpoint


def test_a_translation_model_keeps_learned_positions(tmp_path):
    checkpoint = learned_positions(77)
    run = Run(tmp_path, checkpoint)
    told = {"positions": "learned", "max_target_positions": 77}
    assert told.items() <= run.config["decoder"].items()
    assert run.config["encoder"]["positions"] == "sinusoidal"
    name = "decoder.embed_positions.weight"
    numpy.testing.assert_array_equal(run.tensors[name], checkpoint["model"][name].numpy())


def test_learned_positions_tell_how_many_there_are(tmp_path):
    checkpoint = learned_positions(30)
    vars(checkpoint["cfg"]["model"]).pop("max_target_positions")
    assert Run(tmp_path, checkpoint).config["decoder"]["max_target_positions"] == 30


@pytest.mark.parametrize(
    ("count", "told", "words"),
    [
        (78, {}, ["max_target_positions = 77, its tensors 78"]),
        (77, {"decoder_learned_pos": False}, ["decoder_learned_pos = False, its tensors True"]),
        (77, {"encoder_learned_pos": True}, ["encoder_learned_pos = True, its tensors False"]),
        (77, {"no_token_positional_embeddings": True}, ["no_token_positional_embeddings is True"]),
    ],
)
def test_positions_that_the_arguments_do_not_tell_are_named(tmp_path, count, told, words):
    checkpoint = learned_positions(count)
    vars(checkpoint["cfg"]["model"]).update(told)
    Run(tmp_path, checkpoint).expect_refused(*words)


def final_norm(dim: int, name: str) -> dict:
    return {f"{name}.weight": torch.ones(dim), f"{name}.bias": torch.zeros(dim)}


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_translation_model_with_norms_before_layers_has_one_after_the_last(tmp_path, side):
    checkpoint = published.whole_translation("eva_encoder_tiny")
    dim = checkpoint["model"]["encoder.embed_tokens.weight"].shape[1]
    checkpoint["model"] |= final_norm(dim, f"{side}.layer_norm")
    vars(checkpoint["cfg"]["model"]).update({f"{side}_normalize_before": True})
    run = Run(tmp_path, checkpoint)
    assert run.config[side]["normalize_before"] is True
    assert f"{side}.layer_norm.weight" in run.tensors


def test_norms_of_an_encoder_without_arguments_are_seen(tmp_path):
    checkpoint = published.translation("eva_encoder_tiny")
    dim = checkpoint["model"]["encoder.embed_tokens.weight"].shape[1]
    checkpoint["model"] |= final_norm(dim, "encoder.layer_norm")
    del checkpoint["cfg"]["model"].encoder_normalize_before
    assert Run(tmp_path, checkpoint, *ENCODER_ALONE).config["normalize_before"] is True


@pytest.mark.parametrize(
    ("told", "has_norm", "words"),
    [
        (
            {"decoder_normalize_before": True, "no_decoder_final_norm": True},
            False,
            ["decoder_normalize_before and no_decoder_final_norm", "is not served"],
        ),
        ({"decoder_normalize_before": True}, False, ["decoder_normalize_before = True", "False"]),
        ({"no_decoder_final_norm": True}, True, ["decoder_normalize_before = False", "True"]),
        ({"encoder_normalize_before": True}, False, ["encoder_normalize_before = True", "False"]),
    ],
    ids=["not-served", "missing", "unexpected", "encoder"],
)
def test_norms_of_a_translation_model_are_as_its_arguments_say(tmp_path, told, has_norm, words):
    checkpoint = published.whole_translation("eva_encoder_tiny")
    dim = checkpoint["model"]["encoder.embed_tokens.weight"].shape[1]
    checkpoint["model"] |= final_norm(dim, "decoder.layer_norm") if has_norm else {}
    vars(checkpoint["cfg"]["model"]).update(told)
    Run(tmp_path, checkpoint).expect_refused(*words)


@pytest.mark.parametrize(
    "name", ["decoder.layers.1.fc2.bias", "decoder.layers.0.encoder_attn.k_proj.weight"]
)
def test_a_translation_model_lacks_nothing(tmp_path, name):
    checkpoint = published.whole_translation("eva_encoder_tiny")
    checkpoint["model"] = without(checkpoint["model"], name)
    Run(tmp_path, checkpoint).expect_refused("missing", name)


def test_a_setting_unties_a_vocabulary(tmp_path):
    checkpoint = published.whole_translation(ENCODER)
    name = "decoder.embed_tokens.weight"
    for tensor in (name, OUTPUT):
        checkpoint["model"][tensor] = checkpoint["model"][tensor] + 1
    setting = "share_all_embeddings=false"
    Run(tmp_path, checkpoint).expect_refused(name, f"--set {setting} keeps it")
    assert name in Run(tmp_path, checkpoint, "--set", setting).tensors


def test_an_output_of_its_own_is_not_with_embeddings_of_all(tmp_path):
    checkpoint = published.whole_translation(ENCODER)
    run = Run(tmp_path, checkpoint, "--set", "share_decoder_input_output_embed=false")
    run.expect_refused("share_all_embeddings is true")


def test_positions_of_another_rank_are_named(tmp_path):
    checkpoint = learned_positions(77)
    checkpoint["model"]["decoder.embed_positions.weight"] = torch.ones(79)
    Run(tmp_path, checkpoint).expect_refused("decoder.embed_positions.weight has shape [79]")


def test_a_language_that_is_no_part_of_a_file_name_is_named(tmp_path):
    checkpoint = published.whole_translation(ENCODER)
    vars(checkpoint["cfg"]["model"]).update(source_lang="../en")
    run = Run(tmp_path, checkpoint, "--set", "tokenization=space")
    run.expect_refused("source_lang is '../en'")
