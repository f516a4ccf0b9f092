"""fairseq's causal language model with EVA."""

from typing import Any

from conversion import (
    UNKNOWN,
    Conversion,
    Failure,
    Shapes,
    State,
    adaptive_mu,
    agree,
    are_tied,
    check_positive,
    convert,
    count,
    layer_norm,
    linear,
    override,
    require,
    shape_of,
    t5_buckets,
    tie,
)
from fairseq_common import (
    BUFFERS,
    DEFAULT_MAX_POSITIONS,
    OLD_NORMS,
    PADDING,
    SINUSOIDS,
    Arguments,
    activation,
    transformer_layer,
    without_prefixes,
)


def cutoffs(value: Any) -> list[int]:
    return [int(n) for n in value.split(",")] if isinstance(value, str) else list(value)


def embeddings_config(state: State, args: Arguments) -> dict:
    """The keys on input and output embeddings."""
    bands = count(state, r"embed_tokens\.embeddings\.(\d+)\.0\.weight")
    keys = {
        "adaptive_input": agree("adaptive_input", args.get("adaptive_input"), bands > 0),
        "adaptive_cutoff": None,
        "adaptive_factor": None,
        "tie_adaptive_weights": bands > 0,
        "tie_adaptive_proj": bands > 0,
        "share_input_output_embed": bands == 0,
    }
    if bands == 0:
        keys["vocab_size"], _ = shape_of(state, "embed_tokens.weight", 2)
        told = args.get("share_decoder_input_output_embed")
        shares = are_tied(state, told, "output_projection.weight", "embed_tokens.weight")
        return keys | {"share_input_output_embed": shares}
    for name in ("tie_adaptive_weights", "tie_adaptive_proj"):
        require(f"args.{name}", args.get(name, True), True)
    sizes = [shape_of(state, f"embed_tokens.embeddings.{b}.0.weight", 2)[0] for b in range(bands)]
    seen = [sum(sizes[: b + 1]) for b in range(bands - 1)]
    for name in ("adaptive_input_cutoff", "adaptive_softmax_cutoff"):
        if told := args.get(name):
            # fairseq allows the last number to be the size of the vocabulary itself.
            agree(name, [n for n in cutoffs(told) if n < sum(sizes)], seen)
    dims = [shape_of(state, f"embed_tokens.embeddings.{b}.0.weight", 2)[1] for b in range(bands)]
    keys["vocab_size"], keys["adaptive_cutoff"] = sum(sizes), seen
    factor = args.get("adaptive_input_factor", dims[0] // dims[1] if bands > 1 else 4)
    keys["adaptive_factor"] = int(factor)
    return keys


def tied_tensors(config: dict) -> dict[str, str]:
    """What each tensor of the output is the same as."""
    if not config["adaptive_input"]:
        shares = config["share_input_output_embed"]
        return {"output_projection.weight": "embed_tokens.weight"} if shares else {}
    tied = {"adaptive_softmax.head.word_proj.weight": "embed_tokens.embeddings.0.0.weight"}
    for b in range(1, len(config["adaptive_cutoff"]) + 1):
        tied[f"adaptive_softmax.tail.{b - 1}.0.weight"] = f"embed_tokens.embeddings.{b}.1.weight"
        tied[f"adaptive_softmax.tail.{b - 1}.2.weight"] = f"embed_tokens.embeddings.{b}.0.weight"
    return tied


def causal_attention_config(state: State, name: str, told: dict) -> dict:
    has_norm = f"{name}.adaptive_mu_k.1.weight" in state
    t5 = f"{name}.rel_pos_bias.relative_attention_bias.weight" in state
    get = lambda key: told.get(key, UNKNOWN)  # noqa: E731
    return {
        "adaptive_proj": agree(
            "adaptive_proj", told.get("adaptive_proj"), "qk" if has_norm else "no-ln"
        ),
        # With a chunk size the number of chunks means nothing: the code ignores it.
        "num_chunks": None,
        "chunk_size": get("chunk_size"),
        "causal": require("causal", told.get("causal", True), True),
        "use_t5_rpe": agree("use_t5_rpe", told.get("use_t5_rpe"), t5),
        "window_size": get("window_size"),
        "overlap_window": get("overlap_window"),
    }


def language_model_config(state: State, args: Arguments) -> dict:
    require("args.attn_name_decoder", args.get("attn_name_decoder", "causal_eva"), "causal_eva")
    require("args.decoder_learned_pos", args.is_set("decoder_learned_pos"), False)
    name = "no_token_positional_embeddings"
    require(f"args.{name}", args.is_set(name), False)
    require("args.no_scale_embedding", args.is_set("no_scale_embedding"), False)
    require("args.decoder_normalize_before", args.get("decoder_normalize_before", True), True)
    has_final_norm = "layer_norm.weight" in state
    if (told := args.get("no_decoder_final_norm")) is not None:
        agree("no_decoder_final_norm", bool(told), not has_final_norm)
    dim, ffn = shape_of(state, "layers.0.fc2.weight", 2)
    head_dim, _ = shape_of(state, "layers.0.self_attn.adaptive_mu_k.0.weight", 2)
    embeddings = embeddings_config(state, args)
    config = {
        "model_type": "eva_causal_lm",
        "vocab_size": embeddings.pop("vocab_size"),
        "padding_idx": PADDING,
        "hidden_size": agree("decoder_embed_dim", args.get("decoder_embed_dim"), dim),
        "intermediate_size": agree("decoder_ffn_embed_dim", args.get("decoder_ffn_embed_dim"), ffn),
        "num_attention_heads": agree(
            "decoder_attention_heads", args.get("decoder_attention_heads"), dim // head_dim
        ),
        "num_hidden_layers": agree(
            "decoder_layers", args.get("decoder_layers"), count(state, r"layers\.(\d+)\.")
        ),
        "normalize_before": True,
        "final_norm": has_final_norm,
        "hidden_act": activation(args, "relu"),
        "layer_norm_eps": 1e-5,
        "embed_scale": "sqrt(hidden_size)",
        "positions": "sinusoidal",
        "max_target_positions": args.get("max_target_positions")
        or args.get("tokens_per_sample", DEFAULT_MAX_POSITIONS),
    }
    attention = causal_attention_config(state, "layers.0.self_attn", args.attention("decoder"))
    if args.is_set("add_bos_token"):  # else a text begins after the end of another, </s>
        config["bos_token_id"] = 0
    return config | embeddings | {"attn": attention}


def language_model_shapes(config: dict) -> Shapes:
    dim, vocabulary, attn = config["hidden_size"], config["vocab_size"], config["attn"]
    shapes: Shapes = {}
    if config["adaptive_input"]:
        ends = [0, *config["adaptive_cutoff"], vocabulary]
        for band, (begin, end) in enumerate(zip(ends, ends[1:], strict=False)):
            size, name = dim // config["adaptive_factor"] ** band, f"embed_tokens.embeddings.{band}"
            shapes |= {f"{name}.0.weight": (end - begin, size), f"{name}.1.weight": (dim, size)}
        classes = len(config["adaptive_cutoff"])
        shapes["adaptive_softmax.head.class_proj.weight"] = (classes, dim)
    else:
        shapes["embed_tokens.weight"] = (vocabulary, dim)
        if not config["share_input_output_embed"]:
            shapes["output_projection.weight"] = (vocabulary, dim)
    for layer in (f"layers.{i}" for i in range(config["num_hidden_layers"])):
        shapes |= transformer_layer(layer, dim, config["intermediate_size"])
        attention, head_dim = f"{layer}.self_attn", dim // config["num_attention_heads"]
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{attention}.{projection}", dim, dim)
        shapes |= adaptive_mu(attention, head_dim, "qk", attn["adaptive_proj"] == "qk")
        if attn["use_t5_rpe"]:
            reach = attn["window_size"] if attn["overlap_window"] else 0
            table = f"{attention}.rel_pos_bias.relative_attention_bias.weight"
            shapes[table] = (t5_buckets(attn["window_size"], reach), 1)
    return shapes | (layer_norm("layer_norm", dim) if config["final_norm"] else {})


def language_model(state: State, args: Arguments, settings: dict[str, Any]) -> Conversion:
    inner = without_prefixes(state, {"decoder.": ""})
    config = language_model_config(inner, args)
    override(config, settings)
    attn = config["attn"]
    check_positive("attn.window_size", attn["window_size"])
    check_positive("attn.chunk_size", attn["chunk_size"])
    if attn["window_size"] % attn["chunk_size"]:
        raise Failure(
            f"chunk_size is {attn['chunk_size']} and window_size {attn['window_size']}; "
            "the layout needs chunks of a fixed size that divides the window"
        )
    config["tied_tensors"] = tied_tensors(config)
    untie = "" if config["adaptive_input"] else "--set share_input_output_embed=false keeps it"
    ties = [tie(name, other, untie) for name, other in config["tied_tensors"].items()]
    rules = [BUFFERS, SINUSOIDS, *ties, *OLD_NORMS]
    return convert(inner, rules, language_model_shapes(config), config)
