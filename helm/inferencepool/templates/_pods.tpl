{{/* Where a pod may run. Arguments: the pod's values. */}}
{{- define "inferencepool.placement" -}}
{{- range $key := list "nodeSelector" "affinity" "tolerations" "topologySpreadConstraints" "priorityClassName" }}
{{- with index $ $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The part that all pods of the chart share. */}}
{{- define "inferencepool.podSecurity" -}}
{{- with .Values.inferenceExtension.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Workers share counters in files under /tmp, so /tmp is in memory. */}}
{{- define "inferencepool.tmpVolume" -}}
name: tmp
emptyDir:
  medium: Memory
  sizeLimit: 64Mi
{{- end -}}

{{/* An ending picker still takes requests for a while, so the servers that it asks must end after it. */}}
{{- define "inferencepool.endsLater" -}}
lifecycle:
  preStop:
    sleep:
      seconds: 5
{{- end -}}

{{/* Probes of an HTTP server. It is ready when it is alive: without models the picker's default profile decides.
     Arguments: port, scheme. */}}
{{- define "inferencepool.httpProbes" -}}
{{- $get := dict "path" "/healthz" "port" .port -}}
{{- if eq "https" .scheme }}{{ $_ := set $get "scheme" "HTTPS" }}{{ end -}}
startupProbe:
  httpGet: {{ $get | toJson }}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {{ $get | toJson }}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet: {{ $get | toJson }}
  periodSeconds: 5
  timeoutSeconds: 2
{{- end -}}
