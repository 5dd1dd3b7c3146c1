{{/* The variables of the trainer and of the prediction servers: two ConfigMaps. */}}
{{- define "inferencepool.latencyConfig" -}}
{{- $sidecars := include "inferencepool.sidecars" . | fromYaml -}}
{{- $names := include "inferencepool.configNames" . | fromYaml -}}
{{- if $sidecars.trainingServer.enabled }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $sidecars.trainingServer.configMapName }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "inferencepool.labels" . | nindent 4 }}
data:
  MODEL_STORE: {{ include "inferencepool.store" . | quote }}
  {{- if $sidecars.trainingServer.persistence.enabled }}
  SAMPLE_JOURNAL: {{ .Values.modelStore.mountPath }}/.trainer/samples
  {{- end }}
  {{- include "inferencepool.configData" (dict "config" $sidecars.trainingServer.config "names" $names.trainer) | trim | nindent 2 }}
{{- end }}
{{- if $sidecars.predictionServers.enabled }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $sidecars.predictionServers.configMapName }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "inferencepool.labels" . | nindent 4 }}
data:
  MODEL_STORE: {{ include "inferencepool.store" . | quote }}
  {{- include "inferencepool.configData" (dict "config" $sidecars.predictionServers.config "names" $names.predictor) | trim | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A hash that changes with the variables, but not with the chart's version. */}}
{{- define "inferencepool.latencyChecksum" -}}
{{- $sidecars := include "inferencepool.sidecars" . | fromYaml -}}
{{- $trainer := $sidecars.trainingServer -}}
{{- list (include "inferencepool.store" .) $trainer.persistence.enabled $trainer.config $sidecars.predictionServers.config | toJson | sha256sum -}}
{{- end -}}
