{{/* A bearer token that the picker sends to the trainer and the prediction servers. Those with `asks` ask for it. */}}

{{/* Whether the trainer asks for the token. */}}
{{- define "inferencepool.trainerAsksToken" -}}
{{- $asks := (include "inferencepool.sidecars" . | fromYaml).token.askedBy -}}
{{- if or (and (eq "all" $asks) (include "inferencepool.hasTrainer" .)) (and (eq "ownDeployment" $asks) (include "inferencepool.trainerApart" .)) }}true{{ end -}}
{{- end -}}

{{/* Whether the prediction servers ask for the token. They are always in the picker's pod. */}}
{{- define "inferencepool.predictorsAskToken" -}}
{{- if and (eq "all" (include "inferencepool.sidecars" . | fromYaml).token.askedBy) (include "inferencepool.hasPredictors" .) }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.hasToken" -}}
{{- if or (include "inferencepool.trainerAsksToken" .) (include "inferencepool.predictorsAskToken" .) }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.tokenSecret" -}}
{{- (include "inferencepool.sidecars" . | fromYaml).token.existingSecret | default (printf "%s-latency-token" (include "inferencepool.base" .)) -}}
{{- end -}}

{{- define "inferencepool.tokenFile" -}}
/latency-token/token
{{- end -}}

{{- define "inferencepool.tokenVolume" -}}
name: latency-token
secret:
  secretName: {{ include "inferencepool.tokenSecret" . }}
  items:
    - {key: token, path: token}
{{- end -}}

{{- define "inferencepool.tokenMount" -}}
{name: latency-token, mountPath: {{ include "inferencepool.tokenFile" . | dir }}, readOnly: true}
{{- end -}}

{{/* A shell command that asks a server from a container that has the token, for people. Arguments: root, asks, words. */}}
{{- define "inferencepool.askWithToken" -}}
{{- if .asks -}}
sh -c 'curl -s -H "authorization: Bearer $(head -n 1 {{ include "inferencepool.tokenFile" .root }})" {{ .words }}'
{{- else -}}
curl -s {{ .words }}
{{- end -}}
{{- end -}}

{{- define "inferencepool.checkToken" -}}
{{- $secret := (include "inferencepool.sidecars" . | fromYaml).token.existingSecret -}}
{{- if and $secret (include "inferencepool.hasToken" .) -}}
{{- $found := lookup "v1" "Secret" .Release.Namespace $secret -}}
{{- if and $found (not (get ($found.data | default dict) "token")) -}}
{{- fail (printf "sidecars.token.existingSecret: the Secret %s has no key token" $secret) -}}
{{- end -}}
{{- end -}}
{{- end -}}
