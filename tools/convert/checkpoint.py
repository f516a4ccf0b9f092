"""Reads what torch.save wrote, both the zip form and the older one, with NumPy alone.

Tensors stay in the file until somebody asks for them: an optimizer's state is never read.
"""

import contextlib
import dataclasses
import io
import pathlib
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy

from restricted_pickle import Machine, Name, Record, Refused

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
BFLOAT16 = "bfloat16"  # NumPy has none: two bytes that are widened to a float32
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# Beyond this a pickle without tensors is not a configuration and a list of names.
MAX_PICKLE_BYTES = 1 << 30


def width(dtype: str) -> int:
    return 2 if dtype == BFLOAT16 else numpy.dtype(dtype).itemsize


@dataclasses.dataclass(eq=False)
class Storage:
    """`count` numbers of the file; `read` fetches their bytes."""

    key: str
    dtype: str
    count: int
    read: Callable[["Storage"], bytes]

    def values(self) -> numpy.ndarray:
        data = self.read(self)
        if self.dtype != BFLOAT16:
            return numpy.frombuffer(data, dtype=self.dtype, count=self.count)
        bits = numpy.frombuffer(data, dtype="<u2", count=self.count).astype("<u4")
        return (bits << 16).view("<f4")


@dataclasses.dataclass(eq=False)
class Tensor:
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.stride)
        if not all(isinstance(n, int) for n in numbers):
            raise Refused("a tensor whose shape is not of numbers")
        if min(numbers) < 0 or len(self.shape) != len(self.stride):
            raise Refused(f"a tensor of shape {self.shape} with strides {self.stride}")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if 0 not in self.shape and last >= self.storage.count:
            raise Refused(
                f"a tensor of shape {self.shape} that reaches past the "
                f"{self.storage.count} numbers of storage {self.storage.key}"
            )
        if numpy.prod(self.shape, dtype=object) > max(self.storage.count, 1):
            raise Refused(f"a tensor of shape {self.shape} that repeats its numbers")

    @property
    def dtype(self) -> str:
        return self.storage.dtype

    def numpy(self) -> numpy.ndarray:
        if 0 in self.shape:
            return numpy.zeros(self.shape, dtype="<f4" if self.dtype == BFLOAT16 else self.dtype)
        values = self.storage.values()[self.offset :]
        strides = [s * values.itemsize for s in self.stride]
        return numpy.lib.stride_tricks.as_strided(values, self.shape, strides).copy()


def rebuild_tensor(storage: Storage, offset: int, shape: tuple, stride: tuple, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise Refused("a tensor without storage")
    return Tensor(storage, offset, tuple(shape), tuple(stride))


def rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


def storage_type(*_: Any) -> None:
    raise Refused("a storage outside a tensor")


MAKERS = {
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_parameter": rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": rebuild_parameter,
} | {f"torch.{name}": storage_type for name in STORAGES}


def referred(identifier: Any, storages: dict[str, Storage], read: Callable) -> Storage | Name:
    """What a persistent id of torch refers to."""
    # The older form has ("module", class, file, source) for a layer's class: only its name counts.
    if isinstance(identifier, tuple) and len(identifier) == 4 and identifier[0] == "module":
        return identifier[1]
    storage = new_storage(identifier, read)
    return storages.setdefault(storage.key, storage)


def new_storage(identifier: Any, read: Callable[[Storage], bytes]) -> Storage:
    """Of ("storage", type, key, device, count[, view])."""
    if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
        raise Refused("a reference to something that is not a storage")
    _, kind, key, _, count, *view = identifier
    if not isinstance(kind, Name) or not isinstance(key, (str, int)) or not isinstance(count, int):
        raise Refused("a storage without type, name or number of elements")
    dtype = STORAGES.get(kind.text.removeprefix("torch."))
    if dtype is None or count < 0:
        raise Refused(f"a storage of {count} numbers of type {kind.text}")
    if view and view[0] is not None:
        raise Refused(f"storage {key}, which is a view of another one")
    return Storage(str(key), dtype, count, read)


@contextlib.contextmanager
def refusals_of(path: pathlib.Path) -> Iterator[None]:
    """All that is wrong with the file becomes Refused, with its path."""
    try:
        yield
    except Refused as error:
        raise Refused(f"{path}: {error}") from None
    except OSError as error:
        raise Refused(f"{path}: {error.strerror or error}") from None
    except RecursionError:
        raise Refused(f"{path}: nested too deeply") from None
    except MemoryError:
        raise Refused(f"{path}: announces more than the memory holds") from None
    # Whatever pickletools, zipfile and the makers say of bytes that make no sense.
    except Exception as error:
        raise Refused(f"{path}: damaged: {type(error).__name__}: {error}") from None


def reader(path: pathlib.Path) -> Callable:
    """Makes a function that gets a storage's bytes out of the file one that checks them."""

    def checked(read: Callable[[Storage], bytes]) -> Callable[[Storage], bytes]:
        def checked_read(storage: Storage) -> bytes:
            with refusals_of(path):
                data = read(storage)
                if len(data) < storage.count * width(storage.dtype):
                    raise Refused(
                        f"storage {storage.key} has {len(data)} bytes for {storage.count} numbers"
                    )
                return data

        return checked_read

    return checked


def read_zip(path: pathlib.Path) -> Any:
    archive = zipfile.ZipFile(path)
    members = {m.filename.partition("/")[2]: m for m in archive.infolist()}
    if "constants.pkl" in members:
        raise Refused("a TorchScript program, not a checkpoint")
    if "data.pkl" not in members:
        raise Refused("a zip file without data.pkl")
    if any(m.compress_type != zipfile.ZIP_STORED for m in members.values()):
        raise Refused("a compressed zip file, which torch.save does not write")
    if members["data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise Refused(f"a data.pkl of {members['data.pkl'].file_size} bytes")
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise Refused("a checkpoint of a big-endian machine")

    @reader(path)
    def read(storage: Storage) -> bytes:
        member = members.get(f"data/{storage.key}")
        if member is None:
            raise Refused(f"no data/{storage.key}")
        return archive.read(member)

    storages: dict[str, Storage] = {}
    machine = Machine(MAKERS, lambda identifier: referred(identifier, storages, read))
    return machine.load(io.BytesIO(archive.read(members["data.pkl"])))


def header(file: IO[bytes]) -> Any:
    """The next pickle of the older form, one without tensors."""
    return Machine({}, lambda _: None).load(file)


def read_legacy(path: pathlib.Path) -> Any:
    storages: dict[str, Storage] = {}
    offsets: dict[str, int] = {}

    @reader(path)
    def read(storage: Storage) -> bytes:
        if storage.key not in offsets:
            raise Refused(f"no storage {storage.key}")
        with path.open("rb") as data:
            data.seek(offsets[storage.key])
            return data.read(storage.count * width(storage.dtype))

    with path.open("rb") as file:
        if header(file) != LEGACY_MAGIC or header(file) != LEGACY_PROTOCOL:
            raise Refused("a pickle that torch.save did not write")
        if not header(file).get("little_endian"):
            raise Refused("a checkpoint of a big-endian machine")
        machine = Machine(MAKERS, lambda identifier: referred(identifier, storages, read))
        value = machine.load(file)
        for key in header(file):
            if not isinstance(key, (str, int)):
                raise Refused("a storage whose name is not a string")
            size = file.read(8)
            if str(key) not in storages or len(size) < 8:
                raise Refused(f"storage {key}, which is cut off or belongs to no tensor")
            storage = storages[str(key)]
            (count,) = struct.unpack("<q", size)
            if count != storage.count:
                raise Refused(f"storage {key} with {count} numbers instead of {storage.count}")
            offsets[str(key)] = file.tell()
            file.seek(count * width(storage.dtype), io.SEEK_CUR)
        if file.tell() > path.stat().st_size:
            raise Refused("a file that ends before its tensors")
    return value


def plain(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Records as dicts, omegaconf's containers and values as what they contain."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, Record) and value.name.startswith("omegaconf."):
        inner = value.get("_content", value.get("_val"))
        # A value refers to its container again; whoever asks for the container gets None there.
        seen[id(value)] = None
        seen[id(value)] = plain(inner, seen)
        return seen[id(value)]
    if isinstance(value, dict):
        result = seen[id(value)] = {}
        result.update((key, plain(item, seen)) for key, item in value.items())
        return result
    if isinstance(value, list):
        result = seen[id(value)] = []
        result.extend(plain(item, seen) for item in value)
        return result
    if isinstance(value, tuple) and not isinstance(value, Name):
        seen[id(value)] = tuple(plain(item, seen) for item in value)
        return seen[id(value)]
    return value


def read(path: pathlib.Path) -> Any:
    """Dicts, lists, tuples, numbers, strings and Tensors. Refused says what is wrong."""
    path = pathlib.Path(path)
    with refusals_of(path):
        return plain(read_zip(path) if zipfile.is_zipfile(path) else read_legacy(path))
