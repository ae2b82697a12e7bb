{{- define "hookline.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "hookline.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "hookline.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "hookline.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* Labels that never change, by which pods are selected. Takes a dict of root and component. */}}
{{- define "hookline.selector" -}}
app.kubernetes.io/name: hookline
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "hookline.labels" -}}
{{ include "hookline.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "hookline.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "hookline.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The keys of the Secret that a component may see: required, then optional. */}}
{{- define "hookline.secrets" -}}
{{- $common := list "HOOKLINE_KAFKA_SASL_PASSWORD" -}}
{{- $secrets := dict
  "ingest"    (dict "required" (list "HOOKLINE_ENCRYPTION_KEYS") "optional" $common)
  "router"    (dict "required" (list) "optional" $common)
  "delivery"  (dict "required" (list "HOOKLINE_ENCRYPTION_KEYS") "optional" $common)
  "scheduler" (dict "required" (list) "optional" (append $common "HOOKLINE_REDIS_URL"))
  "recorder"  (dict "required" (list "HOOKLINE_DATABASE_URL") "optional" $common)
  "api"       (dict "required" (list "HOOKLINE_DATABASE_URL" "HOOKLINE_ENCRYPTION_KEYS") "optional" (concat $common (list "HOOKLINE_BOOTSTRAP_API_KEY" "HOOKLINE_REDIS_URL")))
  "migrate"   (dict "required" (list "HOOKLINE_DATABASE_URL") "optional" $common) -}}
{{- $mine := get $secrets .component -}}
{{- range $mine.required }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $.root.Values.secretName }}, key: {{ . }}}
{{- end }}
{{- range $mine.optional }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $.root.Values.secretName }}, key: {{ . }}, optional: true}
{{- end }}
{{- end }}
