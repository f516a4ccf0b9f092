"""What the authors' language models (their folder fairseq/) have in common: the arguments, names of
tensors, the layer of a transformer."""

from typing import Any

from conversion import Drop, Rename, Shapes, State, dictionary, layer_norm, linear, require

PADDING = 1  # fairseq's dictionaries begin with <s>, <pad>, </s>, <unk>
DEFAULT_MAX_POSITIONS = 1024
BUFFERS = Drop(r"(.*\.)?(version|_float_tensor)", "a marker of fairseq's modules, not a weight")
SINUSOIDS = Drop(r"(.*\.)?embed_positions\.weights", "sinusoids are computed")
OLD_NORMS = [  # before fairseq 0.5
    Rename(r"(layers\.\d+)\.layer_norms\.0\.(weight|bias)", r"\1.self_attn_layer_norm.\2"),
    Rename(r"(layers\.\d+)\.layer_norms\.1\.(weight|bias)", r"\1.final_layer_norm.\2"),
]


class Arguments:
    """fairseq's arguments: `args` of older checkpoints, `cfg.model` of newer ones, flat
    (encoder_embed_dim) or nested (encoder.embed_dim)."""

    def __init__(self, checkpoint: dict) -> None:
        cfg = dictionary("cfg", checkpoint.get("cfg"))
        model = dictionary("cfg.model", cfg.get("model"))
        self.values = model or dictionary("args", checkpoint.get("args"))
        # As fairseq itself looks: what the model does not say, its task does.
        self.task = dictionary("cfg.task", cfg.get("task"))

    def get(self, name: str, default: Any = None) -> Any:
        outer, _, inner = name.partition("_")
        nested = self.values.get(outer)
        for source, key in ((self.values, name), (nested, inner), (self.task, name)):
            value = source.get(key) if isinstance(source, dict) else None
            # "${...}" refers to another part of fairseq's configuration.
            if value is not None and not (isinstance(value, str) and value.startswith("${")):
                return value
        return default

    def attention(self, side: str) -> dict:
        name = f"attn_args_{side}"
        return dictionary(f"args.{name}", self.get(name))

    def is_set(self, name: str) -> bool:
        return bool(self.get(name, False))


def transformer_layer(name: str, dim: int, ffn: int) -> Shapes:
    shapes = layer_norm(f"{name}.self_attn_layer_norm", dim)
    shapes |= layer_norm(f"{name}.final_layer_norm", dim)
    return shapes | linear(f"{name}.fc1", dim, ffn) | linear(f"{name}.fc2", ffn, dim)


def activation(args: Arguments, default: str) -> str:
    return require("args.activation_fn", args.get("activation_fn", default), "relu", "gelu")


def without_prefixes(state: State, prefixes: dict[str, str]) -> State:
    """Names with the first of `prefixes` that they begin with replaced."""
    result = {}
    for name, tensor in state.items():
        old = next((p for p in prefixes if name.startswith(p)), "")
        result[prefixes.get(old, "") + name.removeprefix(old)] = tensor
    return result
