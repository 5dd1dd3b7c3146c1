{{/* The strategy by which new pods of the picker replace old ones. */}}
{{- define "inferencepool.strategy" -}}
{{- if and (include "inferencepool.pickerHasVolume" .) (include "inferencepool.isPersistent" .) (not (include "inferencepool.isSharedStore" .)) -}}
# The claim belongs to one node: the new pod can't mount it until the old pod has gone.
type: Recreate
rollingUpdate: null
{{- else if .Values.inferenceExtension.enableLeaderElection -}}
# The pods of a rollout wait for the lease. They are not ready until the old leader goes.
type: RollingUpdate
rollingUpdate:
  maxSurge: 100%
  maxUnavailable: 100%
{{- else -}}
type: RollingUpdate
rollingUpdate:
  maxSurge: 25%
  maxUnavailable: 0
{{- end -}}
{{- end -}}
