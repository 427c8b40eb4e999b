"""Check a Kubernetes manifest against the schema of its kind, without a cluster.

usage: python scripts/check_manifest.py scripts/kuberay.yaml ray.io_rayjobs.yaml

The second file is the kind's CustomResourceDefinition. KubeRay's are in its repository, in
helm-chart/kuberay-operator/crds. With a cluster at hand, `kubectl apply --dry-run=server -f MANIFEST` checks the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml


def strict(schema: Any) -> Any:
    """The schema with unknown fields refused. Kubernetes drops them, so a misspelt field would have no effect."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: strict(part) for name, part in schema.items()}
    if schema.pop("x-kubernetes-int-or-string", False):
        schema["type"] = ["integer", "string"]
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        schema["additionalProperties"] = False
    return schema


def problems(manifest: Any, definition: Any) -> list[str]:
    """One line per fault of the manifest. Empty if it has none."""
    group, _, version = manifest["apiVersion"].partition("/")
    if (definition["spec"]["group"], definition["spec"]["names"]["kind"]) != (group, manifest["kind"]):
        return [f"the definition is not that of {manifest['kind']} in {group}"]
    schema = next(v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == version)
    content = {name: part for name, part in manifest.items() if name != "metadata"}
    found = jsonschema.Draft202012Validator(strict(schema)).iter_errors(content)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]


def main() -> None:
    manifest, definition = (yaml.safe_load(Path(name).read_text()) for name in sys.argv[1:3])
    found = problems(manifest, definition)
    print("\n".join(found) or f"{sys.argv[1]} is a valid {manifest['kind']}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
