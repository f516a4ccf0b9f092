"""fairseq's encoders with EVA, of a translation model or a masked language model, and all of a
translation model, whose decoder has ordinary attention."""

import re
from typing import Any

from conversion import (
    UNKNOWN,
    Conversion,
    Drop,
    Failure,
    Rename,
    Shapes,
    State,
    agree,
    are_tied,
    check_attention,
    check_positive,
    convert,
    count,
    eva_attention,
    eva_attention_config,
    layer_norm,
    linear,
    override,
    require,
    shape_of,
    shown,
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

MOSES_LANGUAGES = ("en", "de")
# How the authors' main.sh translates WMT's test set: fairseq_cli.generate --beam 4 --lenpen 0.6
# --max-len-a 1 --max-len-b 50; the rest are fairseq's defaults.
PUBLISHED_SEARCH = {
    "beam_size": 4,
    "length_penalty": 0.6,
    "unk_penalty": 0,
    "max_len_a": 1,
    "max_len_b": 50,
    "min_len": 1,
    "no_repeat_ngram_size": 0,
}


def rows_of(state: State, name: str) -> int | None:
    return shape_of(state, name, 2)[0] if name in state else None


def positions_of(args: Arguments, side: str, rows: int | None, longest: str) -> tuple[str, int]:
    """What `positions` is, and how many: of a learned table's rows, row p is of position p, and the
    first PADDING + 1 are of none."""
    name = "no_token_positional_embeddings"
    require(f"args.{name}", args.is_set(name), False)
    agree(f"{side}_learned_pos", args.get(f"{side}_learned_pos"), rows is not None)
    told = args.get(longest)
    if rows is None:
        return "sinusoidal", told or DEFAULT_MAX_POSITIONS
    return "learned", agree(longest, told, rows - PADDING - 1)


def agree_on_norms(args: Arguments, side: str, has_final_norm: bool) -> bool:
    """Whether norms are before the layers: then, and only then, one is after the last."""
    name = f"{side}_normalize_before"
    told = args.get(name)
    return agree(name, None if told is None else bool(told), has_final_norm)


# ---- Encoders.


def encoder_config(state: State, args: Arguments, is_masked_lm: bool) -> dict:
    require("args.attn_name_encoder", args.get("attn_name_encoder", "eva"), "eva")
    vocabulary, dim = shape_of(state, "embed_tokens.weight", 2)
    head_dim, _ = shape_of(state, "layers.0.self_attn.attn.adaptive_mu_k.0.weight", 2)
    longest = "max_positions" if is_masked_lm else "max_source_positions"
    rows = rows_of(state, "embed_positions.weight")
    positions, num_positions = positions_of(args, "encoder", rows, longest)
    config = {
        "model_type": "eva_encoder",
        "vocab_size": vocabulary,
        "padding_idx": PADDING,
        "hidden_size": agree("encoder_embed_dim", args.get("encoder_embed_dim"), dim),
        "intermediate_size": agree(
            "encoder_ffn_embed_dim",
            args.get("encoder_ffn_embed_dim"),
            shape_of(state, "layers.0.fc1.bias", 1)[0],
        ),
        "num_attention_heads": agree(
            "encoder_attention_heads", args.get("encoder_attention_heads"), dim // head_dim
        ),
        "num_hidden_layers": agree(
            "encoder_layers", args.get("encoder_layers"), count(state, r"layers\.(\d+)\.")
        ),
        "normalize_before": agree_on_norms(args, "encoder", "layer_norm.weight" in state),
        "hidden_act": activation(args, "gelu" if is_masked_lm else "relu"),
        "layer_norm_eps": 1e-5,
        "embed_scale": 1 if args.get("no_scale_embedding", is_masked_lm) else "sqrt(hidden_size)",
        "positions": positions,
        "max_source_positions": num_positions,
        "attn": eva_attention_config(state, "layers.0.self_attn.attn", args.attention("encoder")),
    }
    if "layernorm_embedding.weight" in state:
        config["layernorm_embedding"] = True
    if is_masked_lm:
        config["masked_lm_head"] = True
        told = args.get("untie_weights_roberta")
        tied = are_tied(
            state, None if told is None else not told, "lm_head.weight", "embed_tokens.weight"
        )
        config["tied_tensors"] = {"lm_head.weight": "embed_tokens.weight"} if tied else {}
    return config


def encoder_shapes(config: dict) -> Shapes:
    dim, vocabulary = config["hidden_size"], config["vocab_size"]
    shapes = {"embed_tokens.weight": (vocabulary, dim)}
    for layer in (f"layers.{i}" for i in range(config["num_hidden_layers"])):
        heads, attn = config["num_attention_heads"], config["attn"]
        shapes |= eva_attention(f"{layer}.self_attn.attn", dim, heads, attn)
        shapes |= transformer_layer(layer, dim, config["intermediate_size"])
    if config["normalize_before"]:
        shapes |= layer_norm("layer_norm", dim)
    if config["positions"] == "learned":
        shapes["embed_positions.weight"] = (config["max_source_positions"] + PADDING + 1, dim)
    if config.get("layernorm_embedding"):
        shapes |= layer_norm("layernorm_embedding", dim)
    if config.get("masked_lm_head"):
        shapes |= linear("lm_head.dense", dim, dim) | layer_norm("lm_head.layer_norm", dim)
        shapes["lm_head.bias"] = (vocabulary,)
        if not config["tied_tensors"]:
            shapes["lm_head.weight"] = (vocabulary, dim)
    return shapes


def encoder(state: State, args: Arguments, settings: dict[str, Any]) -> Conversion:
    is_masked_lm = any(name.startswith("encoder.sentence_encoder.") for name in state)
    prefixes = {"encoder.sentence_encoder.": "", "encoder.": ""}
    inner = without_prefixes(state, prefixes)
    config = encoder_config(inner, args, is_masked_lm)
    override(config, settings)
    check_attention("attn", config["attn"], is_2d=False)
    rules = [
        BUFFERS,
        SINUSOIDS,
        Drop(r"decoder\..*", "the decoder of a translation model, of which this is the encoder"),
        *(
            tie(name, other, "--set tied_tensors={} keeps it")
            for name, other in config.get("tied_tensors", {}).items()
        ),
        Drop(r"classification_heads\..*", "heads of a fine-tuned model are not served"),
        *OLD_NORMS,
    ]
    return convert(inner, rules, encoder_shapes(config), config)


# ---- The translation model.


def decoder_config(state: State, args: Arguments) -> dict:
    require("args.attn_name_decoder", args.get("attn_name_decoder", "mha"), "mha", "softmax")
    vocabulary, dim = shape_of(state, "decoder.embed_tokens.weight", 2)
    ffn, _ = shape_of(state, "decoder.layers.0.fc1.weight", 2)
    layers = count(state, r"decoder\.layers\.(\d+)\.")
    rows = rows_of(state, "decoder.embed_positions.weight")
    positions, num_positions = positions_of(args, "decoder", rows, "max_target_positions")
    if args.is_set("decoder_normalize_before") and args.is_set("no_decoder_final_norm"):
        raise Failure(
            "the checkpoint's arguments say decoder_normalize_before and no_decoder_final_norm; a "
            "decoder with norms before its layers and none after the last is not served"
        )
    has_final_norm = "decoder.layer_norm.weight" in state
    return {
        "vocab_size": vocabulary,
        "hidden_size": agree("decoder_embed_dim", args.get("decoder_embed_dim"), dim),
        "intermediate_size": agree("decoder_ffn_embed_dim", args.get("decoder_ffn_embed_dim"), ffn),
        "num_attention_heads": args.get("decoder_attention_heads", UNKNOWN),
        "num_hidden_layers": agree("decoder_layers", args.get("decoder_layers"), layers),
        "normalize_before": agree_on_norms(args, "decoder", has_final_norm),
        "hidden_act": activation(args, "relu"),
        "layer_norm_eps": 1e-5,
        "embed_scale": 1 if args.is_set("no_scale_embedding") else "sqrt(hidden_size)",
        "positions": positions,
        "max_target_positions": num_positions,
        "layernorm_embedding": "decoder.layernorm_embedding.weight" in state,
    }


def decoder_shapes(config: dict, encoder_dim: int) -> Shapes:
    dim = config["hidden_size"]
    shapes: Shapes = {}
    for layer in (f"decoder.layers.{i}" for i in range(config["num_hidden_layers"])):
        shapes |= transformer_layer(layer, dim, config["intermediate_size"])
        shapes |= layer_norm(f"{layer}.encoder_attn_layer_norm", dim)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            seen = encoder_dim if projection in ("k_proj", "v_proj") else dim
            shapes |= linear(f"{layer}.self_attn.{projection}", dim, dim)
            shapes |= linear(f"{layer}.encoder_attn.{projection}", seen, dim)
    if config["normalize_before"]:
        shapes |= layer_norm("decoder.layer_norm", dim)
    if config["positions"] == "learned":
        rows = config["max_target_positions"] + PADDING + 1
        shapes["decoder.embed_positions.weight"] = (rows, dim)
    if config["layernorm_embedding"]:
        shapes |= layer_norm("decoder.layernorm_embedding", dim)
    return shapes


def translation_config(state: State, args: Arguments) -> dict:
    source, target = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
    output = "decoder.output_projection.weight"
    encoder = encoder_config(
        {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")},
        args,
        is_masked_lm=False,
    )
    del encoder["model_type"]
    shares_all = are_tied(state, args.get("share_all_embeddings"), target, source)
    told = args.get("share_decoder_input_output_embed")
    shares_output = are_tied(state, told, output, target)
    return {
        "model_type": "eva_translation",
        "encoder": encoder,
        "decoder": decoder_config(state, args),
        "share_all_embeddings": shares_all,
        "share_decoder_input_output_embed": shares_output or shares_all,
        "source_lang": args.get("source_lang") or "en",
        "target_lang": args.get("target_lang") or "de",
        "tokenization": "moses",
        "split_hyphens": False,
        "bpe": "subword_nmt",
        "generation": dict(PUBLISHED_SEARCH),
    }


def require_text(config: dict) -> None:
    """That the server can make tokens of text as `config` says."""
    require("bpe", config["bpe"], "subword_nmt", "none")
    for name in ("source_lang", "target_lang"):  # parts of files' names
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(config[name])):
            raise Failure(f"{name} is {shown(config[name])}; allowed are letters, digits, _ and -")
    if require("tokenization", config["tokenization"], "moses", "space") == "space":
        return
    for name in ("source_lang", "target_lang"):
        if config[name] not in MOSES_LANGUAGES:
            raise Failure(
                f"{name} is {shown(config[name])}; allowed is {' or '.join(MOSES_LANGUAGES)}, "
                "or any with --set tokenization=space"
            )


def translation(state: State, args: Arguments, settings: dict[str, Any]) -> Conversion:
    config = translation_config(state, args)
    override(config, settings)
    encoder, decoder = config["encoder"], config["decoder"]
    check_attention("encoder.attn", encoder["attn"], is_2d=False)
    check_positive("decoder.num_attention_heads", decoder["num_attention_heads"])
    require_text(config)
    if config["share_all_embeddings"] and not config["share_decoder_input_output_embed"]:
        raise Failure(
            "share_all_embeddings is true, share_decoder_input_output_embed false; embeddings of "
            "all are the output's too"
        )
    embedding = (decoder["vocab_size"], decoder["hidden_size"])
    shapes = {f"encoder.{name}": shape for name, shape in encoder_shapes(encoder).items()}
    shapes |= decoder_shapes(decoder, encoder["hidden_size"])
    rules = [BUFFERS, SINUSOIDS]
    source, target = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
    for name, other, key in (
        (target, source, "share_all_embeddings"),
        ("decoder.output_projection.weight", target, "share_decoder_input_output_embed"),
    ):
        if config[key]:
            rules.append(tie(name, other, f"--set {key}=false keeps it"))
        else:
            shapes[name] = embedding
    for part, norms in (
        ("encoder", ("self_attn", "final")),
        ("decoder", ("self_attn", "encoder_attn", "final")),
    ):
        for i, norm in enumerate(norms):  # before fairseq 0.5
            old = rf"({part}\.layers\.\d+)\.layer_norms\.{i}\.(weight|bias)"
            rules.append(Rename(old, rf"\1.{norm}_layer_norm.\2"))
    return convert(state, rules, shapes, config)
