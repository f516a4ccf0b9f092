"""KServe's Python server with a model that answers OUTPUT0 = INPUT0.

Over gRPC, on 127.0.0.1 at a free port.

As fast as it gets on two cores: its `workers` are processes for HTTP alone, so gRPC has the one of
kserve.ModelServer. That class is not used, as it also listens for HTTP on all addresses; what it
does for gRPC is below. No log line for each request, and uvloop, which is no slower.
"""

import kserve
import listen
import uvloop
from kserve.constants.constants import MAX_GRPC_MESSAGE_LENGTH
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

MAX_THREADS = 4  # what kserve.ModelServer takes; only for what is not asyncio


class Identity(kserve.Model):
    async def predict(
        self, payload: kserve.InferRequest, headers: dict | None = None, response_headers=None
    ) -> kserve.InferResponse:
        given = payload.inputs[0]
        output = kserve.InferOutput("OUTPUT0", given.shape, given.datatype)
        output.set_data_from_numpy(given.as_numpy())
        return kserve.InferResponse(payload.id, self.name, [output])


async def serve() -> None:
    model = Identity("identity")
    model.load()
    models = kserve.ModelRepository()
    models.update(model)
    options = {
        "grpc_max_send_message_length": MAX_GRPC_MESSAGE_LENGTH,
        "grpc_max_receive_message_length": MAX_GRPC_MESSAGE_LENGTH,
    }
    server = GRPCServer(0, DataPlane(models), ModelRepositoryExtension(models), options)
    await server.start(MAX_THREADS)


if __name__ == "__main__":
    listen.on_free_port()
    uvloop.run(serve())
