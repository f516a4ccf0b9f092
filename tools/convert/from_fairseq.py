"""The authors' language models (their folder fairseq/): the encoder of a translation model, the
causal language model and the masked one; and all of a translation model, whose decoder has ordinary
attention.
"""

from typing import Any

import numpy

from conversion import (
    UNKNOWN,
    Conversion,
    Drop,
    Failure,
    Rename,
    Shapes,
    State,
    adaptive_mu,
    agree,
    convert,
    count,
    eva_attention,
    eva_attention_config,
    layer_norm,
    linear,
    override,
    require,
    shape_of,
    t5_buckets,
    tied_to,
    without_prefix,
)
from from_timm import is_state

PADDING = 1  # fairseq's dictionaries begin with <s>, <pad>, </s>, <unk>
NUM_SPECIAL = 4
PADDING_FACTOR = 8  # fairseq may fill up a vocabulary to a multiple of this
NEED_DICTIONARY = ("eva_causal_lm",)
DEFAULT_MAX_POSITIONS = 1024
BUFFERS = Drop(r"(.*\.)?(version|_float_tensor)", "a marker of fairseq's modules, not a weight")
SINUSOIDS = Drop(r"(.*\.)?embed_positions\.weights", "sinusoids are computed")
OLD_NORMS = [  # before fairseq 0.5
    Rename(r"(layers\.\d+)\.layer_norms\.0\.(weight|bias)", r"\1.self_attn_layer_norm.\2"),
    Rename(r"(layers\.\d+)\.layer_norms\.1\.(weight|bias)", r"\1.final_layer_norm.\2"),
]


def dictionary_size(text: bytes) -> int:
    """How many ids fairseq gives a dictionary: lines are words with their counts."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        word, _, count = line.rstrip().removesuffix(b" #fairseq:overwrite").rpartition(b" ")
        if not word or not count.isdigit():
            raise Failure(f"line {number} of the dictionary is {line[:64]!r}, no word and count")
    return NUM_SPECIAL + len(lines)


def state_of(checkpoint: Any, averaged: bool) -> State:
    if averaged:
        extra = checkpoint.get("extra_state") if isinstance(checkpoint, dict) else None
        state, name = (extra or {}).get("ema"), "extra_state.ema"
    else:
        state, name = checkpoint.get("model") if isinstance(checkpoint, dict) else None, "model"
    if not is_state(state):
        raise Failure(f"no dictionary of tensors called {name}")
    return without_prefix(state, "module.")


def recognises(state: State) -> bool:
    return any(name.startswith(("encoder.", "decoder.")) for name in state)


class Arguments:
    """fairseq's arguments: `args` of older checkpoints, `cfg.model` of newer ones, flat
    (encoder_embed_dim) or nested (encoder.embed_dim)."""

    def __init__(self, checkpoint: dict) -> None:
        cfg = checkpoint.get("cfg") or {}
        self.values = cfg.get("model") or checkpoint.get("args") or {}
        # As fairseq itself looks: what the model does not say, its task does.
        self.task = cfg.get("task") or {}

    def get(self, name: str, default: Any = None) -> Any:
        outer, _, inner = name.partition("_")
        nested = self.values.get(outer)
        for source, key in ((self.values, name), (nested, inner), (self.task, name)):
            value = source.get(key) if isinstance(source, dict) else None
            # "${...}" refers to another part of fairseq's configuration.
            if value is not None and not (isinstance(value, str) and value.startswith("${")):
                return value
        return default

    def is_set(self, name: str) -> bool:
        return bool(self.get(name, False))


def transformer_layer(name: str, dim: int, ffn: int) -> Shapes:
    shapes = layer_norm(f"{name}.self_attn_layer_norm", dim)
    shapes |= layer_norm(f"{name}.final_layer_norm", dim)
    return shapes | linear(f"{name}.fc1", dim, ffn) | linear(f"{name}.fc2", ffn, dim)


def activation(args: Arguments, default: str) -> str:
    return require("args.activation_fn", args.get("activation_fn", default), "relu", "gelu")


# ---- Encoders.


def encoder_config(state: State, args: Arguments, is_masked_lm: bool) -> dict:
    require("args.attn_name_encoder", args.get("attn_name_encoder", "eva"), "eva")
    vocabulary, dim = shape_of(state, "embed_tokens.weight")
    head_dim, _ = shape_of(state, "layers.0.self_attn.attn.adaptive_mu_k.0.weight")
    told_positions = args.get("max_positions" if is_masked_lm else "max_source_positions")
    learned = "embed_positions.weight" in state
    config = {
        "model_type": "eva_encoder",
        "vocab_size": vocabulary,
        "padding_idx": PADDING,
        "hidden_size": agree("encoder_embed_dim", args.get("encoder_embed_dim"), dim),
        "intermediate_size": agree(
            "encoder_ffn_embed_dim",
            args.get("encoder_ffn_embed_dim"),
            shape_of(state, "layers.0.fc1.bias")[0],
        ),
        "num_attention_heads": agree(
            "encoder_attention_heads", args.get("encoder_attention_heads"), dim // head_dim
        ),
        "num_hidden_layers": agree(
            "encoder_layers", args.get("encoder_layers"), count(state, r"layers\.(\d+)\.")
        ),
        "normalize_before": args.is_set("encoder_normalize_before"),
        "hidden_act": activation(args, "gelu" if is_masked_lm else "relu"),
        "layer_norm_eps": 1e-5,
        "embed_scale": 1 if args.get("no_scale_embedding", is_masked_lm) else "sqrt(hidden_size)",
        "positions": "learned" if learned else "sinusoidal",
        "max_source_positions": told_positions or DEFAULT_MAX_POSITIONS,
        "attn": eva_attention_config(
            state, "layers.0.self_attn.attn", args.get("attn_args_encoder", {})
        ),
    }
    if learned:  # row p is of position p; the first PADDING + 1 rows are of none
        rows, _ = shape_of(state, "embed_positions.weight")
        config["max_source_positions"] = agree("max_positions", told_positions, rows - PADDING - 1)
    if "layernorm_embedding.weight" in state:
        config["layernorm_embedding"] = True
    if is_masked_lm:
        config["masked_lm_head"] = True
        config["tied_tensors"] = {"lm_head.weight": "embed_tokens.weight"}
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
    return shapes


def without_prefixes(state: State, prefixes: dict[str, str]) -> State:
    """Names with the first of `prefixes` that they begin with replaced."""
    result = {}
    for name, tensor in state.items():
        old = next((p for p in prefixes if name.startswith(p)), "")
        result[prefixes.get(old, "") + name.removeprefix(old)] = tensor
    return result


def encoder(state: State, args: Arguments, settings: dict[str, Any]) -> Conversion:
    is_masked_lm = any(name.startswith("encoder.sentence_encoder.") for name in state)
    prefixes = {"encoder.sentence_encoder.": "", "encoder.": ""}
    inner = without_prefixes(state, prefixes)
    config = encoder_config(inner, args, is_masked_lm)
    override(config, settings)
    require("attn.attn_2d", config["attn"]["attn_2d"], False)
    rules = [
        BUFFERS,
        SINUSOIDS,
        Drop(r"decoder\..*", "the decoder of a translation model, of which this is the encoder"),
        Drop(r"lm_head\.weight", "tied to embed_tokens.weight", tied_to("embed_tokens.weight")),
        Drop(r"classification_heads\..*", "heads of a fine-tuned model are not served"),
        *OLD_NORMS,
    ]
    return convert(inner, rules, encoder_shapes(config), config)


# ---- The translation model.


def are_same(state: State, name: str, other: str) -> bool:
    return (
        name in state
        and other in state
        and numpy.array_equal(state[name].numpy(), state[other].numpy())
    )


def decoder_config(state: State, args: Arguments) -> dict:
    require("args.attn_name_decoder", args.get("attn_name_decoder", "mha"), "mha", "softmax")
    require("args.decoder_learned_pos", args.is_set("decoder_learned_pos"), False)
    vocabulary, dim = shape_of(state, "decoder.embed_tokens.weight")
    ffn, _ = shape_of(state, "decoder.layers.0.fc1.weight")
    layers = count(state, r"decoder\.layers\.(\d+)\.")
    config = {
        "vocab_size": vocabulary,
        "hidden_size": agree("decoder_embed_dim", args.get("decoder_embed_dim"), dim),
        "intermediate_size": agree("decoder_ffn_embed_dim", args.get("decoder_ffn_embed_dim"), ffn),
        "num_attention_heads": args.get("decoder_attention_heads", UNKNOWN),
        "num_hidden_layers": agree("decoder_layers", args.get("decoder_layers"), layers),
        "normalize_before": "decoder.layer_norm.weight" in state,
        "hidden_act": activation(args, "relu"),
        "layer_norm_eps": 1e-5,
        "embed_scale": 1 if args.is_set("no_scale_embedding") else "sqrt(hidden_size)",
        "positions": "sinusoidal",
        "max_target_positions": args.get("max_target_positions") or DEFAULT_MAX_POSITIONS,
        "layernorm_embedding": "decoder.layernorm_embedding.weight" in state,
    }
    if (told := args.get("decoder_normalize_before")) is not None and not args.is_set(
        "no_decoder_final_norm"
    ):
        agree("decoder_normalize_before", bool(told), config["normalize_before"])
    return config


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
    shares_all = args.get("share_all_embeddings")
    if shares_all is None:
        shares_all = are_same(state, source, target)
    shares_output = args.get("share_decoder_input_output_embed")
    if shares_output is None:
        shares_output = output not in state or are_same(state, target, output)
    return {
        "model_type": "eva_translation",
        "encoder": encoder,
        "decoder": decoder_config(state, args),
        "share_all_embeddings": bool(shares_all),
        "share_decoder_input_output_embed": bool(shares_output or shares_all),
        "source_lang": args.get("source_lang") or "en",
        "target_lang": args.get("target_lang") or "de",
        "tokenization": "moses",
        "split_hyphens": False,
        "bpe": "subword_nmt",
        # fairseq-generate's.
        "generation": {
            "beam_size": 5,
            "length_penalty": 1,
            "unk_penalty": 0,
            "max_len_a": 0,
            "max_len_b": 200,
            "min_len": 1,
            "no_repeat_ngram_size": 0,
        },
    }


def translation(state: State, args: Arguments, settings: dict[str, Any]) -> Conversion:
    config = translation_config(state, args)
    override(config, settings)
    encoder, decoder = config["encoder"], config["decoder"]
    require("encoder.attn.attn_2d", encoder["attn"]["attn_2d"], False)
    embedding = (decoder["vocab_size"], decoder["hidden_size"])
    shapes = {f"encoder.{name}": shape for name, shape in encoder_shapes(encoder).items()}
    shapes |= decoder_shapes(decoder, encoder["hidden_size"])
    rules = [BUFFERS, SINUSOIDS]
    for name, is_tied, other in (
        ("embed_tokens", config["share_all_embeddings"], "encoder.embed_tokens.weight"),
        (
            "output_projection",
            config["share_decoder_input_output_embed"],
            "decoder.embed_tokens.weight",
        ),
    ):
        if is_tied:
            rules.append(
                Drop(rf"decoder\.{name}\.weight", f"tied to {other}", tied_to(other))
            )
        else:
            shapes[f"decoder.{name}.weight"] = embedding
    for part, norms in (
        ("encoder", ("self_attn", "final")),
        ("decoder", ("self_attn", "encoder_attn", "final")),
    ):
        for i, norm in enumerate(norms):  # before fairseq 0.5
            old = rf"({part}\.layers\.\d+)\.layer_norms\.{i}\.(weight|bias)"
            rules.append(Rename(old, rf"\1.{norm}_layer_norm.\2"))
    return convert(state, rules, shapes, config)


# ---- The causal language model.


def cutoffs(value: Any) -> list[int]:
    return [int(n) for n in value.split(",")] if isinstance(value, str) else list(value)


def embeddings_config(state: State, args: Arguments) -> dict:
    """The keys on input and output embeddings, and which tensors they tie."""
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
        if not args.get("share_decoder_input_output_embed", True):
            return keys | {"share_input_output_embed": False, "tied_tensors": {}}
        return keys | {"tied_tensors": {"output_projection.weight": "embed_tokens.weight"}}
    for name in ("tie_adaptive_weights", "tie_adaptive_proj"):
        require(f"args.{name}", args.get(name, True), True)
    sizes = [shape_of(state, f"embed_tokens.embeddings.{b}.0.weight")[0] for b in range(bands)]
    seen = [sum(sizes[: b + 1]) for b in range(bands - 1)]
    for name in ("adaptive_input_cutoff", "adaptive_softmax_cutoff"):
        if told := args.get(name):
            # fairseq allows the last number to be the size of the vocabulary itself.
            agree(name, [n for n in cutoffs(told) if n < sum(sizes)], seen)
    dims = [shape_of(state, f"embed_tokens.embeddings.{b}.0.weight")[1] for b in range(bands)]
    keys["adaptive_cutoff"] = seen
    factor = args.get("adaptive_input_factor", dims[0] // dims[1] if bands > 1 else 4)
    keys["adaptive_factor"] = int(factor)
    tied = {"adaptive_softmax.head.word_proj.weight": "embed_tokens.embeddings.0.0.weight"}
    for b in range(1, bands):
        tied[f"adaptive_softmax.tail.{b - 1}.0.weight"] = f"embed_tokens.embeddings.{b}.1.weight"
        tied[f"adaptive_softmax.tail.{b - 1}.2.weight"] = f"embed_tokens.embeddings.{b}.0.weight"
    return keys | {"tied_tensors": tied}


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
    require("args.no_scale_embedding", args.is_set("no_scale_embedding"), False)
    require("args.decoder_normalize_before", args.get("decoder_normalize_before", True), True)
    dim, ffn = shape_of(state, "layers.0.fc2.weight")
    head_dim, _ = shape_of(state, "layers.0.self_attn.adaptive_mu_k.0.weight")
    embeddings = embeddings_config(state, args)
    vocabulary = sum(
        tensor.shape[0]
        for name, tensor in state.items()
        if name == "embed_tokens.weight"
        or (name.startswith("embed_tokens.") and name.endswith(".0.weight"))
    )
    config = {
        "model_type": "eva_causal_lm",
        "vocab_size": vocabulary,
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
        "final_norm": "layer_norm.weight" in state,
        "hidden_act": activation(args, "relu"),
        "layer_norm_eps": 1e-5,
        "embed_scale": "sqrt(hidden_size)",
        "positions": "sinusoidal",
        "max_target_positions": args.get("max_target_positions")
        or args.get("tokens_per_sample", DEFAULT_MAX_POSITIONS),
    }
    attention = causal_attention_config(
        state, "layers.0.self_attn", args.get("attn_args_decoder", {})
    )
    if args.is_set("add_bos_token"):  # else a text begins after the end of another, </s>
        config["bos_token_id"] = 0
    tied = embeddings.pop("tied_tensors")
    return config | embeddings | {"attn": attention, "tied_tensors": tied}


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
    if not isinstance(attn["chunk_size"], int) or attn["window_size"] % attn["chunk_size"]:
        raise Failure(
            f"chunk_size is {attn['chunk_size']} and window_size {attn['window_size']}; "
            "the layout needs chunks of a fixed size that divides the window"
        )
    ties = [
        Drop(name.replace(".", r"\."), f"tied to {other}", tied_to(other))
        for name, other in config["tied_tensors"].items()
    ]
    rules = [BUFFERS, SINUSOIDS, *ties, *OLD_NORMS]
    return convert(inner, rules, language_model_shapes(config), config)


def from_fairseq(checkpoint: Any, averaged: bool, settings: dict[str, Any]) -> Conversion:
    state, args = state_of(checkpoint, averaged), Arguments(checkpoint)
    if any(name.startswith("encoder.") for name in state):
        has_decoder = any(name.startswith("decoder.layers.") for name in state)
        if has_decoder and settings.get("model_type") != "eva_encoder":
            return translation(state, args, settings)
        return encoder(state, args, settings)
    return language_model(state, args, settings)
