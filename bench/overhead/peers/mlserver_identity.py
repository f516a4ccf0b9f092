"""MLServer with a model that answers OUTPUT0 = INPUT0.

Over gRPC, on 127.0.0.1 at a free port. As fast as it gets on two cores: the model in the server's
own process (with one worker process a third of the requests per second, with two less than that),
uvloop as `mlserver start` takes, neither its metrics nor its access log, and answers that pydantic
does not look at once more.
"""

import asyncio

import listen
from mlserver import MLModel, MLServer, ModelSettings, Settings, types
from mlserver.utils import install_uvloop_event_loop


class Identity(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        given = payload.inputs[0]
        output = types.ResponseOutput.model_construct(
            name="OUTPUT0", shape=given.shape, datatype=given.datatype, data=given.data
        )
        return types.InferenceResponse.model_construct(
            id=payload.id, model_name=self.name, outputs=[output]
        )


async def serve() -> None:
    settings = Settings(
        debug=False, host="127.0.0.1", http_port=0, metrics_endpoint=None, parallel_workers=0
    )
    await MLServer(settings).start([ModelSettings(name="identity", implementation=Identity)])


if __name__ == "__main__":
    listen.on_free_port()
    install_uvloop_event_loop()
    asyncio.run(serve())
