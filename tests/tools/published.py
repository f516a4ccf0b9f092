"""Checkpoints as the published code writes them, made from the golden models."""

import argparse
import functools
import json
import pathlib
import sys
import types
import typing
from collections import OrderedDict
from typing import Any

import numpy
import torch

import golden
import safetensors_file


class NestedNamespace(argparse.Namespace):
    """The published code keeps its arguments in one of these."""


class ContainerMetadata:
    """omegaconf's, with types as it writes them."""

    def __init__(self) -> None:
        self.ref_type, self.object_type = typing.Dict[str, int], dict
        self.key_type, self.element_type = int, typing.Any


class DictConfig:
    """omegaconf's, as far as a pickle shows it."""

    def __init__(self, content: dict) -> None:
        self._metadata = ContainerMetadata()
        self._content = {key: node_of(value, self) for key, value in content.items()}
        self._parent = None


class AnyNode:
    def __init__(self, value: Any, parent: DictConfig) -> None:
        self._val, self._parent = value, parent


def node_of(value: Any, parent: DictConfig) -> DictConfig | AnyNode:
    return DictConfig(value) if isinstance(value, dict) else AnyNode(value, parent)


def pretend(cls: type, module: str) -> None:
    """Lets pickle write `cls` under the name that it has where it is really from."""
    cls.__module__ = module
    for name in (module.partition(".")[0], module):
        sys.modules.setdefault(name, types.ModuleType(name))
    setattr(sys.modules[module], cls.__name__, cls)


pretend(NestedNamespace, "efficient_attention")
pretend(ContainerMetadata, "omegaconf.base")
pretend(DictConfig, "omegaconf.dictconfig")
pretend(AnyNode, "omegaconf.nodes")


def weights(name: str, prefix: str = "") -> OrderedDict:
    tensors = golden.read_tensors(f"{name}/model.safetensors")
    return OrderedDict((prefix + key, torch.from_numpy(t)) for key, t in tensors.items())


def config(name: str) -> dict:
    return golden.read_json(f"{name}/config.json")


def offset_index(window: int) -> torch.Tensor:
    """relative_position_index of windows without overlap, written as the sum that it is."""
    index = torch.zeros(window**2, window**2, dtype=torch.int64)
    for q in range(window**2):
        for k in range(window**2):
            rows, columns = q // window - k // window, q % window - k % window
            index[q, k] = (rows + window - 1) * window + columns + window - 1
    return index


def image_classifier(name: str) -> dict:
    """As vit/main.py saves it, in the middle of a training."""
    c = config(name)
    state = weights(name)
    for table in [key for key in state if key.endswith("local_relative_position_bias_table")]:
        index = offset_index(c["attn"]["window_size"])
        state[table.replace("local_relative_position_bias_table", "relative_position_index")] = (
            index
        )
    told = {key: c[key] for key in ("num_classes", "in_chans", "input_size", "num_heads")}
    for key in ("mlp_ratio", "patch_size", "embed_dim", "depth", "use_glu"):
        told |= {key: c[key]} if key in c else {}
    for key in ("embed_dims", "depths", "mlp_ratios", "sr_ratios"):
        told |= {key: c[key]} if key in c else {}
    args = NestedNamespace(
        **told,
        attn_name="eva",
        attn_args=NestedNamespace(**c["attn"]),
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=c["layer_norm_eps"]),
        qkv_bias=(True,),  # the comma is the published code's
        lr=numpy.float64(5e-4),
        betas=None,
    )
    moments = {i: {"step": 1, "exp_avg": torch.ones(2)} for i in range(3)}
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-3, "params": [0, 1, 2]}]}
    ema = OrderedDict((key, t + 1 if t.is_floating_point() else t) for key, t in state.items())
    return {"model": state, "model_ema": ema, "optimizer": optimizer, "epoch": 3, "args": args}


def fairseq(state: OrderedDict, model_args: Any, **parts: Any) -> dict:
    return {
        "args": None,
        "cfg": {"_name": None, "model": model_args, "task": {"tokens_per_sample": 512}},
        "model": state,
        "criterion": None,
        "optimizer_history": [{"num_updates": 7, "lr_scheduler_state": {"best": None}}],
        "task_state": {},
        "extra_state": {"metrics": [(0, "loss", "AverageMeter", {"sum": torch.tensor(2.0)})]},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []},
    } | parts


def encoder_args(name: str) -> argparse.Namespace:
    c = config(name)
    return argparse.Namespace(
        arch="transformer_wmt_en_de",
        encoder_embed_dim=c["hidden_size"],
        encoder_ffn_embed_dim=c["intermediate_size"],
        encoder_attention_heads=c["num_attention_heads"],
        encoder_layers=c["num_hidden_layers"],
        encoder_normalize_before=c["normalize_before"],
        activation_fn=c["hidden_act"],
        max_source_positions=c["max_source_positions"],
        attn_name_encoder="eva",
        attn_args_encoder=NestedNamespace(**c["attn"]),
    )


def translation(name: str) -> dict:
    state = weights(name, "encoder.")
    state["encoder.version"] = torch.tensor([3.0])
    state["encoder.embed_positions._float_tensor"] = torch.zeros(1)
    state["decoder.version"] = torch.tensor([3.0])
    state["decoder.embed_tokens.weight"] = state["encoder.embed_tokens.weight"]
    state["decoder.layers.0.self_attn.k_proj.weight"] = torch.ones(4, 4)
    state["decoder.output_projection.weight"] = state["encoder.embed_tokens.weight"]
    return fairseq(state, encoder_args(name))


def whole_translation(name: str, shares_all: bool = True) -> dict:
    """The golden encoder with a decoder of random weights, with fewer heads."""
    checkpoint = translation(name)
    c, state = config(name), checkpoint["model"]
    dim, ffn = c["hidden_size"], 3 * c["hidden_size"]
    numbers = torch.Generator().manual_seed(1)
    random = lambda *shape: torch.randn(*shape, generator=numbers)  # noqa: E731
    for i in range(2):
        layer = f"decoder.layers.{i}"
        for attention in ("self_attn", "encoder_attn"):
            for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
                state[f"{layer}.{attention}.{projection}.weight"] = random(dim, dim)
                state[f"{layer}.{attention}.{projection}.bias"] = random(dim)
        for norm in ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"):
            state |= {f"{layer}.{norm}.weight": random(dim), f"{layer}.{norm}.bias": random(dim)}
        state |= {f"{layer}.fc1.weight": random(ffn, dim), f"{layer}.fc1.bias": random(ffn)}
        state |= {f"{layer}.fc2.weight": random(dim, ffn), f"{layer}.fc2.bias": random(dim)}
    if not shares_all:
        state["decoder.embed_tokens.weight"] = random(50, dim)
        state["decoder.output_projection.weight"] = random(50, dim)
    args = vars(checkpoint["cfg"]["model"])
    args.update(
        decoder_embed_dim=dim,
        decoder_ffn_embed_dim=ffn,
        decoder_attention_heads=2,
        decoder_layers=2,
        decoder_normalize_before=False,
        max_target_positions=77,
        share_all_embeddings=shares_all,
        share_decoder_input_output_embed=shares_all,
        source_lang="de",
        target_lang="en",
    )
    return checkpoint


def checkpoint_of(directory: pathlib.Path) -> dict:
    """Of a translation model as evaserve has it, with two vocabularies."""
    c = json.loads((directory / "config.json").read_text())
    tensors = safetensors_file.read(directory / "model.safetensors")
    args = {"share_all_embeddings": False, "share_decoder_input_output_embed": False}
    for side, part, longest in (
        ("encoder", c["encoder"], "max_source_positions"),
        ("decoder", c["decoder"], "max_target_positions"),
    ):
        args |= {
            f"{side}_embed_dim": part["hidden_size"],
            f"{side}_ffn_embed_dim": part["intermediate_size"],
            f"{side}_attention_heads": part["num_attention_heads"],
            f"{side}_layers": part["num_hidden_layers"],
            f"{side}_normalize_before": part["normalize_before"],
            f"{side}_learned_pos": part["positions"] == "learned",
            longest: part[longest],
        }
    attention = NestedNamespace(**c["encoder"]["attn"])
    args |= {"attn_name_encoder": "eva", "attn_args_encoder": attention, "activation_fn": "relu"}
    state = OrderedDict((name, torch.from_numpy(t)) for name, t in tensors.items())
    return fairseq(state, argparse.Namespace(**args, source_lang="en", target_lang="de"))


def masked_language_model(name: str) -> dict:
    """A RoBERTa whose layers are those of a golden encoder."""
    c = config(name)
    dim, vocabulary, positions = c["hidden_size"], c["vocab_size"], 40
    state = weights(name, "encoder.sentence_encoder.")
    embeddings = state["encoder.sentence_encoder.embed_tokens.weight"]
    state["encoder.sentence_encoder.embed_positions.weight"] = torch.randn(positions + 2, dim)
    for norm in ("encoder.sentence_encoder.layernorm_embedding", "encoder.lm_head.layer_norm"):
        state |= {f"{norm}.weight": torch.randn(dim), f"{norm}.bias": torch.randn(dim)}
    state["encoder.lm_head.weight"] = embeddings
    state["encoder.lm_head.bias"] = torch.randn(vocabulary)
    state["encoder.lm_head.dense.weight"] = torch.randn(dim, dim)
    state["encoder.lm_head.dense.bias"] = torch.randn(dim)
    args = encoder_args(name)
    args.activation_fn, args.max_positions, args.no_scale_embedding = "gelu", positions, True
    return fairseq(state, None, args=args, cfg=None)


def language_model_args(name: str) -> dict:
    c = config(name)
    cutoffs = ",".join(map(str, c["adaptive_cutoff"])) if c["adaptive_input"] else None
    return {
        "_name": "transformer_lm",
        "decoder_embed_dim": c["hidden_size"],
        "decoder_ffn_embed_dim": c["intermediate_size"],
        "decoder_attention_heads": c["num_attention_heads"],
        "decoder_layers": c["num_hidden_layers"],
        "activation_fn": c["hidden_act"],
        "no_decoder_final_norm": not c["final_norm"],
        "adaptive_input": c["adaptive_input"],
        "adaptive_input_cutoff": cutoffs,
        "adaptive_softmax_cutoff": cutoffs,
        "adaptive_input_factor": float(c["adaptive_factor"] or 4),
        "tie_adaptive_weights": c["tie_adaptive_weights"],
        "tie_adaptive_proj": c["tie_adaptive_proj"],
        "share_decoder_input_output_embed": c["share_input_output_embed"],
        "tokens_per_sample": "${task.tokens_per_sample}",
        "attn_name_decoder": "causal_eva",
        "attn_args_decoder": c["attn"],
    }


def language_model(name: str) -> dict:
    state = weights(name, "decoder.")
    for tied, other in config(name)["tied_tensors"].items():
        state[f"decoder.{tied}"] = state[f"decoder.{other}"]
    for marker in ("version", "adaptive_softmax.version", "embed_tokens._float_tensor"):
        state[f"decoder.{marker}"] = torch.tensor([3.0])
    return fairseq(state, language_model_args(name))
