"""Workloads for replays in virtual time: published traces, and synthetic workloads for one difficulty each."""

from simulator.workloads.catalogue import WORKLOADS, azure_conversation, mooncake_conversation
from simulator.workloads.workload import Workload

__all__ = ["WORKLOADS", "Workload", "azure_conversation", "mooncake_conversation"]
