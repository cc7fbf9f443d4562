{{- define "boardlet.name" -}}
{{ printf "%s-bridge" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "boardlet.broker" -}}
{{ printf "%s-broker" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "boardlet.secret" -}}
{{ .Values.secrets.existing | default (printf "%s-site" .Release.Name) }}
{{- end }}

{{- define "boardlet.selector" -}}
app.kubernetes.io/name: boardlet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "boardlet.labels" -}}
{{ include "boardlet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "boardlet.image" -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end }}

{{- define "boardlet.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* A number of a values file is a float, which would be written as 2.0261125e+07. */ -}}
{{- define "boardlet.setting" -}}
{{ if kindIs "float64" . }}{{ if eq . (floor .) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ . }}{{ end }}
{{- end }}
