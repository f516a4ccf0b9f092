"""Reads Kubernetes manifests and holds them against schemas."""

import pathlib
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

# The oldest that the chart allows, and the newest that the package knows.
KUBERNETES_VERSIONS = ("1.30", kubernetes_validate.latest_version())
Manifest = dict[str, Any]
Schemas = dict[tuple[str, str], dict]
BUILT_IN_GROUPS = ("v1", "apps/", "autoscaling/", "networking.k8s.io/", "policy/")


def is_built_in(manifest: Manifest) -> bool:
    return manifest["apiVersion"].startswith(BUILT_IN_GROUPS)


def of_kind(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The only manifest of `kind`, or the only one with that name."""
    (found,) = [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]
    return found


def check_built_in(manifest: Manifest) -> None:
    """Raises ValidationError; a field that Kubernetes does not know is an error too."""
    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def strict(schema: Any) -> Any:
    """The schema of a CustomResourceDefinition, with unknown fields not allowed."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    free = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & set(schema)
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        result["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
        result.pop("anyOf", None)
    if str(schema.get("pattern")).startswith("^(?i)"):  # as Go writes it
        result["pattern"] = "(?i)^" + schema["pattern"].removeprefix("^(?i)")
    return result


def read_crds(folder: pathlib.Path) -> Schemas:
    """Schemas by (apiVersion, kind), of the CustomResourceDefinitions in the files of `folder`."""
    schemas: Schemas = {}
    for file in folder.glob("*.yaml"):
        for crd in yaml.safe_load_all(file.read_text()):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                # CRDs say only that it is an object.
                schema["properties"]["metadata"] = {"type": "object"}
                schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return schemas


def check_custom(manifest: Manifest, schemas: Schemas) -> None:
    """Raises ValidationError, or KeyError for a kind without a schema."""
    jsonschema.validate(manifest, schemas[manifest["apiVersion"], manifest["kind"]])
