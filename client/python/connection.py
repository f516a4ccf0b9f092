"""The examples' flags for a server with TLS or tokens, as those of `eva`."""

import argparse
import os
import pathlib

import grpc


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", default="localhost:8001")
    parser.add_argument("--tls", action="store_true", help="encrypt, and check the certificate")
    parser.add_argument("--tls-ca", help="PEM file of authorities to trust; implies --tls")
    parser.add_argument("--tls-cert", help="PEM file of the client's own certificate; implies --tls")
    parser.add_argument("--tls-key", help="PEM file of its key")
    parser.add_argument("--token-file", help="file with the token to show; else it is EVA_TOKEN")


def _read(path: str | None) -> bytes | None:
    return pathlib.Path(path).read_bytes() if path else None


def headers(args: argparse.Namespace) -> dict[str, str]:
    """What goes with every call: the token, if there is one."""
    if args.token_file:
        token = pathlib.Path(args.token_file).read_text().strip()
    else:
        token = os.environ.get("EVA_TOKEN", "").strip()
    return {"authorization": f"Bearer {token}"} if token else {}


def credentials(args: argparse.Namespace) -> grpc.ChannelCredentials | None:
    """None for a connection that is not encrypted."""
    if not (args.tls or args.tls_ca or args.tls_cert):
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read(args.tls_ca),
        private_key=_read(args.tls_key),
        certificate_chain=_read(args.tls_cert),
    )


def channel(args: argparse.Namespace) -> grpc.Channel:
    tls = credentials(args)
    return grpc.secure_channel(args.server, tls) if tls else grpc.insecure_channel(args.server)
