"""tools/convert: checkpoints of every published model become what the golden models are."""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
from collections import OrderedDict

import numpy
import pytest
import torch

import convert
import golden
import published
import safetensors_file

MODELS = {
    "eva_vit_tiny": published.image_classifier,
    "eva_vit_overlap": published.image_classifier,
    "eva_pvt_tiny": published.image_classifier,
    "eva_encoder_tiny": published.translation,
    "eva_lm_adaptive": published.language_model,
    "eva_lm_plain": published.language_model,
}


VIT, PVT, ENCODER, LM = "eva_vit_tiny", "eva_pvt_tiny", "eva_encoder_tiny", "eva_lm_plain"
ADAPTIVE = "eva_lm_adaptive"

# A translation model has a decoder, too.
ENCODER_ALONE = ["--set", "model_type=eva_encoder"]


def options_for(name: str) -> list[str]:
    return ENCODER_ALONE if MODELS[name] is published.translation else []


class Run:
    """convert.py on `checkpoint`, saved by torch, in this process."""

    def __init__(self, folder, checkpoint, *options: str, zipped: bool = True) -> None:
        path = folder / "checkpoint.pt"
        if isinstance(checkpoint, bytes):
            path.write_bytes(checkpoint)
        else:
            torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
        self.out = folder / "model"
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            self.status = convert.main([str(path), "--out", str(self.out), *options])
        self.stdout, self.stderr = stdout.getvalue(), stderr.getvalue()

    @property
    def config(self) -> dict:
        assert self.status == 0, self.stderr
        return json.loads((self.out / "config.json").read_text())

    @property
    def tensors(self) -> dict:
        assert self.status == 0, self.stderr
        return safetensors_file.read(self.out / "model.safetensors")

    def expect_refused(self, *words: str) -> None:
        """By a check of ours, not by the net below them."""
        assert convert.UNFORESEEN_WORD not in self.stderr
        self.expect_ended(*words)

    def expect_ended(self, *words: str) -> None:
        assert self.status == 2, self.stdout
        for word in ("checkpoint.pt", *words):
            assert word in self.stderr
        assert not self.out.exists()


def expect_equal(tensors: dict, want: dict) -> None:
    assert tensors.keys() == want.keys()
    for name, tensor in tensors.items():
        numpy.testing.assert_array_equal(tensor, want[name], err_msg=name)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", MODELS)
def test_gives_the_golden_directory(tmp_path, name, zipped):
    run = Run(tmp_path, MODELS[name](name), *options_for(name), zipped=zipped)
    assert run.config == golden.read_json(f"{name}/config.json")
    expect_equal(run.tensors, golden.read_tensors(f"{name}/model.safetensors"))


@pytest.mark.parametrize("name", ["eva_vit_tiny", "eva_encoder_tiny", "eva_lm_adaptive"])
def test_takes_weights_of_distributed_training(tmp_path, name):
    checkpoint = MODELS[name](name)
    checkpoint["model"] = {f"module.{key}": t for key, t in checkpoint["model"].items()}
    run = Run(tmp_path, checkpoint, *options_for(name))
    expect_equal(run.tensors, golden.read_tensors(f"{name}/model.safetensors"))


def test_takes_the_averaged_weights_when_asked(tmp_path):
    run = Run(tmp_path, published.image_classifier("eva_vit_tiny"), "--averaged")
    weights = golden.read_tensors("eva_vit_tiny/model.safetensors")
    expect_equal(run.tensors, {name: t + 1 for name, t in weights.items()})


def test_without_averaged_weights_says_so(tmp_path):
    checkpoint = published.image_classifier("eva_vit_tiny") | {"model_ema": None}
    Run(tmp_path, checkpoint, "--averaged").expect_refused("averaged")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}], ids=["bare", "timm"])
def test_takes_weights_alone_with_what_they_do_not_tell(tmp_path, wrap):
    weights = wrap(published.image_classifier("eva_vit_tiny")["model"])
    settings = ["window_size=7", "num_landmarks=49", "attn_2d=true", "overlap_window=false"]
    options = [part for s in settings for part in ("--set", f"attn.{s}")]
    run = Run(tmp_path, weights, *options)
    assert run.config == golden.read_json("eva_vit_tiny/config.json")


def test_asks_for_what_the_weights_do_not_tell(tmp_path):
    run = Run(tmp_path, published.image_classifier("eva_vit_tiny")["model"])
    run.expect_refused("--set attn.window_size", "--set attn.num_landmarks")


def test_a_setting_that_the_config_does_not_have_is_an_error(tmp_path):
    run = Run(tmp_path, published.image_classifier("eva_vit_tiny"), "--set", "attn.windows=7")
    run.expect_refused("attn.windows")


def test_reads_omegaconf_without_it(tmp_path):
    checkpoint = published.language_model("eva_lm_adaptive")
    checkpoint["cfg"] = published.DictConfig(checkpoint["cfg"])
    run = Run(tmp_path, checkpoint)
    assert run.config == golden.read_json("eva_lm_adaptive/config.json")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_widens_or_rounds_to_float32(tmp_path, dtype):
    checkpoint = published.image_classifier("eva_vit_tiny")
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in checkpoint["model"].items()}
    run = Run(tmp_path, checkpoint | {"model": state})
    want = {k: t.float().numpy() for k, t in state.items() if t.is_floating_point()}
    expect_equal(run.tensors, want)


def test_takes_tensors_that_are_views(tmp_path):
    checkpoint = published.image_classifier("eva_vit_tiny")
    state = checkpoint["model"]
    for name in [n for n in state if n.endswith("fc1.weight")]:
        state[name] = torch.cat([state[name], state[name]]).t().contiguous().t()[: len(state[name])]
    weights = golden.read_tensors("eva_vit_tiny/model.safetensors")
    expect_equal(Run(tmp_path, checkpoint).tensors, weights)


def test_renames_the_norms_of_old_checkpoints(tmp_path):
    checkpoint = published.translation("eva_encoder_tiny")
    old = {"self_attn_layer_norm": "layer_norms.0", "final_layer_norm": "layer_norms.1"}
    state = {}
    for name, tensor in checkpoint["model"].items():
        for new, before in old.items():
            name = name.replace(new, before)
        state[name] = tensor
    run = Run(tmp_path, checkpoint | {"model": state}, *ENCODER_ALONE)
    expect_equal(run.tensors, golden.read_tensors("eva_encoder_tiny/model.safetensors"))
    assert "renamed" in run.stdout


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


def test_the_final_norm_of_a_language_model_is_as_its_arguments_say(tmp_path):
    checkpoint = published.language_model("eva_lm_plain")
    told = checkpoint["cfg"]["model"]["no_decoder_final_norm"]
    checkpoint["cfg"]["model"]["no_decoder_final_norm"] = not told
    Run(tmp_path, checkpoint).expect_refused("no_decoder_final_norm")


@pytest.mark.parametrize(
    "name", ["decoder.layers.1.fc2.bias", "decoder.layers.0.encoder_attn.k_proj.weight"]
)
def test_a_translation_model_lacks_nothing(tmp_path, name):
    checkpoint = published.whole_translation("eva_encoder_tiny")
    checkpoint["model"] = without(checkpoint["model"], name)
    Run(tmp_path, checkpoint).expect_refused("missing", name)


def test_masked_language_model_keeps_its_head_and_positions(tmp_path):
    checkpoint = published.masked_language_model("eva_encoder_tiny")
    run = Run(tmp_path, checkpoint)
    kept = {"positions": "learned", "max_source_positions": 40, "embed_scale": 1}
    kept |= {"layernorm_embedding": True, "masked_lm_head": True, "hidden_act": "gelu"}
    assert kept.items() <= run.config.items()
    want = {
        name.removeprefix("encoder.").removeprefix("sentence_encoder."): t.numpy()
        for name, t in checkpoint["model"].items()
        if name != "encoder.lm_head.weight"
    }
    expect_equal(run.tensors, want)


def test_a_language_model_that_begins_with_a_token_of_its_own_says_so(tmp_path):
    checkpoint = published.language_model("eva_lm_plain")
    checkpoint["cfg"]["task"]["add_bos_token"] = True
    assert Run(tmp_path, checkpoint).config["bos_token_id"] == 0


def test_reports_the_fate_of_every_tensor(tmp_path):
    checkpoint = published.language_model("eva_lm_adaptive")
    run = Run(tmp_path, checkpoint)
    lines = run.stdout.splitlines()
    assert len(lines) == len(checkpoint["model"]) + 2  # the sums, and that it lacks dict.txt
    assert sum(line.startswith("kept") for line in lines) == len(run.tensors)
    tied = [line for line in lines if "adaptive_softmax.tail.1.2.weight" in line]
    assert tied[0].startswith("dropped") and "tied to embed_tokens.embeddings.2.0.weight" in tied[0]


# ---- What is wrong is named.


def without(state: dict, name: str) -> OrderedDict:
    return OrderedDict((key, t) for key, t in state.items() if key != name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: without(s, "blocks.1.norm2.bias"), ["missing", "blocks.1.norm2.bias", "[64]"]),
        (
            lambda s: s | {"head.bias": torch.zeros(11)},
            ["wrong shape", "head.bias", "[11]", "[10]"],
        ),
        (lambda s: s | {"cls_token": torch.zeros(1, 1, 64)}, ["unexpected", "cls_token"]),
        (lambda s: without(s, "pos_embed"), ["pos_embed"]),
        (
            lambda s: s | {"head.bias": torch.full((10,), torch.nan)},
            ["not finite", "head.bias"],
        ),
        (
            lambda s: s | {"blocks.0.attn.relative_position_index": published.offset_index(7) + 1},
            ["blocks.0.attn.relative_position_index"],
        ),
    ],
    ids=["missing", "shape", "unexpected", "no-model", "nan", "index"],
)
def test_wrong_weights_are_named(tmp_path, change, words):
    checkpoint = published.image_classifier("eva_vit_tiny")
    checkpoint["model"] = change(checkpoint["model"])
    Run(tmp_path, checkpoint).expect_refused(*words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_heads": 4}, ["num_heads = 4", "tensors 2"]),
        ({"attn_name": "lara"}, ["attn_name", "'lara'"]),
        ({"patchify_stem": "conv"}, ["patchify_stem", "'conv'"]),
        ({"mlp_ratio": 3}, ["wrong shape", "mlp.fc1.weight"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_arguments_of_another_model_are_named(tmp_path, changes, words):
    checkpoint = published.image_classifier("eva_vit_tiny")
    vars(checkpoint["args"]).update(changes)
    Run(tmp_path, checkpoint).expect_refused(*words)


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


OUTPUT = "decoder.output_projection.weight"


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


@pytest.mark.parametrize("name", [VIT, PVT])
def test_a_classifier_may_have_no_bias_of_queries(tmp_path, name):
    checkpoint = MODELS[name](name)
    state = checkpoint["model"]
    checkpoint["model"] = {n: t for n, t in state.items() if not n.endswith(".qkv.bias")}
    Run(tmp_path, checkpoint).expect_refused("qkv_bias = True")
    del checkpoint["args"].qkv_bias
    run = Run(tmp_path, checkpoint)
    assert run.config["qkv_bias"] is False
    assert not [n for n in run.tensors if n.endswith(".qkv.bias")]


def test_a_bias_of_queries_that_a_block_lacks_is_named(tmp_path):
    checkpoint = published.image_classifier(VIT)
    name = "blocks.0.attn.qkv.bias"
    checkpoint["model"] = without(checkpoint["model"], name)
    Run(tmp_path, checkpoint).expect_refused("missing", name)


def test_a_language_model_without_positions_is_refused(tmp_path):
    checkpoint = published.language_model("eva_lm_plain")
    checkpoint["cfg"]["model"]["no_token_positional_embeddings"] = True
    Run(tmp_path, checkpoint).expect_refused("no_token_positional_embeddings is True")


def test_a_language_model_without_fixed_chunks_is_refused(tmp_path):
    checkpoint = published.language_model("eva_lm_plain")
    attention = checkpoint["cfg"]["model"]["attn_args_decoder"]
    checkpoint["cfg"]["model"]["attn_args_decoder"] = attention | {"chunk_size": None}
    Run(tmp_path, checkpoint).expect_refused("chunk_size")


def test_a_missing_layer_is_named(tmp_path):
    checkpoint = published.language_model("eva_lm_plain")
    state = checkpoint["model"]
    checkpoint["model"] = {k: t for k, t in state.items() if ".layers.0." not in k}
    Run(tmp_path, checkpoint).expect_refused("layers.0")


def test_another_kind_of_checkpoint_is_refused(tmp_path):
    Run(tmp_path, {"weights": torch.ones(3), "epoch": 1}).expect_refused("epoch", "weights")
    Run(tmp_path, argparse.Namespace(a=1)).expect_refused()


def with_arguments(name: str, **changes) -> dict:
    checkpoint = MODELS[name](name)
    model = checkpoint["cfg"]["model"] if "cfg" in checkpoint else checkpoint["args"]
    (model if isinstance(model, dict) else vars(model)).update(changes)
    return checkpoint


def with_tensors(name: str, tensors: dict) -> dict:
    checkpoint = MODELS[name](name)
    return checkpoint | {"model": checkpoint["model"] | tensors}


def with_tensor(name: str, tensor: str, *shape: int) -> dict:
    return with_tensors(name, {tensor: torch.ones(shape)})


ODD = {
    "keys of several types": (lambda: {1: 2, "a": 3, None: 4}, ["'a', 1, None"]),
    "a number for a name": (lambda: {1: torch.ones(2)}, ["it holds 1"]),
    "a number among names": (
        lambda: with_tensors(VIT, {1: torch.ones(2)}),
        ["it holds 'args', 'epoch', 'model'"],
    ),
    "no model": (lambda: {}, ["it holds a dict"]),
    "a name of two lines": (
        lambda: with_tensors(VIT, {"a\nb": torch.ones(2)}),
        ["unexpected   a\\nb  [2]"],
    ),
    "half a character": (
        lambda: with_tensors(VIT, {"\ud800": torch.ones(2)}),
        ["unexpected   \\ud800"],
    ),
    "args of a classifier": (lambda: published.image_classifier(VIT) | {"args": 5}, ["args is 5"]),
    "args": (lambda: published.language_model(LM) | {"cfg": None, "args": 5}, ["args is 5"]),
    "cfg": (lambda: published.language_model(LM) | {"cfg": "x"}, ["cfg is 'x'"]),
    "cfg.model": (lambda: published.language_model(LM) | {"cfg": {"model": [1]}}, ["[1]"]),
    "cfg.task": (
        lambda: published.language_model(LM) | {"cfg": {"model": {}, "task": 3}},
        ["cfg.task is 3"],
    ),
    "attn_args": (lambda: with_arguments(VIT, attn_args=7), ["args.attn_args is 7"]),
    "attn_args_encoder": (
        lambda: with_arguments(ENCODER, attn_args_encoder=[7]),
        ["args.attn_args_encoder is [7]"],
    ),
    "attn_args_decoder": (
        lambda: with_arguments(LM, attn_args_decoder="x"),
        ["args.attn_args_decoder is 'x'"],
    ),
    "a window": (
        lambda: with_arguments(VIT, attn_args=published.config(VIT)["attn"] | {"window_size": "7"}),
        ["attn.window_size is '7'"],
    ),
    "no landmarks": (
        lambda: with_arguments(VIT, attn_args=published.config(VIT)["attn"] | {"num_landmarks": 0}),
        ["attn.num_landmarks is 0"],
    ),
    "a chunk of nothing": (
        lambda: with_arguments(
            LM, attn_args_decoder=published.config(LM)["attn"] | {"chunk_size": 0}
        ),
        ["attn.chunk_size is 0"],
    ),
    "heads of two stages": (lambda: with_arguments(PVT, num_heads=[1, 2]), ["num_heads is [1, 2]"]),
    "bytes": (lambda: with_arguments(LM, max_target_positions=b"x"), ["max_target_positions"]),
    "a long list": (
        lambda: with_arguments(VIT, embed_dim=[[8] * 99] * 99),
        ["embed_dim = [[8, 8, 8, 8, 8, 8, ...], ["],
    ),
    "patches": (
        lambda: with_tensor(VIT, "patch_embed.proj.weight", 64, 3),
        ["patch_embed.proj.weight has shape [64, 3]; needed are 4 sizes"],
    ),
    "positions": (lambda: with_tensor(VIT, "pos_embed", 64), ["pos_embed has shape [64]"]),
    "nothing": (
        lambda: with_tensor(VIT, "blocks.0.attn.adaptive_mu_k.0.weight", 0, 0),
        ["adaptive_mu_k.0.weight has shape [0, 0]"],
    ),
    "a norm": (lambda: with_tensor(PVT, "norm1.weight"), ["norm1.weight has shape []"]),
    "embeddings": (
        lambda: with_tensor(ENCODER, "encoder.embed_tokens.weight", 5),
        ["embed_tokens.weight has shape [5]"],
    ),
    "words": (
        lambda: with_tensor(LM, "decoder.embed_tokens.weight"),
        ["embed_tokens.weight has shape []"],
    ),
    "a band": (
        lambda: with_tensor(ADAPTIVE, "decoder.embed_tokens.embeddings.1.0.weight", 3),
        ["embed_tokens.embeddings.1.0.weight has shape [3]"],
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_named_in_a_line(tmp_path, name):
    make, words = ODD[name]
    run = Run(tmp_path, make())
    run.expect_refused(*words)
    assert run.stderr.count("\n") == 1


def test_averaged_weights_that_are_none_are_named(tmp_path):
    checkpoint = published.language_model(LM) | {"extra_state": 5}
    Run(tmp_path, checkpoint, "--averaged").expect_refused("averaged")


def test_positions_of_another_rank_are_named(tmp_path):
    checkpoint = learned_positions(77)
    checkpoint["model"]["decoder.embed_positions.weight"] = torch.ones(79)
    Run(tmp_path, checkpoint).expect_refused("decoder.embed_positions.weight has shape [79]")


def test_a_language_that_is_no_part_of_a_file_name_is_named(tmp_path):
    checkpoint = published.whole_translation(ENCODER)
    vars(checkpoint["cfg"]["model"]).update(source_lang="../en")
    run = Run(tmp_path, checkpoint, "--set", "tokenization=space")
    run.expect_refused("source_lang is '../en'")


def test_what_no_check_foresees_is_a_line_with_the_exception(tmp_path):
    run = Run(tmp_path, with_arguments(ADAPTIVE, adaptive_input_factor="four"))
    run.expect_ended("checkpoint.pt: unforeseen ValueError: invalid literal for int()")
    assert run.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "model").write_text("a file")
    run = Run(tmp_path, published.image_classifier(VIT))
    assert run.status == 2 and "File exists" in run.stderr


def test_the_command_needs_no_torch_and_ends_with_2_on_bad_input(tmp_path):
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    torch.save(published.translation("eva_encoder_tiny"), good)
    bad.write_bytes(good.read_bytes()[:1000])
    # In front of the real one, if there is one.
    (tmp_path / "torch.py").write_text("raise ImportError('convert.py imports torch')\n")
    for path, status in ((good, 0), (bad, 2)):
        command = [sys.executable, "-B", convert.__file__, path, "--out", tmp_path / "out"]
        command += ENCODER_ALONE
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert run.returncode == status, run.stderr
        assert "Traceback" not in run.stderr
