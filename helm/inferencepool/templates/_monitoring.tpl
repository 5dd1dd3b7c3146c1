{{/* Of the picker's metrics. */}}
{{- define "inferencepool.metricsScheme" -}}
{{- if get (include "inferencepool.flags" . | fromYaml) "metrics-cert-dir" }}https{{ else }}http{{ end -}}
{{- end -}}

{{/* How the picker's metrics are read, where they are guarded. Its certificate for them is no concern of the chart's. */}}
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
