"""What goes on beside the callers for as long as they do: models come and go, health is watched,
metrics are scraped."""

import asyncio
import json
from collections.abc import Iterable

import grpc
from caller import OK, Caller, expect
from evaserve_program import Evaserve
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ledger import Ledger, count_requests
from tritonclient.grpc import service_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
MOST_IN_FLIGHT = 1_000


async def load(caller: Caller, model: str, code: grpc.StatusCode = OK, config: str = "") -> None:
    request_id = caller.new_id("load")
    request = service_pb2.RepositoryModelLoadRequest(model_name=model)
    if config:
        request.parameters["config"].string_param = config
    call = caller.oip.RepositoryModelLoad(request, metadata=[("x-request-id", request_id)])
    await caller.answer(request_id, "RepositoryModelLoad", call, allowed=(code,))


async def unload(caller: Caller, model: str) -> None:
    request_id = caller.new_id("unload")
    request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
    call = caller.oip.RepositoryModelUnload(request, metadata=[("x-request-id", request_id)])
    allowed = (OK, grpc.StatusCode.NOT_FOUND)  # it may be gone already
    await caller.answer(request_id, "RepositoryModelUnload", call, allowed)


async def change_models(caller: Caller) -> None:
    """One thing after the other; "coming" is as likely there as not."""
    draw = caller.rng.random()
    if draw < 0.3:
        await load(caller, "coming")
    elif draw < 0.6:
        await unload(caller, "coming")
    elif draw < 0.75:
        config = json.dumps({"max_running": caller.rng.randint(4, 16)})
        await load(caller, caller.rng.choice(("tiny", "demo")), config=config)
    elif draw < 0.9:
        await load(caller, caller.rng.choice(("tiny", "demo")))
    else:
        bad = caller.rng.choice((("nobody", "NOT_FOUND", ""), ("tiny", "INVALID_ARGUMENT", "{")))
        await load(caller, bad[0], grpc.StatusCode[bad[1]], bad[2])
    await asyncio.sleep(caller.rng.uniform(0, 0.3))


async def renew(caller: Caller, models: Iterable[str]) -> None:
    """Makes them as new: a model takes state memory as it is used, and keeps it. One in which
    nothing has changed is not loaded again, so each is changed and changed back."""
    for model in models:
        await load(caller, model, config=json.dumps({"max_running": 3}))
        await load(caller, model)


async def watch(caller: Caller, service: str, seconds: float) -> None:
    """What is only reloaded is healthy all the time."""
    request = health_pb2.HealthCheckRequest(service=service)
    call = health_pb2_grpc.HealthStub(caller.channel).Watch(request)
    last = None
    try:
        async with asyncio.timeout(seconds):
            async for response in call:
                last = response.status
                expect(last == SERVING, f"health of {service!r}: {last}")
        expect(False, f"the watch of {service!r} has ended")
    except TimeoutError:
        call.cancel()
    expect(last is not None, f"nothing was told about {service!r}")


async def scrape(server: Evaserve, ledger: Ledger, end: float) -> None:
    """What is counted never becomes less."""
    loop, before = asyncio.get_running_loop(), {}
    while loop.time() < end:
        samples = await asyncio.to_thread(server.metrics)
        counts = count_requests(samples)
        for key, count in before.items():
            expect(counts[key] >= count, f"{key}: counted {count} times, later {counts[key]}")
        (in_flight,) = (s.value for s in samples if s.name == "evaserve_requests_in_flight")
        expect(0 <= in_flight < MOST_IN_FLIGHT, f"{in_flight} requests in flight")
        before = counts
        ledger.kinds["scrape"] += 1
        await asyncio.sleep(0.2)
