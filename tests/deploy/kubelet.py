"""What the kubelet sets in a pod's environment, as Kubernetes' own source has it: pkg/kubelet/envvars/envvars.go."""

from collections.abc import Sequence
from typing import Any

ADDRESS = "10.96.0.17"


def service_links(name: str, ports: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The variables of one Service that has an address of its own."""
    prefix = _variable(name)
    found = {f"{prefix}_SERVICE_HOST": ADDRESS, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        if "name" in port:
            found[f"{prefix}_SERVICE_PORT_{_variable(port['name'])}"] = str(port["port"])
    for number, port in enumerate(ports):
        protocol = port.get("protocol", "TCP")
        url = f"{protocol.lower()}://{ADDRESS}:{port['port']}"
        if number == 0:
            found[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{port['port']}_{protocol}"
        found |= {
            link: url,
            f"{link}_PROTO": protocol.lower(),
            f"{link}_PORT": str(port["port"]),
            f"{link}_ADDR": ADDRESS,
        }
    return found


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")
