"""Filters: which candidates stay."""

import numpy as np

from epp.scheduling.plugin import Filter, plugin
from epp.scheduling.request import Request
from epp.scheduling.snapshot import Bools, Snapshot

_TEST_HEADER = "test-epp-endpoint-selection"


@plugin("header-based-testing-filter")
class HeaderBasedTestingFilter(Filter, frozen=True):
    """Keeps the endpoints whose IP the header `test-epp-endpoint-selection` lists; without the header, none."""

    def keep(self, request: Request, pool: Snapshot) -> Bools:
        listed = {ip.strip() for ip in request.headers.get(_TEST_HEADER, "").split(",")} - {""}
        return np.array([endpoint.address.rpartition(":")[0] in listed for endpoint in pool.endpoints], dtype=bool)
