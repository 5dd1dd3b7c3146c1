{{/* Where a pod may run, as its own values say. Arguments: those values. */}}
{{- define "inferencepool.placement" -}}
{{- range $key := list "nodeSelector" "affinity" "tolerations" "topologySpreadConstraints" "priorityClassName" }}
{{- with index $ $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What every pod of the chart has in common. */}}
{{- define "inferencepool.podSecurity" -}}
{{- with .Values.inferenceExtension.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Workers share counters in files under /tmp, which are to be memory. */}}
{{- define "inferencepool.tmpVolume" -}}
name: tmp
emptyDir:
  medium: Memory
  sizeLimit: 64Mi
{{- end -}}

{{/* A pod that ends takes requests for a while longer, so what the picker asks ends after it. */}}
{{- define "inferencepool.endsLater" -}}
lifecycle:
  preStop:
    sleep:
      seconds: 5
{{- end -}}

{{/* Probes of an HTTP server. Alive is ready: without models it answers so, and the picker's default profile decides.
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
