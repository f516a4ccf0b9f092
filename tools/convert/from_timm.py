"""The authors' image classifiers (their folder vit/), saved in timm's manner: EVA-ViT and
EVA-PVTv2."""

import itertools
from typing import Any

import numpy

from checkpoint import Tensor
from conversion import (
    UNKNOWN,
    Conversion,
    Drop,
    Failure,
    Shapes,
    State,
    agree,
    check_attention,
    convert,
    count,
    dictionary,
    eva_attention,
    eva_attention_config,
    extension_of,
    layer_norm,
    linear,
    override,
    ratio,
    require,
    shape_of,
    shown,
    without_prefix,
)

WEIGHTS, AVERAGED = ("model", "state_dict"), ("model_ema", "state_dict_ema")
STAGES = (1, 2, 3, 4)
PUBLISHED_SR_RATIOS = [8, 4, 2, 1]


def is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in value.items())
    )


def state_of(checkpoint: Any, averaged: bool) -> State:
    """The tensors of `model`, of `model_ema` if `averaged`, or the checkpoint itself."""
    keys = AVERAGED if averaged else WEIGHTS
    for key in keys:
        if isinstance(checkpoint, dict) and is_state(checkpoint.get(key)):
            return without_prefix(checkpoint[key], "module.")
    if is_state(checkpoint) and not averaged:
        return without_prefix(checkpoint, "module.")
    raise Failure(f"no dictionary of tensors called {' or '.join(keys)}")


def recognises(state: State) -> bool:
    return "patch_embed.proj.weight" in state or "patch_embed1.proj.weight" in state


def recomputed_index(attn: dict) -> Drop:
    """The buffer of indices into the table of relative positions, if it is what `attn` gives."""

    def check(name: str, state: State) -> str | None:
        window, extension = attn["window_size"], extension_of(attn)
        q, k = numpy.arange(window), numpy.arange(-extension, window + extension)
        offset = q[:, None] - k[None] + extension + window - 1
        rows = offset[:, None, :, None] * (2 * extension + window)
        index = (rows + offset[None, :, None, :]).reshape(window**2, -1)
        if numpy.array_equal(state[name].numpy(), index):
            return None
        return f"is not the index of windows of {window} with {extension} around them"

    return Drop(
        r".*\.relative_position_index", "follows from window_size and overlap_window", check
    )


def epsilon(args: dict) -> float:
    norm = args.get("norm_layer")
    return norm.get("eps", 1e-6) if isinstance(norm, dict) else 1e-6


def arguments(checkpoint: Any) -> dict:
    # Weights alone are a dictionary of tensors, one of which may have this name.
    told = isinstance(checkpoint, dict) and not is_state(checkpoint)
    args = dictionary("args", checkpoint.get("args") if told else None)
    require("args.attn_name", args.get("attn_name", "eva"), "eva")
    return args


def attention_arguments(args: dict) -> dict:
    return dictionary("args.attn_args", args.get("attn_specific_args") or args.get("attn_args"))


def has_qkv_bias(state: State, args: dict) -> bool:
    told = args.get("qkv_bias")  # published as (True,)
    seen = any(name.endswith(".qkv.bias") for name in state)
    return agree("qkv_bias", None if told is None else bool(told), seen)


def vit_config(state: State, args: dict) -> dict:
    require("args.patchify_stem", args.get("patchify_stem", "default"), "default")
    require("args.no_pos_emb", args.get("no_pos_emb", False), False)
    dim, channels, patch, _ = shape_of(state, "patch_embed.proj.weight", 4)
    side = shape_of(state, "pos_embed", 4)[1]
    fc1, _ = shape_of(state, "blocks.0.mlp.fc1.weight", 2)
    _, hidden = shape_of(state, "blocks.0.mlp.fc2.weight", 2)
    head_dim, _ = shape_of(state, "blocks.0.attn.adaptive_mu_k.0.weight", 2)
    use_glu = fc1 != hidden
    return {
        "model_type": "eva_vit",
        "num_classes": agree(
            "num_classes", args.get("num_classes"), shape_of(state, "head.weight", 2)[0]
        ),
        "in_chans": agree("in_chans", args.get("in_chans"), channels),
        "mlp_ratio": args.get("mlp_ratio", 4 if use_glu else ratio(hidden, dim)),
        "qkv_bias": has_qkv_bias(state, args),
        "layer_norm_eps": epsilon(args),
        "adaptive_mu_layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "attn": eva_attention_config(state, "blocks.0.attn", attention_arguments(args)),
        "input_size": agree("input_size", args.get("input_size"), side * patch),
        "patch_size": agree("patch_size", args.get("patch_size"), patch),
        "embed_dim": agree("embed_dim", args.get("embed_dim"), dim),
        "num_heads": agree("num_heads", args.get("num_heads"), dim // head_dim),
        "depth": agree("depth", args.get("depth"), count(state, r"blocks\.(\d+)\.")),
        "use_glu": agree("use_glu", args.get("use_glu"), use_glu),
    }


def vit_shapes(config: dict) -> Shapes:
    dim, patch = config["embed_dim"], config["patch_size"]
    side, hidden = config["input_size"] // patch, int(dim * config["mlp_ratio"])
    if config["use_glu"]:
        hidden = hidden * 2 // 3
    shapes = {
        "patch_embed.proj.weight": (dim, config["in_chans"], patch, patch),
        "patch_embed.proj.bias": (dim,),
        "pos_embed": (1, side, side, dim),
    }
    for block in (f"blocks.{i}" for i in range(config["depth"])):
        shapes |= layer_norm(f"{block}.norm1", dim) | layer_norm(f"{block}.norm2", dim)
        shapes |= eva_attention(f"{block}.attn", dim, config["num_heads"], config["attn"])
        shapes |= linear(f"{block}.mlp.fc1", dim, 2 * hidden if config["use_glu"] else hidden)
        shapes |= linear(f"{block}.mlp.fc2", hidden, dim)
    return (
        shapes | layer_norm("norm_before_pooling", dim) | linear("head", dim, config["num_classes"])
    )


def pvt_heads(state: State, args: dict, dims: list[int]) -> Any:
    """Told by the arguments: the last stage's attention has no tensor that shows its heads."""
    told = args.get("num_heads")
    if not isinstance(told, list):
        return UNKNOWN
    if len(told) != len(dims):
        raise Failure(f"args.num_heads is {shown(told)}; allowed is a number for each stage")
    for stage, (heads, dim) in enumerate(zip(told, dims, strict=True), 1):
        name = f"block{stage}.0.attn.attn_fn.adaptive_mu_k.0.weight"
        if name in state:
            agree(f"num_heads[{stage - 1}]", heads, dim // shape_of(state, name, 2)[0])
    return told


def pvt_config(state: State, args: dict) -> dict:
    require("args.use_conv_patchify", args.get("use_conv_patchify", False), False)
    dims = [shape_of(state, f"norm{i}.weight", 1)[0] for i in STAGES]
    hidden = [shape_of(state, f"block{i}.0.mlp.fc1.weight", 2)[0] for i in STAGES]
    return {
        "model_type": "eva_pvt_v2",
        "num_classes": agree(
            "num_classes", args.get("num_classes"), shape_of(state, "head.weight", 2)[0]
        ),
        "in_chans": shape_of(state, "patch_embed1.proj.weight", 4)[1],
        "input_size": args.get("input_size", UNKNOWN),
        "qkv_bias": has_qkv_bias(state, args),
        "layer_norm_eps": epsilon(args),
        "patch_embed_layer_norm_eps": 1e-5,
        "adaptive_mu_layer_norm_eps": 1e-5,
        "sr_ratios": args.get("sr_ratios", PUBLISHED_SR_RATIOS),
        "attn": eva_attention_config(state, "block1.0.attn.attn_fn", attention_arguments(args)),
        "embed_dims": agree("embed_dims", args.get("embed_dims"), dims),
        "num_heads": pvt_heads(state, args, dims),
        "depths": agree(
            "depths", args.get("depths"), [count(state, rf"block{i}\.(\d+)\.") for i in STAGES]
        ),
        "mlp_ratios": agree(
            "mlp_ratios",
            args.get("mlp_ratios"),
            [ratio(h, d) for h, d in zip(hidden, dims, strict=True)],
        ),
    }


def pvt_block_shapes(block: str, stage: int, config: dict) -> Shapes:
    dim, heads = config["embed_dims"][stage], config["num_heads"][stage]
    hidden = int(dim * config["mlp_ratios"][stage])
    attention = f"{block}.attn.attn_fn"
    shapes = layer_norm(f"{block}.norm1", dim) | layer_norm(f"{block}.norm2", dim)
    if config["sr_ratios"][stage] > 1:
        shapes |= eva_attention(attention, dim, heads, config["attn"])
    else:
        shapes |= linear(f"{attention}.qkv", dim, 3 * dim) | linear(f"{attention}.proj", dim, dim)
    shapes |= linear(f"{block}.mlp.fc1", dim, hidden) | linear(f"{block}.mlp.fc2", hidden, dim)
    convolution = f"{block}.mlp.dwconv.dwconv"
    return shapes | {f"{convolution}.weight": (hidden, 1, 3, 3), f"{convolution}.bias": (hidden,)}


def pvt_shapes(config: dict) -> Shapes:
    dims = config["embed_dims"]
    shapes = linear("head", dims[-1], config["num_classes"])
    for stage, (inputs, dim) in enumerate(itertools.pairwise([config["in_chans"], *dims])):
        side = 7 if stage == 0 else 3
        patches = f"patch_embed{stage + 1}"
        shapes |= {
            f"{patches}.proj.weight": (dim, inputs, side, side),
            f"{patches}.proj.bias": (dim,),
        }
        shapes |= layer_norm(f"{patches}.norm", dim) | layer_norm(f"norm{stage + 1}", dim)
        for i in range(config["depths"][stage]):
            shapes |= pvt_block_shapes(f"block{stage + 1}.{i}", stage, config)
    return shapes


def from_timm(checkpoint: Any, averaged: bool, settings: dict[str, Any]) -> Conversion:
    state, args = state_of(checkpoint, averaged), arguments(checkpoint)
    is_pyramid = "patch_embed1.proj.weight" in state
    config = (pvt_config if is_pyramid else vit_config)(state, args)
    override(config, settings)
    check_attention("attn", config["attn"], is_2d=True)
    shapes = (pvt_shapes if is_pyramid else vit_shapes)(config)
    if not config["qkv_bias"]:
        shapes = {n: shape for n, shape in shapes.items() if not n.endswith(".qkv.bias")}
    return convert(state, [recomputed_index(config["attn"])], shapes, config)
