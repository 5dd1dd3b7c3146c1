"""The endpoints among which a request may choose, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epp.pool.addresses import host_of
from epp.pool.state import selection
from epp.scheduling.snapshot import NO_ADAPTERS, Adapters, Bools, Endpoint, Floats, Indices
from model_store import POD_TYPE_CODES

_ROLE_LABEL = "llm-d.ai/role"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Endpoints in the order of their slots; `taken` selects the endpoints from the arrays."""

    slots: Indices
    taken: slice | Indices
    endpoints: tuple[Endpoint, ...]
    hosts: tuple[str, ...]
    roles: Floats

    def only(self, keep: Bools) -> "Candidates":
        indices = np.flatnonzero(keep)
        slots = self.slots[indices]
        endpoints = tuple(self.endpoints[i] for i in indices)
        return Candidates(slots, slots, endpoints, tuple(self.hosts[i] for i in indices), self.roles[indices])


def candidates_of(endpoints: Mapping[int, Endpoint]) -> Candidates:
    """Build the candidates from `endpoints`, which are in the order of their slots."""
    slots = np.array(list(endpoints), dtype=np.intp)
    listed = tuple(endpoints.values())
    hosts = tuple(host_of(endpoint.address) for endpoint in listed)
    return Candidates(slots, selection(slots), listed, hosts, _roles(listed))


def adapters_of(slots: Indices, known: Mapping[int, Adapters]) -> tuple[Adapters, ...]:
    """Return the adapters of each slot, of which few or none are known."""
    if not known:
        return (NO_ADAPTERS,) * len(slots)
    return tuple([known.get(slot, NO_ADAPTERS) for slot in slots.tolist()])


def _roles(endpoints: Sequence[Endpoint]) -> Floats:
    return np.array([POD_TYPE_CODES.get(endpoint.labels.get(_ROLE_LABEL, ""), np.nan) for endpoint in endpoints])
