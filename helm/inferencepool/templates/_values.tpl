{{/* The sidecars' values as YAML: `sidecars` wins over `inferenceExtension.sidecars`. */}}
{{- define "inferencepool.sidecars" -}}
{{- mustMergeOverwrite (deepCopy .Values.inferenceExtension.sidecars) (deepCopy (.Values.sidecars | default dict)) | toYaml -}}
{{- end -}}

{{/* A number, boolean or text as text. Helm holds every number as a float, which prints 10000000 as 1e+07. */}}
{{- define "inferencepool.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq (float64 (int64 .)) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* Variables as a YAML list of {name, value | valueFrom}. They are given as such a list, or as a map by name. */}}
{{- define "inferencepool.env" -}}
{{- $found := list -}}
{{- if kindIs "map" . -}}
{{- range $name, $value := . -}}
{{- if kindIs "map" $value -}}
{{- $found = append $found (merge (dict "name" $name) $value) -}}
{{- else -}}
{{- $found = append $found (dict "name" $name "value" (include "inferencepool.text" $value)) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- range . -}}
{{- if hasKey . "value" -}}
{{- $found = append $found (merge (dict "value" (include "inferencepool.text" .value)) .) -}}
{{- else -}}
{{- $found = append $found . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{/* The chart's own variables (`own`, a list) and the user's (`given`, list or map) as YAML. The user's win. */}}
{{- define "inferencepool.mergedEnv" -}}
{{- $given := include "inferencepool.env" .given | fromYamlArray -}}
{{- $names := list -}}
{{- range $given }}{{ $names = append $names .name }}{{ end -}}
{{- $found := list -}}
{{- range .own -}}
{{- if not (has .name $names) }}{{ $found = append $found . }}{{ end -}}
{{- end -}}
{{- concat $found $given | toYaml -}}
{{- end -}}

{{/* The picker's flags as given, by name: later ones win. JSON, because toYaml cuts off a line break at the end. */}}
{{- define "inferencepool.flags" -}}
{{- $found := dict -}}
{{- range .Values.inferenceExtension.flags -}}
{{- $_ := set $found (.name | trimPrefix "--" | trimPrefix "-") (hasKey . "value" | ternary (include "inferencepool.text" .value) "true") -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{/* Seconds of a Go duration such as 1m30s. */}}
{{- define "inferencepool.seconds" -}}
{{- $unit := dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9.]+(h|ms|m|s)" . -1 -}}
{{- $total = addf $total (mulf (regexFind "[0-9.]+" . | float64) (get $unit (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- $total -}}
{{- end -}}
