"""A pod's status, derived from the states of its containers."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.node.container import ContainerLife
from tests.node.events import now

Conditions = dict[str, tuple[str, str | None]]
"""Maps a condition's type to its status and the time of its last change."""


def sidecars(init_containers: Sequence[ContainerLife]) -> list[ContainerLife]:
    """Return the init containers that keep running beside the main containers."""
    return [life for life in init_containers if life.container.restart_policy == "Always"]


def phase(
    initialized: bool, containers: Sequence[ContainerLife], init_containers: Sequence[ContainerLife], policy: str
) -> str:
    running_on = sidecars(init_containers)
    failed = any(life.exit_code for life in init_containers if life not in running_on)
    if failed and policy == "Never":
        return "Failed"
    if initialized and all(life.finished for life in containers):
        return "Failed" if any(life.exit_code for life in containers) else "Succeeded"
    return "Running" if initialized and any(life.begun for life in containers) else "Pending"


def update(conditions: Conditions, truths: Mapping[str, bool]) -> None:
    """Set the conditions' statuses. A condition's time changes only with its status."""
    for kind, true in truths.items():
        if conditions.get(kind, ("", ""))[0] != str(true):
            conditions[kind] = (str(true), now())


def with_reasons(conditions: Conditions, reasons: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the conditions in the API's format, with reasons for those that aren't true."""
    return [
        {
            "type": kind,
            "status": status,
            "lastTransitionTime": since,
            **(reasons.get(kind, {}) if status != "True" else {}),
        }
        for kind, (status, since) in conditions.items()
    ]


def reasons(
    done: bool, containers: Sequence[ContainerLife], init_containers: Sequence[ContainerLife]
) -> dict[str, dict[str, str]]:
    """Return the reason by condition type, for a condition that is not true."""
    if done:
        return {kind: {"reason": "PodCompleted"} for kind in ("Ready", "ContainersReady", "Initialized")}
    unready = [life.container.name for life in containers if not life.ready]
    incomplete = [life.container.name for life in init_containers if life.exit_code != 0]
    waiting = {"reason": "ContainersNotReady", "message": f"containers with unready status: {unready}"}
    beginning = {"reason": "ContainersNotInitialized", "message": f"containers with incomplete status: {incomplete}"}
    return {"Ready": waiting, "ContainersReady": waiting, "Initialized": beginning}
