"""A pool that several senders share: pickers that know nothing of each other, or clients that send directly."""

from collections.abc import Callable, Sequence

from lab.evaluation.policies.oracle import Oracle
from lab.evaluation.policies.picker import Picker
from simulator.arrival import Arrival
from simulator.cluster import Cluster, Flight, Observer, Placement


class SharedPool:
    """Deals the requests to the senders: in turn, or by `which`, which maps a request's index to that of a sender.

    A sender that is listed twice gets twice the share.
    """

    def __init__(self, senders: Sequence[Observer], which: Callable[[int], int] | None = None) -> None:
        self._senders = senders
        self._which = which or (lambda index: index % len(senders))

    def attach(self, cluster: Cluster) -> None:
        for sender in self._senders:
            if isinstance(sender, Oracle | Picker):
                sender.attach(cluster)

    def place(self, arrival: Arrival, now_s: float) -> Placement | None:
        return self._sender(arrival).place(arrival, now_s)

    def first_token(self, flight: Flight, now_s: float) -> None:
        self._sender(flight.arrival).first_token(flight, now_s)

    def marked(self, flight: Flight, tokens: int, now_s: float) -> None:
        self._sender(flight.arrival).marked(flight, tokens, now_s)

    def ended(self, flight: Flight, now_s: float) -> None:
        self._sender(flight.arrival).ended(flight, now_s)

    def _sender(self, arrival: Arrival) -> Observer:
        return self._senders[self._which(arrival.index)]
