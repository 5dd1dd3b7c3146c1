{{/* Whether clients reach the trainer over TLS. A trainer in its own pod needs it, because rows cross the network. */}}
{{- define "inferencepool.trainerTls" -}}
{{- if and (include "inferencepool.trainerApart" .) (include "inferencepool.sidecars" . | fromYaml).trainingServer.tls.enabled }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.trainingScheme" -}}
{{- if include "inferencepool.trainerTls" . }}https{{ else }}http{{ end -}}
{{- end -}}

{{/* The name of the Secret with tls.crt, tls.key and ca.crt. */}}
{{- define "inferencepool.trainingSecret" -}}
{{- (include "inferencepool.sidecars" . | fromYaml).trainingServer.tls.existingSecret | default (printf "%s-tls" (include "inferencepool.trainingName" .)) -}}
{{- end -}}

{{/* The volume of pods that connect to the trainer: the CA, without the key. */}}
{{- define "inferencepool.trainingCaVolume" -}}
name: training-ca
secret:
  secretName: {{ include "inferencepool.trainingSecret" . }}
  items:
    - {key: ca.crt, path: ca.crt}
{{- end -}}

{{- define "inferencepool.trainingCaFile" -}}
/training-ca/ca.crt
{{- end -}}

{{/* How Prometheus reads the trainer's metrics. Prometheus connects by address, so `serverName` gives the name. */}}
{{- define "inferencepool.trainingAccess" -}}
{{- if include "inferencepool.trainerTls" . }}
scheme: https
tlsConfig:
  ca:
    secret:
      name: {{ include "inferencepool.trainingSecret" . }}
      key: ca.crt
  serverName: {{ include "inferencepool.trainingName" . }}
{{- end }}
{{- end -}}

{{/* The data of a Secret as YAML: a new certificate for the Service's names, by a CA whose key nobody keeps. */}}
{{- define "inferencepool.trainingCertificate" -}}
{{- $name := include "inferencepool.trainingName" . -}}
{{- $names := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.%s" $name .Release.Namespace .Values.clusterDomain) -}}
{{- $authority := genCAWithKey (printf "%s-ca" $name) 3650 (genPrivateKey "ecdsa") -}}
{{- $pair := genSignedCertWithKey $name nil $names 3650 $authority (genPrivateKey "ecdsa") -}}
{{- dict "ca.crt" ($authority.Cert | b64enc) "tls.crt" ($pair.Cert | b64enc) "tls.key" ($pair.Key | b64enc) | toYaml -}}
{{- end -}}

{{- define "inferencepool.checkTrainingTls" -}}
{{- if include "inferencepool.trainerTls" . -}}
{{- $secret := (include "inferencepool.sidecars" . | fromYaml).trainingServer.tls.existingSecret -}}
{{- if $secret -}}
{{- $found := lookup "v1" "Secret" .Release.Namespace $secret -}}
{{- range $key := list "tls.crt" "tls.key" "ca.crt" -}}
{{- if and $found (not (get ($found.data | default dict) $key)) -}}
{{- fail (printf "sidecars.trainingServer.tls.existingSecret: the Secret %s has no %s; it needs tls.crt, tls.key and ca.crt" $secret $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $given := dict -}}
{{- range include "inferencepool.env" .Values.inferenceExtension.env | fromYamlArray }}{{ $_ := set $given .name (.value | default "") }}{{ end -}}
{{- $flags := include "inferencepool.flags" . | fromYaml -}}
{{- $plain := printf "^http://%s[:./]" (include "inferencepool.trainingName" .) -}}
{{- if regexMatch $plain (get $flags "training-server-url" | default (get $given "TRAINING_SERVER_URL")) -}}
{{- fail "TRAINING_SERVER_URL is http://, but the trainer serves TLS: leave the variable out, and the chart sets the trainer's URL, or set sidecars.trainingServer.tls.enabled to false" -}}
{{- end -}}
{{- $urls := get $flags "prediction-server-url" | default (get $given "PREDICTION_SERVER_URL") -}}
{{- if and (not $secret) (contains "https://" $urls) (not (or (hasKey $flags "latency-ca-file") (hasKey $given "LATENCY_CA_FILE"))) -}}
{{- fail "PREDICTION_SERVER_URL is https://, but the picker trusts only the trainer's own CA: set LATENCY_CA_FILE (inferenceExtension.env) to a file of all CAs, mounted by inferenceExtension.extraVolumes and extraVolumeMounts, with sidecars.trainingServer.tls.existingSecret for the trainer" -}}
{{- end -}}
{{- end -}}
{{- end -}}
