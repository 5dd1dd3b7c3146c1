{{- define "inferencepool.trainingContainer" -}}
{{- $trainer := (include "inferencepool.sidecars" . | fromYaml).trainingServer -}}
name: training-server
image: {{ include "inferencepool.image" $trainer.image | quote }}
imagePullPolicy: {{ $trainer.image.pullPolicy }}
{{- with $trainer.args }}
args:
  {{- toYaml . | nindent 2 }}
{{- end }}
envFrom:
  - configMapRef: {name: {{ $trainer.configMapName }}}
env:
  {{- $own := append (include "inferencepool.s3Env" . | fromYamlArray) (dict "name" "TRAINER_PORT" "value" "8000") }}
  {{- if include "inferencepool.trainerTls" . }}{{ $own = append $own (dict "name" "TRAINER_CERT_PATH" "value" "/certs") }}{{ end }}
  {{- if include "inferencepool.isSigned" . }}{{ $own = append $own (dict "name" "MODEL_SIGNING_KEY_FILE" "value" (include "inferencepool.signingKeyFile" .)) }}{{ end }}
  {{- if include "inferencepool.isSigned" . }}{{ $own = append $own (dict "name" "MODEL_VERIFY_KEY_FILE" "value" (include "inferencepool.verifyKeyFile" .)) }}{{ end }}
  {{- if include "inferencepool.trainerAsksToken" . }}{{ $own = append $own (dict "name" "TRAINER_TOKEN_FILE" "value" (include "inferencepool.tokenFile" .)) }}{{ end }}
  {{- include "inferencepool.mergedEnv" (dict "own" $own "given" $trainer.env) | nindent 2 }}
ports:
  - {name: training, containerPort: 8000}
{{ include "inferencepool.httpProbes" (dict "port" "training" "scheme" (include "inferencepool.trainingScheme" .)) }}
{{ include "inferencepool.endsLater" . }}
resources:
  {{- toYaml $trainer.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if or (not .Values.modelStore.s3.url) (include "inferencepool.isPersistent" .) }}
  - {name: model-store, mountPath: {{ .Values.modelStore.mountPath }}}
  {{- end }}
  {{- if include "inferencepool.trainerTls" . }}
  - {name: tls, mountPath: /certs, readOnly: true}
  {{- end }}
  {{- if include "inferencepool.isSigned" . }}
  - {{ include "inferencepool.signingMount" . }}
  - {{ include "inferencepool.verifyMount" . }}
  {{- end }}
  {{- if include "inferencepool.trainerAsksToken" . }}
  - {{ include "inferencepool.tokenMount" . }}
  {{- end }}
{{- end -}}

{{/* Arguments: root, number (1 is the first). */}}
{{- define "inferencepool.predictionContainer" -}}
{{- $predictors := (include "inferencepool.sidecars" .root | fromYaml).predictionServers -}}
{{- $port := add 8000 .number -}}
{{- $grpcPort := $predictors.grpc | ternary (add $port 100) 0 -}}
{{- $own := list -}}
{{- range $name, $value := dict "PREDICT_PORT" $port "PREDICT_GRPC_PORT" $grpcPort "TRAINING_SERVER_URL" (include "inferencepool.trainingUrl" .root) -}}
{{- $own = append $own (dict "name" $name "value" (toString $value)) -}}
{{- end -}}
{{- if include "inferencepool.isSigned" .root }}{{ $own = append $own (dict "name" "MODEL_VERIFY_KEY_FILE" "value" (include "inferencepool.verifyKeyFile" .root)) }}{{ end -}}
{{- if include "inferencepool.predictorsAskToken" .root }}{{ $own = append $own (dict "name" "PREDICT_TOKEN_FILE" "value" (include "inferencepool.tokenFile" .root)) }}{{ end -}}
{{- $own = concat (include "inferencepool.s3Env" .root | fromYamlArray) $own -}}
name: prediction-server-{{ .number }}
image: {{ include "inferencepool.image" $predictors.image | quote }}
imagePullPolicy: {{ $predictors.image.pullPolicy }}
{{- with $predictors.args }}
args:
  {{- toYaml . | nindent 2 }}
{{- end }}
envFrom:
  - configMapRef: {name: {{ $predictors.configMapName }}}
env:
  {{- include "inferencepool.mergedEnv" (dict "own" $own "given" $predictors.env) | nindent 2 }}
ports:
  - {name: predict-{{ .number }}, containerPort: {{ $port }}}
  {{- if $predictors.grpc }}
  - {name: predict-grpc-{{ .number }}, containerPort: {{ $grpcPort }}}
  {{- end }}
{{ include "inferencepool.httpProbes" (dict "port" (printf "predict-%d" .number) "scheme" "http") }}
{{ include "inferencepool.endsLater" .root }}
resources:
  {{- toYaml $predictors.resources | nindent 2 }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if not .root.Values.modelStore.s3.url }}
  - {name: model-store, mountPath: {{ .root.Values.modelStore.mountPath }}, readOnly: true}
  {{- end }}
  {{- if include "inferencepool.isSigned" .root }}
  - {{ include "inferencepool.verifyMount" .root }}
  {{- end }}
  {{- if include "inferencepool.predictorsAskToken" .root }}
  - {{ include "inferencepool.tokenMount" .root }}
  {{- end }}
{{- end -}}
