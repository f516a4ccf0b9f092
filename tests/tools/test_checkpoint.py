"""tools/convert/checkpoint.py: reads what torch.save writes, and nothing else happens, whatever a
file holds."""

import builtins
import functools
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy
import pytest
import torch

import checkpoint
import restricted_pickle
from restricted_pickle import Refused


def saved(folder: pathlib.Path, value, zipped: bool = True) -> pathlib.Path:
    path = folder / "checkpoint.pt"
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def zip_of(folder: pathlib.Path, data: bytes, **storages: bytes) -> pathlib.Path:
    """A checkpoint of the zip form with this data.pkl."""
    path = folder / "checkpoint.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('s')}", storage)
    return path


def legacy_of(folder: pathlib.Path, data: bytes) -> pathlib.Path:
    """A checkpoint of the older form with this pickle."""
    path = folder / "checkpoint.pt"
    head = [checkpoint.LEGACY_MAGIC, checkpoint.LEGACY_PROTOCOL, {"little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + data + pickle.dumps([], 2))
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.uint8,
        torch.bool,
    ],
)
def test_reads_every_type(tmp_path, dtype, zipped):
    want = torch.arange(24).reshape(2, 3, 4).to(dtype)
    tensors = {"whole": want, "view": want[1, :, 1:].t(), "scalar": want[1, 1, 1], "none": want[:0]}
    got = checkpoint.read(saved(tmp_path, tensors, zipped))
    for name, tensor in tensors.items():
        expected = tensor.float() if dtype == torch.bfloat16 else tensor
        numpy.testing.assert_array_equal(got[name].numpy(), expected.numpy())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_reads_plain_data(tmp_path, zipped):
    data = {"a": [1, -(2**70), 2.5, None, True], "b": ("x", b"\xff\0", {3}), "c": {"d": {}}}
    assert checkpoint.read(saved(tmp_path, data, zipped)) == data


def test_parameters_are_tensors(tmp_path):
    path = saved(tmp_path, torch.nn.Linear(2, 3).state_dict())
    assert checkpoint.read(path)["weight"].shape == (3, 2)
    path = saved(tmp_path, {"p": torch.nn.Parameter(torch.ones(3))})
    numpy.testing.assert_array_equal(checkpoint.read(path)["p"].numpy(), [1, 1, 1])


def test_a_partial_is_its_keywords(tmp_path):
    path = saved(tmp_path, {"norm": functools.partial(torch.nn.LayerNorm, eps=1e-6)})
    assert checkpoint.read(path)["norm"]["eps"] == 1e-6


# ---- Pickles that would do something.


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


MALICIOUS = {
    "posix.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Calls(builtins.eval, f"open({str(mark)!r}, 'w')"),
    "builtins.exec": lambda mark: Calls(builtins.exec, f"open({str(mark)!r}, 'w')"),
    "builtins.getattr": lambda mark: Calls(builtins.getattr, "", "join"),
    "io.open": lambda mark: Calls(open, str(mark), "w"),
    "torch.serialization.load": lambda mark: Calls(torch.load, str(mark)),
    "torch.hub.load": lambda mark: Calls(torch.hub.load, str(mark), "x"),
}


@pytest.mark.parametrize("make", [zip_of, legacy_of], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", MALICIOUS)
def test_a_call_is_refused_by_name_and_not_made(tmp_path, name, protocol, make):
    mark = tmp_path / "mark"
    data = pickle.dumps({"model": MALICIOUS[name](mark)}, protocol)
    with pytest.raises(Refused, match=name) as refusal:
        checkpoint.read(make(tmp_path, data))
    assert "checkpoint.pt" in str(refusal.value)
    assert not mark.exists()
    # The same pickle is no empty threat: pickle itself knows what to call.
    assert name.rpartition(".")[2].encode() in data


STOP, EMPTY_TUPLE = b".", b")"
BY_HAND = {
    "REDUCE of a string": b"\x8c\x02ab" + EMPTY_TUPLE + b"R" + STOP,
    "INST": b"(S'true'\nios\nsystem\n" + STOP,
    "OBJ": b"(cos\nsystem\nS'true'\no" + STOP,
    "EXT1": b"\x82\x01" + STOP,
    "PERSID": b"Pstorage\n" + STOP,
    "BUILD on a name": b"ccollections\nOrderedDict\n}b" + STOP,
    "NEWOBJ of a function": b"c_codecs\nencode\n)\x81" + STOP,
    "NEWOBJ with arguments": b"cargparse\nNamespace\n\x8c\x01a\x85\x81" + STOP,
    "SETITEM on a number": b"K\x01K\x02K\x03s" + STOP,
    "SETITEM on a list": b"]K\x01aK\x00K\x02s" + STOP,
    "ADDITEMS on a dict": b"}()K\x01\x85\x90" + STOP,
    "APPEND to a tuple": b")K\x01a" + STOP,
    "POP of nothing": b"0" + STOP,
    "TUPLE without a mark": b"t" + STOP,
    "GET of what is not there": b"h\x07" + STOP,
    "no end": b"K\x01",
    "a string longer than the file": b"\x8d" + struct.pack("<Q", 2**60) + b"x" + STOP,
    "an unknown opcode": b"\xff" + STOP,
    "an unhashable key": b"}]K\x01s" + STOP,
    "a codec": b"c_codecs\nencode\n(X\x01\0\0\0aX\x05\0\0\0rot13tR" + STOP,
    "a subscript of data": b"c_operator\ngetitem\n](K\x01K\x02eK\0\x86R" + STOP,
    "a dotted name": b"\x8c\x0bcollections\x8c\x17OrderedDict.__class__.x\x93" + STOP,
    "names that are no strings": b"K\x01K\x02\x93" + STOP,
    "an object of a fairseq class with arguments": b"cfairseq.tasks\nFairseqTask\n)R" + STOP,
}


@pytest.mark.parametrize("make", [zip_of, legacy_of], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", BY_HAND)
def test_a_pickle_made_by_hand_is_refused(tmp_path, name, make):
    with pytest.raises(Refused, match="checkpoint.pt"):
        checkpoint.read(make(tmp_path, BY_HAND[name]))


def test_only_what_is_listed_is_ever_called():
    """Nothing in the lists reaches code, files or attributes."""
    machine = restricted_pickle.Machine(checkpoint.MAKERS, lambda _: None)
    for module, name in (("os", "system"), ("builtins", "getattr"), ("torch", "load")):
        with pytest.raises(Refused, match=name):
            machine.named(module, name)
    modules = {text.partition(".")[0] for text in machine.makers}
    harmless = {"collections", "builtins", "_codecs", "numpy", "functools", "pathlib", "torch"}
    assert modules == harmless | {"_operator"}
    assert {t for t in machine.makers if t.startswith("builtins.")} == {
        "builtins.set",
        "builtins.frozenset",
    }


def nested_tuples(levels: int) -> bytes:
    """2 ** levels elements in a few bytes: each tuple twice the one before."""
    return b")" + b"\x94".join(b"2\x86" for _ in range(levels)) + STOP


def test_sharing_is_not_multiplied(tmp_path):
    with pytest.raises(Refused, match="DUP"):
        checkpoint.read(zip_of(tmp_path, nested_tuples(60)))
    twice = b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    value = checkpoint.read(zip_of(tmp_path, b")" + twice + STOP))
    assert value[0] is value[1]


def test_nesting_without_end_is_refused(tmp_path):
    with pytest.raises(Refused, match="deeply"):
        checkpoint.read(zip_of(tmp_path, b")" + b"\x85" * 100_000 + STOP))
    loop = b"]q\x00h\x00a" + STOP  # a list that holds itself
    value = checkpoint.read(zip_of(tmp_path, loop))
    assert value[0] is value


DEEP = b")" + b"\x85" * 200_000
ORDERED_DICT, SET = b"ccollections\nOrderedDict\n", b"c__builtin__\nset\n"
HASHED = {
    "SETITEM": b"}" + DEEP + b"K\x01s",
    "SETITEMS": b"}(" + DEEP + b"K\x01u",
    "DICT": b"(" + DEEP + b"K\x01d",
    "ADDITEMS": b"\x8f(" + DEEP + b"\x90",
    "FROZENSET": b"(" + DEEP + b"\x91",
    "a dict of pairs": ORDERED_DICT + b"(](" + DEEP + b"K\x01\x86etR",
    "a defaultdict": b"ccollections\ndefaultdict\n(N](" + DEEP + b"K\x01\x86etR",
    "a set of a list": SET + b"(](" + DEEP + b"etR",
    "a frozenset": b"c__builtin__\nfrozenset\n(](" + DEEP + b"etR",
    "attributes": b"cargparse\nNamespace\n)\x81](" + DEEP + b"K\x01\x86eb",
    "a module's name": DEEP + b"\x8c\x01a\x93",
    "a NumPy type": b"cnumpy.core.multiarray\nscalar\n(" + DEEP + b"C\x01atR",
}


@pytest.mark.parametrize("name", HASHED)
def test_nothing_nested_is_hashed(tmp_path, name):
    """The hash of a tuple in a tuple, and so on a hundred thousand times, ends Python itself."""
    path = zip_of(tmp_path, HASHED[name] + STOP)
    program = "import sys, checkpoint\ntry: checkpoint.read(sys.argv[1])\n"
    program += "except checkpoint.Refused as error: sys.exit(str(error))"
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(checkpoint.__file__).parent)}
    run = subprocess.run(
        [sys.executable, "-B", "-c", program, path], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 1, run.returncode
    assert "checkpoint.pt: " in run.stderr
    assert "deeply" not in run.stderr and "damaged" not in run.stderr


def test_keys_and_elements_of_sets_may_be_flat_tuples(tmp_path):
    data = {("a", 1): 1, None: 2, b"x": 3, 2.5: 4, True: {("b", 2), "c"}}
    assert checkpoint.read(saved(tmp_path, data)) == data


DOUBLED = {  # strings and tuples twice as long as the one before, 60 times
    "a tuple as a type": (b")", b"\x86", b"c_operator\ngetitem\n(ctyping\nAny\nh%ctR"),
    "a reference": (b")", b"\x86", b"(X\x05\0\0\0otherh%cNNNtQ"),
    "a storage's type": (b")", b"\x86", b"(X\x07\0\0\0storageh%cNNNtQ"),
    "a tensor's shape": (
        b")",
        b"\x86",
        b"ctorch._utils\n_rebuild_tensor\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0a"
        b"NK\x01tQK\0h%c)tR",
    ),
    "a device": (b")", b"\x86", b"ctorch\ndevice\n(h%ctR"),
    "a NumPy type": (b")", b"\x86", b"cnumpy\ndtype\n(h%ctR"),
}


@pytest.mark.parametrize("name", DOUBLED)
def test_what_is_refused_is_not_written_out(tmp_path, name):
    start, double, use = DOUBLED[name]
    twice = b"".join(b"q%ch%c%b" % (i, i, double) for i in range(60))
    data = b"]" + start + twice + b"q\x3c0" + use % 60 + STOP
    with pytest.raises(Refused, match="checkpoint.pt") as refusal:
        checkpoint.read(zip_of(tmp_path, data))
    assert len(str(refusal.value)) < 500


# ---- Files that are cut off or do not fit together.


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused_at_every_length(tmp_path, zipped):
    path = saved(tmp_path, {"model": {"w": torch.arange(9.0)}}, zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(Refused, match="checkpoint.pt"):
            checkpoint.read(path)["model"]["w"].numpy()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_changed_byte_is_refused_or_read_as_data(tmp_path, zipped):
    path = saved(tmp_path, {"model": {"w": torch.arange(9.0)}}, zipped)
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :])
        try:
            value = checkpoint.read(path)
        except Refused:
            continue
        assert isinstance(
            value, (dict, list, tuple, str, int, float, checkpoint.Tensor, type(None))
        )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(Refused, match="nothing.pt: No such file"):
        checkpoint.read(tmp_path / "nothing.pt")


def tensor_pickle(count: int, offset: int, shape: tuple, stride: tuple) -> bytes:
    """A tensor over storage 0, with numbers of the test's choice."""

    def tuple_of(*parts: bytes) -> bytes:
        return b"(" + b"".join(parts) + b"t"

    def number(n: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", n)

    text = lambda t: b"X" + struct.pack("<I", len(t)) + t  # noqa: E731
    numbers = lambda ns: tuple_of(*map(number, ns))  # noqa: E731
    storage = tuple_of(
        text(b"storage"), b"ctorch\nFloatStorage\n", text(b"0"), text(b"cpu"), number(count)
    )
    arguments = tuple_of(
        storage + b"Q", number(offset), numbers(shape), numbers(stride), b"\x89", b"N"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R" + STOP


STORAGE = numpy.arange(6, dtype="<f4").tobytes()


def test_a_tensor_made_by_hand_is_read(tmp_path):
    path = zip_of(tmp_path, tensor_pickle(6, 0, (2, 3), (3, 1)), s0=STORAGE)
    numpy.testing.assert_array_equal(checkpoint.read(path).numpy(), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("count", "offset", "shape", "stride"),
    [
        (6, 1, (2, 3), (3, 1)),
        (6, 0, (2, 3), (4, 1)),
        (6, 0, (7,), (1,)),
        (6, 0, (2**40,), (0,)),
        (6, 0, (2**62, 4), (0, 0)),
        (6, -1, (2,), (1,)),
        (6, 5, (2,), (-1,)),
        (6, 0, (-2,), (1,)),
        (6, 0, (2, 3), (1,)),
        (7, 0, (7,), (1,)),
        (2**60, 0, (2,), (1,)),
        (-6, 0, (2,), (1,)),
    ],
)
def test_a_tensor_reaches_nothing_but_its_storage(tmp_path, count, offset, shape, stride):
    path = zip_of(tmp_path, tensor_pickle(count, offset, shape, stride), s0=STORAGE)
    with pytest.raises(Refused):
        checkpoint.read(path).numpy()


def test_a_storage_that_is_not_there_is_named(tmp_path):
    path = zip_of(tmp_path, tensor_pickle(6, 0, (6,), (1,)))
    with pytest.raises(Refused, match="checkpoint.pt: no data/0"):
        checkpoint.read(path).numpy()


def test_a_storage_that_was_changed_is_refused(tmp_path):
    """By the checksum that zip files have."""
    path = zip_of(tmp_path, tensor_pickle(6, 0, (6,), (1,)), s0=STORAGE)
    path.write_bytes(path.read_bytes().replace(STORAGE, STORAGE[::-1]))
    with pytest.raises(Refused, match="checkpoint.pt: damaged: BadZipFile"):
        checkpoint.read(path).numpy()


def test_compressed_zip_files_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(Refused, match="compressed"):
        checkpoint.read(path)


def test_torchscript_programs_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(Refused, match="TorchScript"):
        checkpoint.read(path)
