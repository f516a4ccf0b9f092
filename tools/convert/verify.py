#!/usr/bin/env python3
"""Compares a converted directory with the checkpoint it comes from, through the authors' own code.

    verify.py CHECKPOINT DIRECTORY --checkout FOLDER [--averaged]

FOLDER is a checkout of HKUNLP/efficient-attention. Needs PyTorch, timm and einops.

Its modules are built twice: from the checkpoint's arguments and tensors, and from config.json and
model.safetensors. Both must take their tensors without one missing or left over, and compute the
same from the same random input, to the last bit. For image classifiers that is the whole model, and
DIRECTORY gets cases.json and cases.safetensors, what the authors' code computes in float64, as in
the golden data. For models of text it is EVA attention in every layer, of a translation model those
of its encoder: fairseq is not imported.
"""

import argparse
import importlib
import json
import pathlib
import sys
import warnings
from functools import partial
from typing import Any

import numpy
import torch

import checkpoint
import from_fairseq
import from_timm
import safetensors_file
from conversion import Failure, State
from fairseq_common import Arguments
from restricted_pickle import Refused

IMAGES = 2
TOLERANCE_OVER_ERROR, LEAST_TOLERANCE = 10, 2e-6  # as the golden data's


def modules_of(checkout: pathlib.Path) -> Any:
    """The authors' package of attentions."""
    if not (checkout / "efficient-attention").is_dir():
        raise Failure(f"{checkout} has no folder efficient-attention")
    sys.path[:0] = [str(checkout / "efficient-attention"), str(checkout / "vit")]
    warnings.simplefilter("ignore")
    return importlib.import_module("efficient_attention")


def torch_state(tensors: dict[str, numpy.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(t) for name, t in tensors.items()}


def load(
    module: torch.nn.Module, tensors: dict[str, numpy.ndarray], source: str
) -> torch.nn.Module:
    """All tensors and no others, but for buffers, which follow from the arguments."""
    buffers = {name for name, _ in module.named_buffers()}
    missing, unexpected = module.load_state_dict(torch_state(tensors), strict=False)
    if wrong := [n for n in (*missing, *unexpected) if n not in buffers]:
        raise Failure(f"the authors' module and the tensors of {source} differ in {sorted(wrong)}")
    return module.requires_grad_(False).eval()


def expect_same(name: str, got: torch.Tensor, want: torch.Tensor) -> None:
    if not torch.equal(got, want):
        difference = (got - want).abs().max().item()
        raise Failure(f"{name}: the converted model differs by up to {difference:g}")


# ---- Image classifiers.


def classifier(package: Any, args: dict) -> torch.nn.Module:
    """The authors' model of these arguments, with the defaults of their program."""
    defaults = {"drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.0, "no_pos_emb": False}
    defaults |= {"patchify_stem": "default", "use_conv_patchify": False, "attn_name": "eva"}
    defaults |= {"use_glu": False, "mlp_ratio": 4, "qkv_bias": True, "in_chans": 3}
    attention = package.NestedNamespace(**from_timm.attention_arguments(args))
    namespace = package.NestedNamespace(**(defaults | args))
    namespace.attn_args = namespace.attn_specific_args = attention
    namespace.norm_layer = partial(torch.nn.LayerNorm, eps=from_timm.epsilon(args))
    models = importlib.import_module("models")
    is_pyramid = "embed_dims" in args
    return (models.pvt_legacy.PyramidVisionTransformerV2 if is_pyramid else
            models.efficient_vit.EfficientTransformer)(namespace)  # fmt: skip


def arguments_of(config: dict) -> dict:
    """config.json as the authors' arguments."""
    return config | {"attn_args": config["attn"], "norm_layer": {"eps": config["layer_norm_eps"]}}


def outputs(model: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"features": model.forward_features(image), "logits": model(image)}


def write_cases(model: torch.nn.Module, image: torch.Tensor, directory: pathlib.Path) -> None:
    single = outputs(model, image)
    double = outputs(model.double(), image.double())
    case = {
        "case": "c0",
        "kind": "classify",
        "batch": len(image),
        "ref_fp32_err": {},
        "tol_fp32": {},
    }
    tensors = {"c0.image": image.numpy()}
    for name, value in double.items():
        error = (single[name].double() - value).abs().max().item()
        case["ref_fp32_err"][name] = error
        case["tol_fp32"][name] = max(TOLERANCE_OVER_ERROR * error, LEAST_TOLERANCE)
        tensors[f"c0.{name}"] = value.float().numpy()
    safetensors_file.write(directory / "cases.safetensors", tensors)
    (directory / "cases.json").write_text(json.dumps({"cases": [case]}, indent=1) + "\n")


def verify_classifier(package: Any, state: State, args: dict, directory: pathlib.Path) -> str:
    config = json.loads((directory / "config.json").read_text())
    written = safetensors_file.read(directory / "model.safetensors")
    original = {name: t.numpy() for name, t in state.items()}
    image = torch.randn(IMAGES, config["in_chans"], config["input_size"], config["input_size"])
    converted = load(classifier(package, arguments_of(config)), written, str(directory))
    if args:
        want = outputs(load(classifier(package, args), original, "the checkpoint"), image)
        for name, got in outputs(converted, image).items():
            expect_same(name, got, want[name])
    write_cases(converted, image, directory)
    return (
        "the whole model" if args else "only that the tensors fit: the checkpoint has no arguments"
    )


# ---- Language models: the attention of every layer.


def attention(package: Any, attn: dict, dim: int, heads: int, is_causal: bool) -> torch.nn.Module:
    if is_causal:
        namespace = package.NestedNamespace(**attn)
        return package.CausalEVAttention(dim, heads, self_attention=True, attn_args=namespace)
    return package.EVA(**attn, dim=dim, num_heads=heads, qkv_bias=True)


def run(module: torch.nn.Module, x: torch.Tensor, is_causal: bool) -> torch.Tensor:
    """x [batch, tokens, dim]."""
    if not is_causal:
        return module(x)
    x = x.transpose(0, 1)
    return module(query=x, key=x, value=x)[0].transpose(0, 1)


def verify_language_model(package: Any, data: dict, state: State, directory: pathlib.Path) -> str:
    config = json.loads((directory / "config.json").read_text())
    written = safetensors_file.read(directory / "model.safetensors")
    is_causal = config["model_type"] == "eva_causal_lm"
    if config["model_type"] == "eva_translation":  # whose decoder has ordinary attention
        config = config["encoder"]
        written = {n.removeprefix("encoder."): t for n, t in written.items()}
    side, inner = ("decoder", "self_attn.") if is_causal else ("encoder", "self_attn.attn.")
    args = Arguments(data)
    told = args.get(f"attn_args_{side}")
    if not told:
        raise Failure(f"the checkpoint has no attn_args_{side} to build the authors' module with")
    heads = args.get(f"{side}_attention_heads", config["num_attention_heads"])
    dim = config["hidden_size"]
    x = torch.randn(IMAGES, 4 * config["attn"]["window_size"], dim)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"layers.{layer}.{inner}"
        new = {n.removeprefix(prefix): t for n, t in written.items() if n.startswith(prefix)}
        old = {
            n.partition(prefix)[2]: t.numpy()
            for n, t in state.items()
            if n.startswith(f"{side}.") and f".{prefix}" in n
        }
        converted = load(
            attention(package, config["attn"], dim, config["num_attention_heads"], is_causal),
            new,
            str(directory),
        )
        original = load(attention(package, told, dim, heads, is_causal), old, "the checkpoint")
        expect_same(f"layer {layer}", run(converted, x, is_causal), run(original, x, is_causal))
    return f"the attention of {config['num_hidden_layers']} layers of the {side}"


def verify(args: argparse.Namespace) -> str:
    torch.manual_seed(0)
    package = modules_of(args.checkout)
    data = checkpoint.read(args.checkpoint)
    try:
        state = from_timm.state_of(data, args.averaged)
    except Failure:
        state = {}
    if from_timm.recognises(state):
        return verify_classifier(package, state, from_timm.arguments(data), args.directory)
    state = from_fairseq.state_of(data, args.averaged)
    return verify_language_model(package, data, state, args.directory)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=pathlib.Path, help="what was converted")
    parser.add_argument("directory", type=pathlib.Path, help="what convert.py wrote")
    parser.add_argument("--checkout", type=pathlib.Path, required=True, help="the authors' code")
    parser.add_argument("--averaged", action="store_true", help="as for convert.py")
    args = parser.parse_args(arguments)
    try:
        print(f"the same to the last bit: {verify(args)}")
    except (Failure, Refused, ImportError) as error:
        print(f"verify.py: {args.directory}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
