"""Makes a peer listen on 127.0.0.1 alone, at a free port that it tells."""

from grpc import aio


def on_free_port() -> None:
    """Whatever address a gRPC server made after this asks for, it gets port 0 of 127.0.0.1."""
    make_server = aio.server

    def make_telling_server(*args, **kwargs) -> aio.Server:
        server = make_server(*args, **kwargs)
        listen = server.add_insecure_port

        def listen_and_tell(address: str) -> int:
            port = listen("127.0.0.1:0")
            print(f"listening 127.0.0.1:{port}", flush=True)
            return port

        server.add_insecure_port = listen_and_tell
        return server

    aio.server = make_telling_server
