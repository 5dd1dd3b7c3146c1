{{/* The release's name, without characters that labels or port names can't hold. All other names begin with it. */}}
{{- define "inferencepool.base" -}}
{{- .Release.Name | trim | lower | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of the picker's Deployment, Service, ConfigMap, ServiceAccount and Role. */}}
{{- define "inferencepool.name" -}}
{{- include "inferencepool.base" . }}-epp
{{- end -}}

{{- define "inferencepool.trainingName" -}}
{{- include "inferencepool.base" . }}-training
{{- end -}}

{{/* The name of cluster-wide objects. Two releases of one name in two namespaces must not share it. */}}
{{- define "inferencepool.clusterName" -}}
{{- .Release.Namespace }}-{{ include "inferencepool.name" . }}
{{- end -}}

{{- define "inferencepool.claimName" -}}
{{- $persistence := (include "inferencepool.sidecars" . | fromYaml).trainingServer.persistence -}}
{{- $persistence.existingClaim | default (printf "%s-model-store" (include "inferencepool.base" .)) -}}
{{- end -}}

{{- define "inferencepool.selectorLabels" -}}
inferencepool: {{ include "inferencepool.name" . }}
{{- end -}}

{{- define "inferencepool.trainingSelectorLabels" -}}
inferencepool: {{ include "inferencepool.trainingName" . }}
{{- end -}}

{{- define "inferencepool.labels" -}}
app.kubernetes.io/name: {{ include "inferencepool.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* hub/name:tag, or hub/name@digest. */}}
{{- define "inferencepool.image" -}}
{{- $place := printf "%s/%s" .hub .name -}}
{{- if .digest }}{{ $place }}@{{ .digest }}{{ else }}{{ $place }}:{{ .tag }}{{ end -}}
{{- end -}}

{{- define "inferencepool.testLabels" -}}
inferencepool-test: {{ include "inferencepool.name" . }}
{{- end -}}

{{/* The pod of `helm test` as a peer of a NetworkPolicy. */}}
{{- define "inferencepool.testPeer" -}}
- podSelector:
    matchLabels:
      {{- include "inferencepool.testLabels" . | nindent 6 }}
{{- end -}}
