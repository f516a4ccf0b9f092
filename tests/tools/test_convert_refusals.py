"""tools/convert: what is wrong with a checkpoint is named, whatever it is."""

import argparse

import pytest
import torch

import published
from test_convert import ADAPTIVE, ENCODER, LM, MODELS, PVT, VIT, Run, without


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


def test_a_bias_of_queries_that_a_block_lacks_is_named(tmp_path):
    checkpoint = published.image_classifier(VIT)
    name = "blocks.0.attn.qkv.bias"
    checkpoint["model"] = without(checkpoint["model"], name)
    Run(tmp_path, checkpoint).expect_refused("missing", name)


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


def test_the_final_norm_of_a_language_model_is_as_its_arguments_say(tmp_path):
    checkpoint = published.language_model("eva_lm_plain")
    told = checkpoint["cfg"]["model"]["no_decoder_final_norm"]
    checkpoint["cfg"]["model"]["no_decoder_final_norm"] = not told
    Run(tmp_path, checkpoint).expect_refused("no_decoder_final_norm")


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


def test_what_no_check_foresees_is_a_line_with_the_exception(tmp_path):
    run = Run(tmp_path, with_arguments(ADAPTIVE, adaptive_input_factor="four"))
    run.expect_ended("checkpoint.pt: unforeseen ValueError: invalid literal for int()")
    assert run.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "model").write_text("a file")
    run = Run(tmp_path, published.image_classifier(VIT))
    assert run.status == 2 and "File exists" in run.stderr
