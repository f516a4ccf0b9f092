"""Reads pickles without running them.

pickle.load calls whatever the file names. Here `pickletools.genops` only decodes the opcodes, and
the loop below executes the few that data needs. A class or function of the file is never looked up:
its name selects one of the makers in `MAKERS`, which build plain containers, or it is refused. So
nothing of the file's choosing is imported or called, whatever it holds.
"""

import pickletools
from collections.abc import Callable, Iterable
from typing import IO, Any, NamedTuple

import numpy


MAX_TEXT = 4096  # of a name


class Refused(Exception):
    """The file is damaged, or needs something that is not built from it."""


class Name(NamedTuple):
    """A class, function or constant that the file names, and nothing more than its name."""

    text: str


class Record(dict):
    """The attributes of an object of the file, whose class is `name`."""

    def __init__(self, name: str, attributes: dict | None = None) -> None:
        super().__init__(attributes or {})
        self.name = name


def attributes_of(state: Any) -> dict:
    if state is not None and not isinstance(state, dict):
        raise Refused(f"attributes that are a {type(state).__name__}")
    return state or {}


def encoded(text: str, codec: str) -> bytes:
    """Bytes, as pickles of protocol 2 have them."""
    if codec not in ("latin1", "latin-1", "utf-8"):
        raise Refused(f"bytes in the encoding {codec!r}")
    return text.encode(codec)


def is_flat(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bytes, Name))


def key(value: Any) -> Any:
    """`value`, if it may be in a set or a key of a dict. Python's own hash of tuples in tuples has
    no limit of depth but the end of the stack."""
    if is_flat(value) or (isinstance(value, tuple) and all(map(is_flat, value))):
        return value
    raise Refused(f"a key or an element of a set that is a {type(value).__name__} of others")


def keyed(pairs: Iterable) -> dict:
    return {key(name): value for name, value in pairs}


def pairs_as_dict(pairs: Any = ()) -> dict:
    return keyed(pairs.items() if isinstance(pairs, dict) else pairs)


def default_dict(_factory: Any = None, pairs: Any = ()) -> dict:
    return pairs_as_dict(pairs)


def keys_as_set(items: Iterable = ()) -> set:
    return set(map(key, items))


def keys_as_frozenset(items: Iterable = ()) -> frozenset:
    return frozenset(map(key, items))


def text_of(value: Any) -> str:
    """`value`, a string that is not what doubling a string again and again makes."""
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return value
    raise Refused(f"a {type(value).__name__} as a part of a name, or one that is too long")


def array_type(text: str, *_: Any) -> numpy.dtype:
    dtype = numpy.dtype(text_of(text))
    if dtype.kind not in "biuf":
        raise Refused(f"a NumPy number of type {text!r}")
    return dtype


def array_scalar(dtype: numpy.dtype, data: bytes) -> int | float | bool:
    if not isinstance(dtype, numpy.dtype):
        raise Refused(f"a NumPy number whose type is a {type(dtype).__name__}")
    return numpy.frombuffer(data, dtype=dtype, count=1)[0].item()


def partial(function: Name, *_: Any) -> Record:
    return Record("functools.partial", {"function": function.text})


def path(*parts: str) -> str:
    return "/".join(map(text_of, parts))


def device(*parts: str | int) -> str:
    return ":".join(str(part) if isinstance(part, int) else text_of(part) for part in parts)


def member(container: Name, item: Any) -> Name:
    """typing.Dict[str, int] and the like, in the type information of omegaconf's containers."""
    if not isinstance(container, Name) or not container.text.startswith("typing."):
        raise Refused(f"an element of a {type(container).__name__}")
    items = item if isinstance(item, tuple) and not isinstance(item, Name) else (item,)
    if not all(isinstance(part, Name) for part in items):
        raise Refused(f"{text_of(container.text)} of something that is not a type")
    return Name(f"{container.text}[{', '.join(text_of(part.text) for part in items)}]")


def enumerator(value: Any) -> Any:
    """A value of one of fairseq's enumerations, as what it stands for."""
    return value


# What REDUCE may make. Tensors are the container's business: see checkpoint.py.
MAKERS: dict[str, Callable] = {
    "collections.OrderedDict": pairs_as_dict,
    "collections.defaultdict": default_dict,
    "collections.Counter": pairs_as_dict,
    "builtins.set": keys_as_set,
    "builtins.frozenset": keys_as_frozenset,
    "_codecs.encode": encoded,
    "numpy.dtype": array_type,
    "numpy.core.multiarray.scalar": array_scalar,
    "numpy._core.multiarray.scalar": array_scalar,
    "functools.partial": partial,
    "pathlib.PosixPath": path,
    "pathlib.PurePosixPath": path,
    "_operator.getitem": member,
    "torch.Size": tuple,
    "torch.device": device,
}
# Objects that become Records: a dict of their attributes.
RECORDS = {
    "argparse.Namespace",
    "efficient_attention.NestedNamespace",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.tupleconfig.TupleConfig",
    "omegaconf.base.Metadata",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.UnionNode",
}
OMEGACONF_NODES = ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String")
RECORDS |= {f"omegaconf.nodes.{kind}Node" for kind in OMEGACONF_NODES}
# What stays a name: types in type information, and the layer that a partial() is of.
TYPES = ("bool", "bytes", "dict", "float", "int", "list", "long", "str", "tuple", "unicode")
NAMES = {f"builtins.{t}" for t in TYPES}  # long and unicode: int and str, as Python 2 called them
NAMES |= {f"typing.{t}" for t in ("Any", "Dict", "List", "Optional", "Tuple", "Union")}
NAMES |= {f"torch.{t}" for t in ("bfloat16", "float16", "float32", "float64", "int64")}
NAMES |= {"torch.nn.modules.normalization.LayerNorm"}
# fairseq's own configuration classes and enumerations, which are many.
FAIRSEQ = "fairseq.dataclass."

PYTHON_2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "operator": "_operator"}

PUSHED = {  # opcodes whose argument is the value
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
GETS = {"GET", "BINGET", "LONG_BINGET"}


class Machine:
    """Executes the opcodes of one pickle. `makers` and `persistent` are the container's."""

    def __init__(self, makers: dict[str, Callable], persistent: Callable[[tuple], Any]) -> None:
        self.makers = MAKERS | makers
        self.persistent = persistent
        self.stack: list = []
        self.marks: list[list] = []
        self.memo: dict[int, Any] = {}

    def load(self, file: IO[bytes]) -> Any:
        """The value of the pickle at the file's position; leaves the position behind it."""
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise Refused("a pickle without end")

    def step(self, name: str, argument: Any) -> None:
        if name in PUSHED:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in TUPLES:
            self.stack[-TUPLES[name] :] = [tuple(self.top(TUPLES[name]))]
        elif name in PUTS:
            self.memo[argument] = self.top(1)[0]
        elif name in GETS:
            self.stack.append(self.memo[argument])
        elif handler := getattr(self, f"op_{name.lower()}", None):
            handler(argument)
        else:
            raise Refused(f"the pickle opcode {name}, which no checkpoint needs")

    def top(self, count: int) -> list:
        if len(self.stack) < count:
            raise Refused("a pickle that takes more than it made")
        return self.stack[-count:]

    def marked(self) -> list:
        """What was pushed since the last mark; the stack is again the one before it."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def container(self, kind: type) -> Any:
        target = self.top(1)[0]
        if not isinstance(target, kind):
            raise Refused(f"elements added to a {type(target).__name__}")
        return target

    def op_proto(self, _: Any) -> None:
        pass

    def op_frame(self, _: Any) -> None:
        pass

    def op_mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def op_pop(self, _: Any) -> None:
        self.stack.pop()

    def op_pop_mark(self, _: Any) -> None:
        self.marked()

    def op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.top(1)[0]

    def op_tuple(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(tuple(items))

    def op_list(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(items)

    def op_dict(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(keyed(zip(items[::2], items[1::2], strict=True)))

    def op_frozenset(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(keys_as_frozenset(items))

    def op_append(self, _: Any) -> None:
        item = self.stack.pop()
        self.container(list).append(item)

    def op_appends(self, _: Any) -> None:
        items = self.marked()
        self.container(list).extend(items)

    def op_additems(self, _: Any) -> None:
        items = self.marked()
        self.container(set).update(map(key, items))

    def op_setitem(self, _: Any) -> None:
        name, value = self.top(2)
        del self.stack[-2:]
        self.container(dict)[key(name)] = value

    def op_setitems(self, _: Any) -> None:
        items = self.marked()
        self.container(dict).update(keyed(zip(items[::2], items[1::2], strict=True)))

    def op_binpersid(self, _: Any) -> None:
        self.stack.append(self.persistent(self.stack.pop()))

    def op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.named(module, name))

    def op_stack_global(self, _: Any) -> None:
        module, name = self.top(2)
        del self.stack[-2:]
        self.stack.append(self.named(module, name))

    def named(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("a name that is not a string")
        text = f"{PYTHON_2_MODULES.get(module, module)}.{name}"
        allowed = text in self.makers or text in RECORDS or text in NAMES
        if not allowed and not text.startswith(FAIRSEQ):
            raise Refused(f"it needs {text}, which is neither a tensor nor a plain container")
        return Name(text)

    def op_reduce(self, _: Any) -> None:
        function, arguments = self.top(2)
        del self.stack[-2:]
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refused("a call of something that is not a function")
        if function.text in self.makers:
            self.stack.append(self.makers[function.text](*arguments))
        elif function.text in RECORDS and not arguments:
            self.stack.append(Record(function.text))
        elif function.text.startswith(FAIRSEQ):
            self.stack.append(enumerator(*arguments))
        else:
            raise Refused(f"a call of {function.text}")

    def op_newobj(self, _: Any) -> None:
        made_of, arguments = self.top(2)
        del self.stack[-2:]
        if not isinstance(made_of, Name) or arguments != ():
            raise Refused("an object with arguments")
        if made_of.text in RECORDS or made_of.text.startswith(FAIRSEQ):
            self.stack.append(Record(made_of.text))
        elif made_of.text == "collections.OrderedDict":
            self.stack.append({})
        else:
            raise Refused(f"an object of {made_of.text}")

    def op_build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.top(1)[0]
        if isinstance(target, Record) and target.name == "functools.partial":
            _, _, keywords, _ = state
            target.update(attributes_of(keywords))
        elif isinstance(target, Record):
            for attributes in state if isinstance(state, tuple) else (state,):
                target.update(attributes_of(attributes))
        elif isinstance(target, numpy.dtype):
            if state[1] == ">":
                raise Refused("numbers of a big-endian machine")
        elif not isinstance(target, dict):
            raise Refused(f"attributes for a {type(target).__name__}")
        # A dict's are the version numbers in _metadata of a state dict: nothing to keep.
