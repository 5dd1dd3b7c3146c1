{{/* The scheme of the picker's metrics. */}}
{{- define "inferencepool.metricsScheme" -}}
{{- if get (include "inferencepool.flags" . | fromYaml) "metrics-cert-dir" }}https{{ else }}http{{ end -}}
{{- end -}}

{{/* How Prometheus reads guarded metrics of the picker. The chart doesn't verify the picker's certificate for them. */}}
{{- define "inferencepool.metricsAccess" -}}
{{- if eq "https" (include "inferencepool.metricsScheme" .) }}
scheme: https
tlsConfig:
  insecureSkipVerify: true
{{- end }}
{{- with .Values.monitoring.bearerTokenSecret }}
{{- if .name }}
authorization:
  type: Bearer
  credentials:
    name: {{ .name }}
    key: {{ .key }}
{{- end }}
{{- end }}
{{- end -}}
