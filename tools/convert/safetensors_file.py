"""Reads and writes safetensors files with NumPy alone.

A file is 8 bytes of length, that many bytes of JSON, and the tensors, one behind the other.
"""

import json
import pathlib
import struct

import numpy

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
NAMES = {numpy.dtype(t): name for name, t in TYPES.items()}
ALIGNMENT = 8


def read(path: pathlib.Path) -> dict[str, numpy.ndarray]:
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        flat = numpy.frombuffer(data[begin:end], dtype=TYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"]).copy()
    return tensors


def write(path: pathlib.Path, tensors: dict[str, numpy.ndarray]) -> None:
    """Sorted by name, so that the same tensors always make the same file."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    arrays = {name: numpy.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    for name, array in arrays.items():
        end = offset + array.nbytes
        entry = {"dtype": NAMES[array.dtype], "shape": list(array.shape)}
        header[name] = entry | {"data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.data)
