{{/* Keys that sign generations of models: the trainer has both, whoever loads models has the public ones. */}}

{{- define "inferencepool.isSigned" -}}
{{- if .Values.modelStore.signing.existingSecret }}true{{ end -}}
{{- end -}}

{{/* Whether the picker's pod loads models, or has the trainer. */}}
{{- define "inferencepool.pickerVerifies" -}}
{{- $loads := or (include "inferencepool.trainerBeside" .) (include "inferencepool.hasPredictors" .) (include "inferencepool.isEmbedded" .) -}}
{{- if and (include "inferencepool.isSigned" .) $loads }}true{{ end -}}
{{- end -}}

{{- define "inferencepool.verifyKeyFile" -}}
/model-verify/verify.pem
{{- end -}}

{{- define "inferencepool.signingKeyFile" -}}
/model-signing/signing.key
{{- end -}}

{{- define "inferencepool.verifyVolume" -}}
name: model-verify
secret:
  secretName: {{ .Values.modelStore.signing.existingSecret }}
  items:
    - {key: verify.pem, path: verify.pem}
{{- end -}}

{{- define "inferencepool.signingVolume" -}}
name: model-signing
secret:
  secretName: {{ .Values.modelStore.signing.existingSecret }}
  items:
    - {key: signing.key, path: signing.key}
{{- end -}}

{{- define "inferencepool.verifyMount" -}}
{name: model-verify, mountPath: {{ include "inferencepool.verifyKeyFile" . | dir }}, readOnly: true}
{{- end -}}

{{- define "inferencepool.signingMount" -}}
{name: model-signing, mountPath: {{ include "inferencepool.signingKeyFile" . | dir }}, readOnly: true}
{{- end -}}
