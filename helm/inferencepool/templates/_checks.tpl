{{/* Refuse values that don't go together, which a schema can't express. Each failure names the values and a remedy. */}}
{{- define "inferencepool.checks" -}}
{{- $values := .Values.inferenceExtension -}}
{{- $sidecars := include "inferencepool.sidecars" . | fromYaml -}}
{{- $flags := include "inferencepool.flags" . | fromYaml -}}
{{- if not .Values.inferencePool.modelServers.matchLabels -}}
{{- fail "inferencePool.modelServers.matchLabels is required: the labels of the model servers' pods, such as --set inferencePool.modelServers.matchLabels.app=my-model-server" -}}
{{- end -}}
{{- range $flag, $value := dict "grpc-port" "extProcPort" "grpc-health-port" "grpcHealthPort" "metrics-port" "metricsPort" -}}
{{- if hasKey $flags $flag -}}
{{- fail (printf "inferenceExtension.flags: %s is inferenceExtension.%s. Set that value instead, because the Service and the probes use it" $flag $value) -}}
{{- end -}}
{{- end -}}
{{- include "inferencepool.checkPorts" . -}}
{{- include "inferencepool.checkPlugins" . -}}
{{- include "inferencepool.checkStore" . -}}
{{- include "inferencepool.checkTrainingTls" . -}}
{{- include "inferencepool.checkToken" . -}}
{{- include "inferencepool.checkGrace" . -}}
{{- if and $values.autoscaling.enabled $values.enableLeaderElection -}}
{{- fail "inferenceExtension.autoscaling.enabled and inferenceExtension.enableLeaderElection exclude each other: only the leader serves, so more replicas carry no more load. Disable one of the two" -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (lt (int $values.autoscaling.maxReplicas) (int $values.autoscaling.minReplicas)) -}}
{{- fail "inferenceExtension.autoscaling: maxReplicas is smaller than minReplicas" -}}
{{- end -}}
{{- if and .Values.standalone.enabled $values.enableLeaderElection -}}
{{- fail "standalone.enabled and inferenceExtension.enableLeaderElection exclude each other: each pod's Envoy asks the picker in its own pod, so every picker must serve. Disable one of the two" -}}
{{- end -}}
{{- end -}}

{{/* Containers of a pod share its ports. */}}
{{- define "inferencepool.checkPorts" -}}
{{- $values := .Values.inferenceExtension -}}
{{- $predictors := (include "inferencepool.sidecars" . | fromYaml).predictionServers -}}
{{- $wanted := list (list $values.extProcPort "inferenceExtension.extProcPort") (list $values.grpcHealthPort "inferenceExtension.grpcHealthPort") (list $values.metricsPort "inferenceExtension.metricsPort") -}}
{{- if include "inferencepool.trainerBeside" . }}{{ $wanted = append $wanted (list 8000 "the training server") }}{{ end -}}
{{- if $predictors.enabled -}}
{{- range $index := until (int $predictors.replicas) -}}
{{- $wanted = append $wanted (list (add 8001 $index) (printf "prediction server %d" (add1 $index))) -}}
{{- if $predictors.grpc }}{{ $wanted = append $wanted (list (add 8101 $index) (printf "gRPC of prediction server %d" (add1 $index))) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if .Values.standalone.enabled -}}
{{- $wanted = concat $wanted (list (list .Values.standalone.proxy.port "standalone.proxy.port") (list .Values.standalone.proxy.statsPort "standalone.proxy.statsPort") (list 9901 "Envoy's own administration")) -}}
{{- end -}}
{{- range $values.extraContainerPorts }}{{ $wanted = append $wanted (list .containerPort "inferenceExtension.extraContainerPorts") }}{{ end -}}
{{- $taken := dict -}}
{{- range $wanted -}}
{{- $port := first . | int | toString -}}
{{- if hasKey $taken $port -}}
{{- fail (printf "port %s of the pod is wanted twice, by %s and by %s: choose another" $port (get $taken $port) (last .)) -}}
{{- end -}}
{{- $_ := set $taken $port (last .) -}}
{{- end -}}
{{- end -}}

{{- define "inferencepool.checkPlugins" -}}
{{- $file := include "inferencepool.pluginsFile" . -}}
{{- $own := .Values.inferenceExtension.pluginsCustomConfig | default dict -}}
{{- if not (or (eq $file "default-plugins.yaml") (hasKey $own $file)) -}}
{{- fail (printf "inferenceExtension.pluginsConfigFile: there is no %s among the files of inferenceExtension.pluginsCustomConfig (%s). Name one of them, or the built-in default-plugins.yaml" $file (keys $own | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}

{{- define "inferencepool.checkStore" -}}
{{- if include "inferencepool.trainerApart" . -}}
{{- range include "inferencepool.env" .Values.inferenceExtension.env | fromYamlArray -}}
{{- if and (eq .name "TRAINING_SERVER_URL") (regexMatch "//(localhost|127\\.)" (.value | default "")) -}}
{{- fail "inferenceExtension.env: TRAINING_SERVER_URL names the picker's own pod, but the trainer has its own pod. Remove the variable, and the chart sets it to the trainer's URL" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $persistence := (include "inferencepool.sidecars" . | fromYaml).trainingServer.persistence -}}
{{- if and (include "inferencepool.trainerApart" .) (not (include "inferencepool.isSharedStore" .)) -}}
{{- fail "several pickers, or sidecars.trainingServer.ownDeployment, need a model store that all pods share: set modelStore.s3.url, or sidecars.trainingServer.persistence.enabled with accessModes [ReadWriteMany]" -}}
{{- end -}}
{{- if and (include "inferencepool.severalPickers" .) (include "inferencepool.pickerHasVolume" .) (include "inferencepool.isPersistent" .) (not (has "ReadWriteMany" $persistence.accessModes)) -}}
{{- fail "several pickers can't share a claim of one node: set sidecars.trainingServer.persistence.accessModes to [ReadWriteMany], or set modelStore.s3.url" -}}
{{- end -}}
{{- end -}}

{{- define "inferencepool.checkGrace" -}}
{{- $flags := include "inferencepool.flags" . | fromYaml -}}
{{- $delay := include "inferencepool.seconds" (get $flags "shutdown-delay" | default "2s") | float64 -}}
{{- $drain := include "inferencepool.seconds" (get $flags "drain-timeout" | default "30s") | float64 -}}
{{- $asleep := .Values.standalone.enabled | ternary .Values.standalone.proxy.drainSeconds 0 | float64 -}}
{{- $needed := addf $delay $drain $asleep -}}
{{- if le (float64 .Values.inferenceExtension.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "inferenceExtension.terminationGracePeriodSeconds has to be longer than what the picker takes to end: %v s (the sum of shutdown-delay, drain-timeout and, with standalone, proxy.drainSeconds)" $needed) -}}
{{- end -}}
{{- end -}}
