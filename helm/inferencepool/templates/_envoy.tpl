{{/* Envoy's configuration; docs/envoy.md gives the reasons. The pool's address is that of a headless Service, which has
     every ready model server. The picker chooses one of them. Without a choice the least busy one gets the request. */}}
{{- define "inferencepool.envoy" -}}
{{- $proxy := .Values.standalone.proxy -}}
{{- $isOpen := eq .Values.inferenceExtension.failureMode "FailOpen" -}}
static_resources:
  listeners:
    - name: inference
      address:
        socket_address: {address: 0.0.0.0, port_value: {{ int $proxy.port }}}
      per_connection_buffer_limit_bytes: 33554432
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                {{- include "inferencepool.envoyManager" (dict "proxy" $proxy "isOpen" $isOpen) | nindent 16 }}
    {{- include "inferencepool.envoyStats" $proxy | nindent 4 }}
  clusters:
    {{- include "inferencepool.envoyPicker" . | nindent 4 }}
    {{- include "inferencepool.envoyPool" . | nindent 4 }}
    - name: admin
      type: STATIC
      load_assignment:
        cluster_name: admin
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: {address: 127.0.0.1, port_value: 9901}
admin:
  address:
    socket_address: {address: 127.0.0.1, port_value: 9901}
{{- end -}}

{{- define "inferencepool.envoyManager" -}}
"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
stat_prefix: inference
stream_idle_timeout: 0s
http_protocol_options: {enable_trailers: true}
# Clients choose neither their endpoint nor timeouts and retries: such headers are removed before any filter sees them.
early_header_mutation_extensions:
  - name: envoy.http.early_header_mutation.header_mutation
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
      mutations:
        - remove: x-gateway-destination-endpoint
        - remove_on_match: {key_matcher: {prefix: x-envoy-}}
local_reply_config:
  mappers:
    - filter:
        extension_filter:
          name: envoy.access_loggers.extension_filters.cel
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter
            expression: response.code_details.startsWith("ext_proc_error")
      status_code: 503
      body: {inline_string: "the endpoint picker does not answer\n"}
    - filter:
        extension_filter:
          name: envoy.access_loggers.extension_filters.cel
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter
            expression: response.code == 413
      body:
        inline_string: >-
          {"error": {"message": "the body is larger than 33554432 bytes", "type": "PayloadTooLargeError", "code": 413,
          "param": null}}
      body_format_override:
        text_format_source: {inline_string: "%LOCAL_REPLY_BODY%"}
        content_type: application/json
route_config:
  virtual_hosts:
    - name: openai
      domains: ["*"]
      routes:
        - match: {prefix: /}
          route:
            cluster: pool
            timeout: 0s
            retry_policy:
              retry_on: connect-failure,refused-stream,reset
              num_retries: 3
              host_selection_retry_max_attempts: 5
              retry_host_predicate:
                - name: envoy.retry_host_predicates.previous_hosts
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
http_filters:
  - name: envoy.filters.http.ext_proc
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
      grpc_service:
        envoy_grpc: {cluster_name: picker}
        timeout: 0s
      failure_mode_allow: {{ .isOpen }}
      processing_mode:
        request_header_mode: SEND
        response_header_mode: SEND
        request_body_mode: {{ .proxy.fullDuplex | ternary "FULL_DUPLEX_STREAMED" "BUFFERED" }}
        response_body_mode: {{ .proxy.fullDuplex | ternary "FULL_DUPLEX_STREAMED" "NONE" }}
        request_trailer_mode: {{ .proxy.fullDuplex | ternary "SEND" "SKIP" }}
        response_trailer_mode: {{ .proxy.fullDuplex | ternary "SEND" "SKIP" }}
      message_timeout: {{ include "inferencepool.seconds" .proxy.messageTimeout }}s
      allow_mode_override: true
      mutation_rules: {allow_envoy: true}
      metadata_options:
        forwarding_namespaces: {untyped: [envoy.lb.subset_hint, envoy.lb]}
        receiving_namespaces: {untyped: [envoy.lb]}
  - name: envoy.filters.http.router
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{{- end -}}

{{/* Two pages of the admin interface, which itself listens only inside the pod, and one of Envoy's own: /ready/picker
     answers 503 until Envoy has found the picker healthy. */}}
{{- define "inferencepool.envoyStats" -}}
- name: stats
  address:
    socket_address: {address: 0.0.0.0, port_value: {{ int .statsPort }}}
  filter_chains:
    - filters:
        - name: envoy.filters.network.http_connection_manager
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
            stat_prefix: stats
            route_config:
              virtual_hosts:
                - name: stats
                  domains: ["*"]
                  routes:
                    - match: {path: /ready}
                      route: {cluster: admin}
                    - match: {path: /stats/prometheus}
                      route: {cluster: admin}
            http_filters:
              - name: envoy.filters.http.health_check
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
                  pass_through_mode: false
                  headers: [{name: ":path", string_match: {exact: /ready/picker}}]
                  cluster_min_healthy_percentages: {picker: {value: 100}}
              - name: envoy.filters.http.router
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{{- end -}}

{{- define "inferencepool.envoyBounds" -}}
circuit_breakers:
  thresholds:
    - {max_connections: 1000000, max_pending_requests: 1000000, max_requests: 1000000, max_retries: 1000}
{{- end -}}

{{- define "inferencepool.envoyPicker" -}}
- name: picker
  type: STRICT_DNS
  connect_timeout: 2s
  {{- include "inferencepool.envoyBounds" . | nindent 2 }}
  load_assignment:
    cluster_name: picker
    endpoints:
      - lb_endpoints:
          - endpoint:
              address:
                socket_address: {address: 127.0.0.1, port_value: {{ int .Values.inferenceExtension.extProcPort }}}
  health_checks:
    - interval: 0.5s
      no_traffic_interval: 0.5s
      timeout: 0.5s
      unhealthy_threshold: 2
      healthy_threshold: 1
      grpc_health_check: {service_name: envoy.service.ext_proc.v3.ExternalProcessor}
  outlier_detection:
    split_external_local_origin_errors: true
    consecutive_local_origin_failure: 3
    enforcing_consecutive_local_origin_failure: 100
    max_ejection_percent: 100
    interval: 0.5s
    base_ejection_time: 5s
    max_ejection_time: 5s
  common_lb_config:
    healthy_panic_threshold: {value: 0}
    update_merge_window: 0s
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config:
        http2_protocol_options:
          connection_keepalive: {interval: 1s, timeout: 3s}
  {{- if ne "false" (get (include "inferencepool.flags" . | fromYaml) "secure-serving" | default "true") }}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      common_tls_context: {alpn_protocols: [h2]}
  {{- end }}
{{- end -}}

{{- define "inferencepool.envoyPool" -}}
{{- $host := printf "%s-servers.%s.svc.%s" (include "inferencepool.base" .) .Release.Namespace .Values.clusterDomain -}}
- name: pool
  type: STRICT_DNS
  connect_timeout: 2s
  # A ready model server can be chosen after this time. Until then its requests go to the least busy server.
  dns_refresh_rate: 1s
  {{- include "inferencepool.envoyBounds" . | nindent 2 }}
  load_assignment:
    cluster_name: pool
    endpoints:
      - lb_endpoints:
          {{- range include "inferencepool.targetPorts" . | fromYamlArray }}
          - endpoint:
              address:
                socket_address: {address: {{ $host }}, port_value: {{ int . }}}
          {{- end }}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config:
        http_protocol_options: {enable_trailers: true}
  load_balancing_policy:
    policies:
      - typed_extension_config:
          name: envoy.load_balancing_policies.override_host
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost
            override_host_sources:
              - metadata:
                  key: envoy.lb
                  path: [{key: x-gateway-destination-endpoint}]
            selected_host_key:
              key: envoy.lb
              path: [{key: x-gateway-destination-endpoint-served}]
            fallback_policy:
              policies:
                - typed_extension_config:
                    name: envoy.load_balancing_policies.least_request
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest
{{- end -}}

{{- define "inferencepool.envoyContainer" -}}
{{- $proxy := .Values.standalone.proxy -}}
name: envoy
image: {{ include "inferencepool.image" $proxy.image | quote }}
imagePullPolicy: {{ $proxy.image.pullPolicy }}
command: [envoy]
args: [--config-path, /etc/envoy/envoy.yaml, --log-level, warn, --disable-hot-restart]
ports:
  - {name: proxy, containerPort: {{ int $proxy.port }}}
  - {name: proxy-stats, containerPort: {{ int $proxy.statsPort }}}
startupProbe:
  httpGet: {path: /ready, port: proxy-stats}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /ready, port: proxy-stats}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 4
{{- /* Until Envoy has checked the picker, it refuses requests, unless they may go elsewhere without it. */}}
readinessProbe:
  httpGet: {path: {{ eq .Values.inferenceExtension.failureMode "FailOpen" | ternary "/ready" "/ready/picker" }}, port: proxy-stats}
  periodSeconds: 2
  timeoutSeconds: 2
lifecycle:
  preStop:
    sleep: {seconds: {{ int $proxy.drainSeconds }}}
resources:
  {{- toYaml $proxy.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - {name: envoy-config, mountPath: /etc/envoy, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- end -}}
