"""The demo classifier through the server: as accurate as its card says, and the same as the
PyTorch module that was trained (tools/train_digits), from files and from tensors."""

import base64
import json
import pathlib
import shutil
import subprocess
import sys

import grpc
import numpy
import pytest
import tritonclient.grpc as triton
from evaserve_program import Evaserve
from tritonclient.utils import InferenceServerException

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / "demo" / "digits"
sys.path.append(str(ROOT / "tools" / "convert"))

import safetensors_file  # noqa: E402

LEAST_ACCURACY = 0.97
# Of logits up to 10: float32 against float32, in another order.
TOLERANCE = 2e-4
# The reference resized with Pillow 13, which rounds some pixels to the next byte.
FILE_TOLERANCE = 0.1
BATCH = 60


@pytest.fixture(scope="module")
def held_out():
    return safetensors_file.read(DIGITS / "heldout.safetensors")


@pytest.fixture(scope="module")
def files(held_out):
    begins = held_out["png_offset"]
    png = held_out["png"].tobytes()
    return [png[begin:end] for begin, end in zip(begins[:-1], begins[1:], strict=True)]


@pytest.fixture(scope="module")
def server(pytestconfig):
    server = Evaserve(pytestconfig.getoption("evaserve"), "--model", f"digits={DIGITS}")
    yield server
    assert server.terminate() == 0


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.target) as client:
        yield client


def infer_images(client, images, outputs):
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(numpy.array(images, dtype=object))
    return client.infer("digits", [tensor], outputs=outputs)


def logits_of(client, images):
    wanted = [triton.InferRequestedOutput("logits")]
    batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    results = [infer_images(client, batch, wanted).as_numpy("logits") for batch in batches]
    return numpy.concatenate(results)


def test_it_reads_held_out_digits(client, held_out, files):
    logits = logits_of(client, files)
    accuracy = (logits.argmax(axis=1) == held_out["label"]).mean()
    print(f"{accuracy:.2%} of {len(files)}")
    assert len(files) >= 300
    assert accuracy >= LEAST_ACCURACY
    difference = numpy.abs(logits - held_out["logits"]).max(axis=1)
    assert difference.max() < FILE_TOLERANCE
    assert (difference < TOLERANCE).mean() > 0.8


def test_tensors_give_what_files_give(client, held_out, files):
    pixels = held_out["input"]
    tensor = triton.InferInput("pixel_values", pixels.shape, "FP32")
    tensor.set_data_from_numpy(pixels)
    logits = client.infer("digits", [tensor]).as_numpy("logits")
    assert numpy.abs(logits - held_out["logits"][: len(pixels)]).max() < TOLERANCE
    assert numpy.abs(logits - logits_of(client, files[: len(pixels)])).max() < FILE_TOLERANCE


def test_classes_by_tritons_extension(client, held_out, files):
    result = infer_images(client, files[:2], [triton.InferRequestedOutput("logits", class_count=3)])
    classes = result.as_numpy("logits")
    assert classes.shape == (2, 3)
    for row, logits in zip(classes, held_out["logits"], strict=False):
        score, index, label = row[0].decode().split(":")
        assert int(index) == logits.argmax()
        assert label == str(logits.argmax())
        assert float(score) == pytest.approx(logits.max(), abs=FILE_TOLERANCE)


def test_classify(server, stubs, held_out, files):
    pb, pb_grpc = stubs
    with grpc.insecure_channel(server.target) as channel:
        stub = pb_grpc.InferenceStub(channel)
        response = stub.Classify(pb.ClassifyRequest(image=files[0], top_k=10))
        logits = held_out["logits"][0]
        exponents = numpy.exp(logits - logits.max())
        expected = sorted(exponents / exponents.sum(), reverse=True)
        assert [one.probability for one in response.classes] == pytest.approx(expected, abs=1e-4)
        assert response.classes[0].label == str(logits.argmax())
        assert response.timings.total_seconds > 0
        for image, code in ((b"", "INVALID_ARGUMENT"), (b"GIF", "INVALID_ARGUMENT")):
            with pytest.raises(grpc.RpcError) as error:
                stub.Classify(pb.ClassifyRequest(image=image))
            assert error.value.code().name == code
            assert "image" in error.value.details()
        with pytest.raises(grpc.RpcError) as error:
            stub.Generate(pb.GenerateRequest(prompt=b"a")).next()
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_eva_classify(server, pytestconfig):
    command = [pytestconfig.getoption("eva"), "--server", server.target, "classify"]
    image = DIGITS / "seven.png"
    said = subprocess.run([*command, image], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{image}: 7 (")
    wrong = subprocess.run([*command, __file__], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "neither a JPEG nor a PNG" in wrong.stderr


def test_eva_classify_names_any_file(server, pytestconfig, tmp_path):
    image = bytes(tmp_path) + b"/\xff.png"
    shutil.copy(DIGITS / "seven.png", image)
    command = [pytestconfig.getoption("eva"), "--server", server.target, "--json", "classify"]
    said = json.loads(subprocess.run([*command, image], capture_output=True, check=True).stdout)
    assert base64.b64decode(said["file_base64"]) == image
    assert said["classes"][0]["label"] == "7"


def test_what_it_takes_is_in_the_metadata(client):
    metadata = client.get_model_metadata("digits")
    assert {(t.name, t.datatype) for t in metadata.inputs} == {
        ("pixel_values", "FP32"),
        ("image", "BYTES"),
    }
    config = client.get_model_config("digits").config
    assert all(one.optional for one in config.input)
    assert "resize to 32x32 (bicubic)" in config.parameters["image_processing"].string_value


def test_wrong_tensors_are_refused(client):
    pixels = triton.InferInput("pixel_values", [1, 3, 16, 16], "FP32")
    pixels.set_data_from_numpy(numpy.zeros((1, 3, 16, 16), dtype=numpy.float32))
    with pytest.raises(InferenceServerException, match=r"\[1,3,16,16\], allowed is \[-1,3,32,32\]"):
        client.infer("digits", [pixels])
    with pytest.raises(InferenceServerException, match="inputs: got none"):
        client.infer("digits", [])


def test_one_bad_file_among_many_fails_alone(server, stubs, held_out, files):
    """Some of the calls run in one batch, where damaged pixels are found."""
    pb, pb_grpc = stubs
    damaged = files[0][:-20]
    images = [*files[:8], damaged, *files[8:16]]
    found = held_out["logits"].argmax(axis=1)
    labels = [*found[:8], None, *found[8:16]]
    with grpc.insecure_channel(server.target) as channel:
        stub = pb_grpc.InferenceStub(channel)
        calls = [stub.Classify.future(pb.ClassifyRequest(image=image)) for image in images]
        for call, label in zip(calls, labels, strict=True):
            if label is None:
                assert call.code() == grpc.StatusCode.INVALID_ARGUMENT
            else:
                assert call.result().classes[0].index == label
