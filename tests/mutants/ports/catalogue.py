"""All ports by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.mutants.ports.recurrent_ports import RECURRENT_PORTS
from tests.mutants.ports.region_faults import REGION_PORTS
from tests.mutants.ports.token_ports import TOKEN_PORTS
from tests.mutants.ports.vision_ports import VISION_PORTS

if TYPE_CHECKING:
    from tests.mutants.ports.hosts import Port

_KINDS = (REGION_PORTS, TOKEN_PORTS, VISION_PORTS, RECURRENT_PORTS)
PORTS: dict[str, Port] = {name: port for kind in _KINDS for name, port in kind.items()}
assert len(PORTS) == sum(map(len, _KINDS)), "two ports have the same name"
