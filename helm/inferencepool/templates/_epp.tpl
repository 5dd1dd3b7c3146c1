{{/* The plugin file that the picker reads: the one named, else the only one given, else the picker's own. */}}
{{- define "inferencepool.pluginsFile" -}}
{{- $own := .Values.inferenceExtension.pluginsCustomConfig | default dict -}}
{{- if .Values.inferenceExtension.pluginsConfigFile -}}
{{- .Values.inferenceExtension.pluginsConfigFile -}}
{{- else if eq (len $own) 1 -}}
{{- keys $own | first -}}
{{- else -}}
default-plugins.yaml
{{- end -}}
{{- end -}}

{{- define "inferencepool.poolGroup" -}}
{{- .Values.inferencePool.apiVersion | splitList "/" | first -}}
{{- end -}}

{{/* Whether there is an InferencePool. Without one the picker selects pods by labels, by default with standalone. */}}
{{- define "inferencepool.hasPool" -}}
{{- if kindIs "bool" .Values.inferencePool.create -}}
{{- if .Values.inferencePool.create }}true{{ end -}}
{{- else if not .Values.standalone.enabled -}}
true
{{- end -}}
{{- end -}}

{{/* Ports of the model servers, as a YAML list of numbers. */}}
{{- define "inferencepool.targetPorts" -}}
{{- if eq "v1alpha2" (.Values.inferencePool.apiVersion | splitList "/" | last) -}}
{{- list (int .Values.inferencePool.targetPortNumber) | toYaml -}}
{{- else -}}
{{- $ports := list -}}
{{- range .Values.inferencePool.targetPorts }}{{ $ports = append $ports (int .number) }}{{ end -}}
{{- $ports | toYaml -}}
{{- end -}}
{{- end -}}

{{/* The chart's own flags in order, as a YAML list of [name, value]. The user's flags win. */}}
{{- define "inferencepool.ownFlags" -}}
{{- $values := .Values.inferenceExtension -}}
- [pool-name, {{ .Release.Name | quote }}]
- [pool-namespace, {{ .Release.Namespace | quote }}]
{{- if include "inferencepool.hasPool" . }}
- [pool-group, {{ include "inferencepool.poolGroup" . }}]
{{- else }}
{{- $pairs := list }}
{{- range $key, $value := .Values.inferencePool.modelServers.matchLabels }}{{ $pairs = append $pairs (printf "%s=%s" $key $value) }}{{ end }}
- [endpoint-selector, {{ join "," $pairs | quote }}]
- [endpoint-target-ports, {{ include "inferencepool.targetPorts" . | fromYamlArray | join "," | quote }}]
{{- end }}
- [grpc-port, "{{ int $values.extProcPort }}"]
- [grpc-health-port, "{{ int $values.grpcHealthPort }}"]
- [metrics-port, "{{ int $values.metricsPort }}"]
- [zap-encoder, json]
- [config-file, {{ printf "/config/%s" (include "inferencepool.pluginsFile" .) | quote }}]
{{- if $values.defaultObjectives }}
- [default-objectives-file, /config/default-objectives.yaml]
{{- end }}
{{- if ne "vllm" .Values.inferencePool.modelServerType }}
- [model-server-type, {{ .Values.inferencePool.modelServerType }}]
{{- end }}
{{- if $values.enableLeaderElection }}
- [ha-enable-leader-election, "true"]
{{- end }}
{{- if include "inferencepool.predicts" . }}
- [enable-latency-predictor, "true"]
{{- end }}
{{- if eq "embedded" $values.latencyClient }}
- [latency-client, embedded]
{{- end }}
{{- if $values.metricsEndpointAuth }}
- [metrics-endpoint-auth, "true"]
{{- end }}
{{- if $values.tls.existingSecret }}
- [cert-path, /certs]
{{- end }}
{{- if .Values.standalone.enabled }}
- [health-checking, "true"]
- [try-timeout-factor, "3"]
{{- end }}
{{- end -}}

{{/* The picker's arguments. Each flag is one argument; a boolean's value alone would be an argument of its own. */}}
{{- define "inferencepool.args" -}}
{{- $given := include "inferencepool.flags" . | fromYaml -}}
{{- $args := list -}}
{{- range include "inferencepool.ownFlags" . | fromYamlArray -}}
{{- if not (hasKey $given (first .)) }}{{ $args = append $args (printf "--%s=%s" (first .) (last .)) }}{{ end -}}
{{- end -}}
{{- range $name, $value := $given }}{{ $args = append $args (printf "--%s=%s" $name $value) }}{{ end -}}
{{- $args | toYaml -}}
{{- end -}}

{{- define "inferencepool.eppEnv" -}}
{{- $own := list -}}
{{- range $name, $field := dict "NAMESPACE" "metadata.namespace" "POD_NAME" "metadata.name" -}}
{{- $own = append $own (dict "name" $name "valueFrom" (dict "fieldRef" (dict "fieldPath" $field))) -}}
{{- end -}}
{{- /* A variable, because pickers that don't know the flag would not start with it. */ -}}
{{- $own = append $own (dict "name" "EPP_DEBUG_ACCESS" "value" .Values.inferenceExtension.debugAccess) -}}
{{- if include "inferencepool.hasPredictors" . -}}
{{- $own = append $own (dict "name" "PREDICTION_SERVER_URL" "value" (include "inferencepool.predictionUrls" .)) -}}
{{- end -}}
{{- if include "inferencepool.hasTrainer" . -}}
{{- $own = append $own (dict "name" "TRAINING_SERVER_URL" "value" (include "inferencepool.trainingUrl" .)) -}}
{{- end -}}
{{- if include "inferencepool.trainerTls" . -}}
{{- $own = append $own (dict "name" "LATENCY_CA_FILE" "value" (include "inferencepool.trainingCaFile" .)) -}}
{{- end -}}
{{- if include "inferencepool.hasToken" . -}}
{{- $own = append $own (dict "name" "LATENCY_TOKEN_FILE" "value" (include "inferencepool.tokenFile" .)) -}}
{{- end -}}
{{- if include "inferencepool.isEmbedded" . -}}
{{- $interval := (include "inferencepool.sidecars" . | fromYaml).predictionServers.config.modelSyncIntervalSec -}}
{{- $own = append $own (dict "name" "MODEL_STORE" "value" (include "inferencepool.store" .)) -}}
{{- if include "inferencepool.isSigned" . }}{{ $own = append $own (dict "name" "MODEL_VERIFY_KEY_FILE" "value" (include "inferencepool.verifyKeyFile" .)) }}{{ end -}}
{{- $own = append $own (dict "name" "MODEL_SYNC_INTERVAL_SEC" "value" (include "inferencepool.text" $interval)) -}}
{{- $own = concat $own (include "inferencepool.s3Env" . | fromYamlArray) -}}
{{- end -}}
{{- include "inferencepool.mergedEnv" (dict "own" $own "given" .Values.inferenceExtension.env) -}}
{{- end -}}

{{- define "inferencepool.eppContainer" -}}
{{- $values := .Values.inferenceExtension -}}
name: epp
image: {{ include "inferencepool.image" $values.image | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args:
  {{- include "inferencepool.args" . | nindent 2 }}
env:
  {{- include "inferencepool.eppEnv" . | nindent 2 }}
ports:
  - {name: grpc, containerPort: {{ int $values.extProcPort }}}
  - {name: grpc-health, containerPort: {{ int $values.grpcHealthPort }}}
  - {name: metrics, containerPort: {{ int $values.metricsPort }}}
  {{- with $values.extraContainerPorts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
startupProbe:
  grpc: {port: {{ int $values.grpcHealthPort }}, service: liveness}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  grpc: {port: {{ int $values.grpcHealthPort }}, service: liveness}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 4
# Ready once the pool's pods are known. With leader election, ready only while this picker leads.
readinessProbe:
  grpc: {port: {{ int $values.grpcHealthPort }}, service: readiness}
  periodSeconds: 2
  timeoutSeconds: 2
{{- if .Values.standalone.enabled }}
lifecycle:
  preStop:
    sleep: {seconds: {{ int .Values.standalone.proxy.drainSeconds }}}
{{- end }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - {name: plugins-config-volume, mountPath: /config, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  {{- if $values.tls.existingSecret }}
  - {name: tls, mountPath: /certs, readOnly: true}
  {{- end }}
  {{- if include "inferencepool.trainerTls" . }}
  - {name: training-ca, mountPath: {{ include "inferencepool.trainingCaFile" . | dir }}, readOnly: true}
  {{- end }}
  {{- if include "inferencepool.hasToken" . }}
  - {{ include "inferencepool.tokenMount" . }}
  {{- end }}
  {{- if and (include "inferencepool.isEmbedded" .) (not .Values.modelStore.s3.url) }}
  - {name: model-store, mountPath: {{ .Values.modelStore.mountPath }}, readOnly: true}
  {{- end }}
  {{- if and (include "inferencepool.isEmbedded" .) (include "inferencepool.isSigned" .) }}
  - {{ include "inferencepool.verifyMount" . }}
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
