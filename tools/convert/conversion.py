"""What converting any checkpoint has in common: rules for names, the check against the layout, the
report."""

import dataclasses
import math
import re
import reprlib
from collections.abc import Callable
from typing import Any

import numpy

from checkpoint import Tensor

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


MAX_CONFIG_DEPTH = 3  # of dictionaries in config.json


class Failure(Exception):
    """The checkpoint is not one of a model that this layout can hold."""


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()  # what neither the checkpoint's arguments nor its tensors tell


@dataclasses.dataclass(frozen=True)
class Drop:
    """Tensors not written, and why; `check` says what is wrong with them, or nothing."""

    pattern: str
    reason: str
    check: Callable[[str, State], str | None] = lambda name, state: None


@dataclasses.dataclass(frozen=True)
class Rename:
    pattern: str
    replacement: str


def one_line(text: str) -> str:
    """`text`, in which a checkpoint's names may hold anything, to be printed."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclasses.dataclass
class Line:
    """One tensor's fate, for the report."""

    action: str  # kept, renamed, dropped, missing, unexpected, wrong shape
    source: str
    note: str

    BAD = ("missing", "unexpected", "wrong shape", "not finite")

    def __str__(self) -> str:
        return one_line(f"{self.action:12s} {self.source}{f'  {self.note}' if self.note else ''}")


@dataclasses.dataclass
class Conversion:
    config: dict[str, Any]
    tensors: dict[str, numpy.ndarray]
    report: list[Line]


def without_prefix(state: State, prefix: str) -> State:
    """The same without `prefix`, if every name begins with it."""
    if state and all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def count(state: State, pattern: str) -> int:
    """How many different numbers the group of `pattern` takes; they must be 0, 1, 2, ..."""
    found = {int(m[1]) for name in state if (m := re.match(pattern, name))}
    if found != set(range(len(found))):
        raise Failure(f"layers {sorted(found)} of {pattern}: some are missing")
    return len(found)


def shape_of(state: State, name: str, rank: int) -> tuple[int, ...]:
    """The sizes of a tensor that the model must have, none of which is 0."""
    if name not in state:
        raise Failure(f"no tensor {name}, so this is no checkpoint of the model it looks like")
    shape = state[name].shape
    if len(shape) != rank or 0 in shape:
        raise Failure(f"{name} has shape {shown(list(shape))}; needed are {rank} sizes above 0")
    return shape


def shown(value: Any) -> str:
    """What a checkpoint holds, briefly: it may be of any size."""
    return reprlib.repr(value)


def dictionary(name: str, value: Any) -> dict:
    """`value`, an empty one if it is None."""
    if value is not None and not isinstance(value, dict):
        raise Failure(f"{name} is {shown(value)}, not a dictionary")
    return value or {}


def agree(name: str, told: Any, seen: Any) -> Any:
    """`seen` in the tensors, which must be what the arguments told, if they did."""
    if told is not None and told is not UNKNOWN and told != seen:
        raise Failure(f"the checkpoint's arguments say {name} = {shown(told)}, its tensors {seen}")
    return seen


def require(name: str, value: Any, *known: Any) -> Any:
    if value not in known:
        choices = " or ".join(map(repr, known))
        raise Failure(f"{name} is {shown(value)}; this layout is only for {choices}")
    return value


def check_positive(name: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise Failure(f"{name} is {shown(value)}; allowed is a whole number above 0")


def override(config: dict, settings: dict[str, Any]) -> None:
    """Sets dotted names, and fails for what is then still unknown."""
    for name, value in settings.items():
        target, (*outer, last) = config, name.split(".")
        for key in outer:
            target = target.get(key)
            if not isinstance(target, dict):
                raise Failure(f"--set {name}: config.json has no {name}")
        if last not in target:
            raise Failure(f"--set {name}: config.json has no {name}")
        target[last] = value
    check_plain(config)
    if unknown := unknown_keys(config):
        wanted = " ".join(f"--set {name}=..." for name in unknown)
        raise Failure(
            f"the checkpoint has no arguments that tell {', '.join(unknown)}: add {wanted}"
        )


def check_plain(config: dict, outer: str = "") -> None:
    """That what the arguments and settings gave are values of JSON, and their lists flat."""
    for name, value in config.items():
        if isinstance(value, dict) and outer.count(".") < MAX_CONFIG_DEPTH:
            check_plain(value, f"{outer}{name}.")
            continue
        values = value if isinstance(value, list) else [value]
        if not all(v is None or v is UNKNOWN or isinstance(v, (str, int, float)) for v in values):
            raise Failure(f"{outer}{name} is {shown(value)}; allowed are numbers and text")


def unknown_keys(config: dict, outer: str = "") -> list[str]:
    """The dotted names of all that is unknown."""
    names = [f"{outer}{key}" for key, value in config.items() if value is UNKNOWN]
    for key, value in config.items():
        names += unknown_keys(value, f"{outer}{key}.") if isinstance(value, dict) else []
    return names


def as_float32(tensor: Tensor) -> numpy.ndarray:
    return tensor.numpy().astype(numpy.float32)


def are_same(state: State, name: str, other: str) -> bool:
    return (
        name in state
        and other in state
        and numpy.array_equal(state[name].numpy(), state[other].numpy())
    )


def are_tied(state: State, told: Any, name: str, other: str) -> bool:
    """Whether `other` is used for `name`: as the arguments told, or else if there is no other."""
    return (name not in state or are_same(state, name, other)) if told is None else bool(told)


def tie(name: str, other: str, untie: str = "") -> Drop:
    """Drops `name` if it is the same as `other`. `untie` is what to do if it may be another."""

    def check(name: str, state: State) -> str | None:
        if other not in state:
            return f"is tied to {other}, which is missing"
        if not are_same(state, name, other):
            return f"differs from {other}, to which it is tied{untie and f'; {untie}'}"
        return None

    return Drop(re.escape(name), f"tied to {other}", check)


def convert(state: State, rules: list[Drop | Rename], shapes: Shapes, config: dict) -> Conversion:
    """Applies the first rule that matches each name, then compares with `shapes`."""
    report, tensors, sources = [], {}, {}
    for name, tensor in state.items():
        rule = next((r for r in rules if re.fullmatch(r.pattern, name)), None)
        if isinstance(rule, Drop):
            if wrong := rule.check(name, state):
                raise Failure(f"{name} {wrong}")
            report.append(Line("dropped", name, f"({rule.reason})"))
            continue
        target = re.sub(rule.pattern, rule.replacement, name) if rule else name
        if target in sources:
            raise Failure(f"{name} and {sources[target]} would both be {target}")
        sources[target] = name
        report.append(fate(name, target, tensor, shapes.get(target)))
        if report[-1].action in ("kept", "renamed"):
            tensors[target] = as_float32(tensor)
            if not numpy.isfinite(tensors[target]).all():
                report[-1] = Line("not finite", name, f"-> {target}: holds NaN or infinity")
    report += [
        Line("missing", name, str(list(shapes[name]))) for name in shapes.keys() - sources.keys()
    ]
    return Conversion(config, tensors, sorted(report, key=lambda line: line.source))


def fate(name: str, target: str, tensor: Tensor, shape: tuple[int, ...] | None) -> Line:
    arrow = f"-> {target} " if target != name else ""
    if shape is None:
        return Line("unexpected", name, f"{arrow}{list(tensor.shape)}: not in this layout")
    if tensor.shape != shape:
        return Line("wrong shape", name, f"{arrow}{list(tensor.shape)}, not {list(shape)}")
    note = f"{arrow}{list(shape)}" + ("" if tensor.dtype == "<f4" else f" from {tensor.dtype}")
    return Line("renamed" if arrow else "kept", name, note)


# ---- Shapes that several layouts share.


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def layer_norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def t5_buckets(window: int, extension: int) -> int:
    return max(min((window + extension) // 2, 64), 16)


def adaptive_mu(name: str, head_dim: int, names: str, has_norm: bool) -> Shapes:
    shapes = {}
    for n in names:
        shapes |= linear(f"{name}.adaptive_mu_{n}.0", head_dim, head_dim)
        if has_norm:
            shapes |= layer_norm(f"{name}.adaptive_mu_{n}.1", head_dim)
    return shapes


def extension_of(attn: dict) -> int:
    return max(1, attn["window_size"] // 2) if attn["overlap_window"] else 0


def eva_attention(name: str, dim: int, heads: int, attn: dict) -> Shapes:
    """Not causal: section 2 of the paper's code, EVA."""
    window, extension = attn["window_size"], extension_of(attn)
    shapes = linear(f"{name}.qkv", dim, 3 * dim) | linear(f"{name}.proj", dim, dim)
    mu = "k" if attn["adaptive_proj"] == "none" else "qk"
    shapes |= adaptive_mu(name, dim // heads, mu, attn["adaptive_proj"] != "no-ln")
    if attn["use_rpe"]:
        flat = (heads, window, window + 2 * extension)
        reach = 2 * (window + extension - 1) * (2 * extension + window + 1) + 1
        shapes[f"{name}.local_relative_position_bias_table"] = (
            (reach, heads) if attn["attn_2d"] else flat
        )
    if attn["use_t5_rpe"]:
        table = f"{name}.rel_pos_bias.relative_attention_bias.weight"
        shapes[table] = (t5_buckets(window, extension), heads)
    return shapes


def eva_attention_config(state: State, name: str, told: dict) -> dict:
    """What the tensors called `name`.* and the attention's arguments say together."""
    norm, q = f"{name}.adaptive_mu_k.1.weight" in state, f"{name}.adaptive_mu_q.0.weight" in state
    seen = {(True, True): "default", (False, True): "no-ln", (True, False): "none"}.get((norm, q))
    if seen is None:
        raise Failure(f"{name}: no tensors of EVA attention")
    rpe = f"{name}.local_relative_position_bias_table" in state
    t5 = f"{name}.rel_pos_bias.relative_attention_bias.weight" in state
    get = lambda key: told.get(key, UNKNOWN)  # noqa: E731
    return {
        "fp32": told.get("fp32", False),
        "use_rpe": agree("use_rpe", told.get("use_rpe"), rpe),
        "window_size": get("window_size"),
        "attn_2d": get("attn_2d"),
        "overlap_window": get("overlap_window"),
        "adaptive_proj": agree("adaptive_proj", told.get("adaptive_proj"), seen),
        "num_landmarks": get("num_landmarks"),
        "use_t5_rpe": agree("use_t5_rpe", told.get("use_t5_rpe"), t5),
    }


def check_attention(name: str, attn: dict, is_2d: bool) -> None:
    """What the shapes of its tensors are made of."""
    check_positive(f"{name}.window_size", attn["window_size"])
    check_positive(f"{name}.num_landmarks", attn["num_landmarks"])
    require(f"{name}.attn_2d", attn["attn_2d"], is_2d)


def ratio(numerator: int, denominator: int) -> int | float:
    value = numerator / denominator
    return int(value) if math.floor(value) == value else value
