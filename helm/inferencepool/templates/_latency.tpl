{{/* Each of these gives "true" or nothing. */}}

{{- define "inferencepool.hasTrainer" -}}
{{- if (include "inferencepool.sidecars" . | fromYaml).trainingServer.enabled }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.hasPredictors" -}}
{{- if (include "inferencepool.sidecars" . | fromYaml).predictionServers.enabled }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.severalPickers" -}}
{{- if or (gt (int .Values.inferenceExtension.replicas) 1) .Values.inferenceExtension.autoscaling.enabled }}true{{ end -}}
{{- end -}}

{{/* Several pickers share one trainer, which then has a Deployment of its own. */}}
{{- define "inferencepool.trainerApart" -}}
{{- $trainer := (include "inferencepool.sidecars" . | fromYaml).trainingServer -}}
{{- if and $trainer.enabled (or $trainer.ownDeployment (include "inferencepool.severalPickers" .)) }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.trainerBeside" -}}
{{- if and (include "inferencepool.hasTrainer" .) (not (include "inferencepool.trainerApart" .)) }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.isEmbedded" -}}
{{- $flags := include "inferencepool.flags" . | fromYaml -}}
{{- if eq "embedded" (get $flags "latency-client" | default .Values.inferenceExtension.latencyClient) }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.isPersistent" -}}
{{- if (include "inferencepool.sidecars" . | fromYaml).trainingServer.persistence.enabled }}true{{ end -}}
{{- end -}}

{{/* Whether any number of pods on any number of nodes can use the model store. */}}
{{- define "inferencepool.isSharedStore" -}}
{{- $persistence := (include "inferencepool.sidecars" . | fromYaml).trainingServer.persistence -}}
{{- if or .Values.modelStore.s3.url (and $persistence.enabled (has "ReadWriteMany" $persistence.accessModes)) }}true{{ end -}}
{{- end -}}

{{/* Whether the picker's pod has a volume for models. It has none if models lie in a bucket, or nobody needs them. */}}
{{- define "inferencepool.pickerHasVolume" -}}
{{- $here := or (include "inferencepool.trainerBeside" .) (include "inferencepool.hasPredictors" .) (include "inferencepool.isEmbedded" .) -}}
{{- if .Values.modelStore.s3.url -}}
{{- if and (include "inferencepool.trainerBeside" .) (include "inferencepool.isPersistent" .) }}true{{ end -}}
{{- else if $here -}}
true
{{- end -}}
{{- end -}}

{{/* Whether rows and predictions are wanted. The user's flags may say something else. */}}
{{- define "inferencepool.predicts" -}}
{{- if or (include "inferencepool.hasPredictors" .) (include "inferencepool.isEmbedded" .) }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.store" -}}
{{- .Values.modelStore.s3.url | default .Values.modelStore.mountPath -}}
{{- end -}}

{{- define "inferencepool.trainingUrl" -}}
{{- if include "inferencepool.trainerApart" . -}}
{{ include "inferencepool.trainingScheme" . }}://{{ include "inferencepool.trainingName" . }}:8000
{{- else -}}
http://localhost:8000
{{- end -}}
{{- end -}}

{{- define "inferencepool.predictionUrls" -}}
{{- $urls := list -}}
{{- range $index := until (int (include "inferencepool.sidecars" . | fromYaml).predictionServers.replicas) -}}
{{- $urls = append $urls (printf "http://localhost:%d" (add 8001 $index)) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end -}}

{{/* The bucket's place and credentials for boto3, as a YAML list of variables. */}}
{{- define "inferencepool.s3Env" -}}
{{- $found := list -}}
{{- with .Values.modelStore.s3 -}}
{{- if .url -}}
{{- with .region }}{{ $found = append $found (dict "name" "AWS_REGION" "value" .) }}{{ $found = append $found (dict "name" "AWS_DEFAULT_REGION" "value" .) }}{{ end -}}
{{- with .endpoint }}{{ $found = append $found (dict "name" "AWS_ENDPOINT_URL_S3" "value" .) }}{{ end -}}
{{- if .existingSecret -}}
{{- $secret := .existingSecret -}}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" -}}
{{- $found = append $found (dict "name" . "valueFrom" (dict "secretKeyRef" (dict "name" $secret "key" .))) -}}
{{- end -}}
{{- $token := dict "name" $secret "key" "AWS_SESSION_TOKEN" "optional" true -}}
{{- $found = append $found (dict "name" "AWS_SESSION_TOKEN" "valueFrom" (dict "secretKeyRef" $token)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | toYaml -}}
{{- end -}}

{{/* The volume `model-store`. The first argument of a pod's volumes. */}}
{{- define "inferencepool.storeVolume" -}}
name: model-store
{{- if include "inferencepool.isPersistent" . }}
persistentVolumeClaim:
  claimName: {{ include "inferencepool.claimName" . }}
{{- else }}
emptyDir:
  sizeLimit: {{ .Values.modelStore.sizeLimit }}
{{- end }}
{{- end -}}

{{/* The variables of the ConfigMaps by `config` keys, as YAML. The schema refuses a key that isn't listed. */}}
{{- define "inferencepool.configNames" -}}
trainer:
  retrainingIntervalSec: LATENCY_RETRAINING_INTERVAL_SEC
  minSamplesForRetrain: LATENCY_MIN_SAMPLES_FOR_RETRAIN
  minSamplesForRetrainFresh: LATENCY_MIN_SAMPLES_FOR_RETRAIN_FRESH
  modelType: LATENCY_MODEL_TYPE
  objectiveType: LATENCY_OBJECTIVE_TYPE
  quantileAlpha: LATENCY_QUANTILE_ALPHA
  extraQuantiles: LATENCY_EXTRA_QUANTILES
  maxTrainingDataSizePerBucket: LATENCY_MAX_TRAINING_DATA_SIZE_PER_BUCKET
  testTrainRatio: LATENCY_TEST_TRAIN_RATIO
  maxTestDataSize: LATENCY_MAX_TEST_DATA_SIZE
  sampleWeightingForPrefixCache: LATENCY_SAMPLE_WEIGHTING_FOR_PREFIX_CACHE
  trees: LATENCY_TREES
  depth: LATENCY_DEPTH
  learningRate: LATENCY_LEARNING_RATE
  threads: LATENCY_THREADS
  gateTolerance: LATENCY_GATE_TOLERANCE
  driftTolerance: LATENCY_DRIFT_TOLERANCE
  canaryRows: LATENCY_CANARY_ROWS
  allowedOutliers: LATENCY_ALLOWED_OUTLIERS
  maxSourceShare: LATENCY_MAX_SOURCE_SHARE
  keepGenerations: MODEL_STORE_KEEP
  maxBodyBytes: TRAINER_MAX_BODY_BYTES
  logLevel: LOG_LEVEL
predictor:
  modelSyncIntervalSec: MODEL_SYNC_INTERVAL_SEC
  modelType: LATENCY_MODEL_TYPE
  modelControlMode: MODEL_CONTROL_MODE
  versionPolicy: MODEL_VERSION_POLICY
  workers: PREDICT_WORKERS
  maxModelBytes: PREDICT_MAX_MODEL_BYTES
  tryModels: PREDICT_TRY_MODELS
  maxBodyBytes: PREDICT_MAX_BODY_BYTES
  maxRows: PREDICT_MAX_ROWS
{{- end -}}

{{/* The data of a ConfigMap from `config`, with the names of `names`. */}}
{{- define "inferencepool.configData" -}}
{{- $names := .names -}}
{{- range $key, $value := .config }}
{{ get $names $key }}: {{ include "inferencepool.text" $value | quote }}
{{- end }}
{{- end -}}
