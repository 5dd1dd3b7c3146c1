{{/* What a scrape of the picker's metrics shows, where they are guarded. */}}
{{- define "inferencepool.metricsToken" -}}
{{- with .Values.monitoring.bearerTokenSecret -}}
{{- if .name -}}
authorization:
  type: Bearer
  credentials:
    name: {{ .name }}
    key: {{ .key }}
{{- end -}}
{{- end -}}
{{- end -}}
