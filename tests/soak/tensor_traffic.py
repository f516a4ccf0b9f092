"""Models of tensors: images through Classify and ModelInfer, and one that gives back what it gets."""

import asyncio
import struct

import grpc
from answers import Image
from caller import FINE, Caller, expect, expect_close
from tritonclient.grpc import service_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
IMAGES, IDENTITY = "digits", "identity"
MOST_IMAGES, MOST_NUMBERS = 4, 4096


def classify_request(caller: Caller, image: bytes, request_id: str) -> object:
    return caller.pb.ClassifyRequest(model=IMAGES, image=image, top_k=1, request_id=request_id)


def images_request(images: list[Image], request_id: str) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=IMAGES, id=request_id)
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    tensor.contents.bytes_contents.extend(image.file for image in images)
    request.outputs.add(name="logits")
    return request


def identity_request(caller: Caller, request_id: str) -> service_pb2.ModelInferRequest:
    count = caller.rng.randint(1, MOST_NUMBERS)
    request = service_pb2.ModelInferRequest(model_name=IDENTITY, id=request_id)
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, count])
    request.raw_input_contents.append(caller.rng.randbytes(count * 4))
    return request


async def classify(caller: Caller) -> None:
    image, request_id = caller.rng.choice(caller.answers.images), caller.new_id("classify")
    call = caller.inference.Classify(classify_request(caller, image.file, request_id))
    answer = await caller.answer(request_id, "Classify", call)
    if answer is not None:
        (best,) = answer.classes
        expect(best.index == image.best, f"{request_id}: class {best.index}, not {image.best}")
        expect_close(best.probability, image.probability, request_id)


async def classify_and_cancel(caller: Caller) -> None:
    image, request_id = caller.rng.choice(caller.answers.images), caller.new_id("image-cancel")
    call = caller.inference.Classify(classify_request(caller, image.file, request_id))
    await asyncio.sleep(caller.rng.uniform(0, 0.01))
    if call.cancel():
        caller.ledger.give_up(request_id, "Classify")
        return
    code = await call.code()
    caller.ledger.answered[request_id] = ("Classify", code.name)
    expect(code in FINE, f"{request_id}: {code.name}")


async def classify_no_image(caller: Caller) -> None:
    """In company with images that are well."""
    image, request_id = caller.rng.choice(caller.answers.images), caller.new_id("no-image")
    file = caller.rng.choice((b"", b"GIF89a", image.file[: len(image.file) // 2]))
    call = caller.inference.Classify(classify_request(caller, file, request_id))
    allowed = (INVALID, grpc.StatusCode.RESOURCE_EXHAUSTED)
    await caller.answer(request_id, "Classify", call, allowed)


async def infer_images(caller: Caller) -> None:
    request_id = caller.new_id("images")
    images = caller.rng.choices(caller.answers.images, k=caller.rng.randint(1, MOST_IMAGES))
    call = caller.oip.ModelInfer(images_request(images, request_id))
    answer = await caller.answer(request_id, "ModelInfer", call)
    if answer is None:
        return
    (raw,) = answer.raw_output_contents
    num_classes = len(raw) // 4 // len(images)
    for i, image in enumerate(images):
        logits = struct.unpack_from(f"<{num_classes}f", raw, 4 * num_classes * i)
        best = max(range(num_classes), key=logits.__getitem__)
        expect(best == image.best, f"{request_id}, image {i}: class {best}, not {image.best}")


async def infer_identity(caller: Caller) -> None:
    request_id = caller.new_id("identity")
    request = identity_request(caller, request_id)
    answer = await caller.answer(request_id, "ModelInfer", caller.oip.ModelInfer(request))
    if answer is not None:
        expect(answer.id == request_id, f"{request_id}: the answer is that of {answer.id}")
        same = answer.raw_output_contents == request.raw_input_contents
        expect(same, f"{request_id}: other numbers came back")
