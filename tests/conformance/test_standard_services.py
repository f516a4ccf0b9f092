"""Health and reflection, through the gRPC project's own Python packages."""

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICES = [
    "evaserve.v1.Inference",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
]


def health_request(service):
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", "tiny", "evaserve.v1.Inference"])
def test_check(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    assert stub.Check(health_request(service)).status == SERVING


def test_check_of_an_unknown_service(channel):
    with pytest.raises(grpc.RpcError) as error:
        health_pb2_grpc.HealthStub(channel).Check(health_request("other"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", ["", "tiny"])
def test_watch_begins_with_the_state_now(channel, service):
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_request(service))
    assert next(watch).status == SERVING
    watch.cancel()


def test_watch_of_an_unknown_service(channel):
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_request("other"))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_reflection_lists_the_services(channel):
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert sorted(services) == SERVICES


@pytest.mark.parametrize("service", SERVICES[:2] + SERVICES[3:])
def test_reflection_describes_the_services(channel, service):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    assert pool.FindServiceByName(service).methods
