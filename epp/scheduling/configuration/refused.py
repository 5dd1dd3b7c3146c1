"""Plugin types of llm-d's picker that this picker refuses, each with the reason and what to use instead."""

_FLOW_CONTROL = (
    "requests aren't queued here: requests of a priority below 0 are shed when the pool is saturated; "
    "remove it, and see utilization-detector"
)
_DISAGGREGATION = "one endpoint serves the whole request here: prefill and decode aren't disaggregated; remove it"
_MULTI_CLUSTER = "a pool has endpoints of one cluster only; use {}"
_PARSER = (
    "only bodies of the OpenAI API are read, and others pass through unread; use openai-parser or passthrough-parser"
)
_PRECISE = "events of the endpoints' KV caches aren't read; use approx-prefix-cache-producer and prefix-cache-scorer"
_MEDIA = "caches of encoded images and videos aren't tracked; remove it"
_ATTRIBUTES = "only the metrics that flags name are scraped, and endpoints have no attributes; remove it"
_TOPOLOGY = "the topology of nodes isn't read; use label-selector-filter on labels of the endpoints"
_DISCOVERY = "endpoints come from the flags --pool-name, --endpoint-selector or --endpoints-file; remove it"
_SESSIONS = "sessions aren't remembered; use session-affinity-filter, whose responses name the endpoint to clients"

REFUSED = {
    "agent-identity": "requests aren't queued here, so fairness identities aren't derived; remove it",
    "always-disagg-multimodal-decider": _DISAGGREGATION,
    "always-disagg-pd-decider": _DISAGGREGATION,
    "anthropic-parser": _PARSER,
    "burst-prefix-cache-producer": "requests are decided one by one, not in bursts; use approx-prefix-cache-producer",
    "concurrency-detector": "saturation is measured by queue and KV cache; use utilization-detector",
    "data-parallel-profile-handler": "list each rank as an endpoint of its own; use single-profile-handler",
    "dcgm-data-source": _ATTRIBUTES,
    "dcgm-extractor": _ATTRIBUTES,
    "destination-endpoint-served-verifier": "responses aren't marked for conformance tests; remove it",
    "disagg-headers-handler": _DISAGGREGATION,
    "disagg-profile-handler": _DISAGGREGATION,
    "disaggregatedset-rollout-pod-extractor": _DISAGGREGATION,
    "disaggregatedset-rollout-screener": _DISAGGREGATION,
    "edf-ordering-policy": _FLOW_CONTROL,
    "endpoint-attribute-filter": _ATTRIBUTES,
    "endpoint-attribute-scorer": _ATTRIBUTES,
    "endpoint-notification-source": _DISCOVERY,
    "fcfs-ordering-policy": _FLOW_CONTROL,
    "file-discovery": _DISCOVERY,
    "global-strict-fairness-policy": _FLOW_CONTROL,
    "k8s-notification-source": _DISCOVERY,
    "local-syncer": "replicas of the picker don't share state; remove it",
    "mm-embeddings-cache-producer": _MEDIA,
    "mm-embeddings-cache-scorer": _MEDIA,
    "models-data-extractor": _ATTRIBUTES,
    "models-data-source": _ATTRIBUTES,
    "multicluster-approx-prefix-cache-producer": _MULTI_CLUSTER.format("approx-prefix-cache-producer"),
    "multicluster-file-discovery": _DISCOVERY,
    "multicluster-kv-cache-utilization-scorer": _MULTI_CLUSTER.format("kv-cache-utilization-scorer"),
    "multicluster-metrics-data-source": _MULTI_CLUSTER.format("metrics-data-source"),
    "multicluster-metrics-extractor": _MULTI_CLUSTER.format("core-metrics-extractor"),
    "multicluster-prefix-cache-scorer": _MULTI_CLUSTER.format("prefix-cache-scorer"),
    "multicluster-queue-scorer": _MULTI_CLUSTER.format("queue-scorer"),
    "multicluster-session-affinity-filter": _SESSIONS,
    "p2p-source-producer": "KV caches aren't copied between endpoints; remove it",
    "pd-profile-handler": _DISAGGREGATION,
    "precise-prefix-cache-producer": _PRECISE,
    "precise-prefix-cache-scorer": _PRECISE,
    "prefill-header-handler": _DISAGGREGATION,
    "prefix-based-pd-decider": _DISAGGREGATION,
    "priority-holdback-policy": _FLOW_CONTROL,
    "priority-then-time-eviction-order-policy": _FLOW_CONTROL,
    "program-aware-fairness": _FLOW_CONTROL,
    "request-attribute-reporter": "responses don't report on attributes; remove it",
    "round-robin-fairness-policy": _FLOW_CONTROL,
    "session-id-producer": _SESSIONS,
    "sglanghttp-parser": _PARSER,
    "sheddable-eviction-filter": _FLOW_CONTROL,
    "slo-deadline-ordering-policy": _FLOW_CONTROL,
    "soft-reflective-ceiling-policy": _FLOW_CONTROL,
    "static-usage-limit-policy": _FLOW_CONTROL,
    "tokenizer": "prompt tokens are estimated, or counted by the flag --tokenizer; use token-producer",
    "topology-affinity-filter": _TOPOLOGY,
    "topology-affinity-scorer": _TOPOLOGY,
    "topology-extractor": _TOPOLOGY,
    "vertexai-parser": _PARSER,
    "vllmgrpc-parser": _PARSER,
    "vllmhttp-parser": _PARSER,
}
