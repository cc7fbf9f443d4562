{{- define "boardlet.name" -}}
{{ printf "%s-bridge" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "boardlet.broker" -}}
{{ printf "%s-broker" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* The Service for the bridge alone; that for boards may be seen by the world. */ -}}
{{- define "boardlet.brokerInside" -}}
{{ printf "%s-broker-inside" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* "true" where the bundled broker has a pod of its own. */ -}}
{{- define "boardlet.apart" -}}
{{- if and .Values.broker.ownPod (not .Values.broker.external.host) }}true{{ end }}
{{- end }}

{{- define "boardlet.secret" -}}
{{ .Values.secrets.existing | default (printf "%s-site" .Release.Name) }}
{{- end }}

{{- define "boardlet.selector" -}}
app.kubernetes.io/name: boardlet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "boardlet.brokerSelector" -}}
app.kubernetes.io/name: boardlet-broker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The selector of the pod that the broker is in. */ -}}
{{- define "boardlet.brokerPod" -}}
{{ include (include "boardlet.apart" . | eq "true" | ternary "boardlet.brokerSelector" "boardlet.selector") . }}
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

{{- define "boardlet.podSecurity" -}}
runAsNonRoot: true
# Also for the pod's own sandbox: containerd starts none with a group and no user.
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- if include "boardlet.apart" . | eq "true" }}
# Where SELinux rules, pods share a volume only under one label; elsewhere it says nothing.
seLinuxOptions: {level: "s0:c655,c883"}
{{- end }}
{{- end }}

{{- /* A term of podAffinity: on the node of the pods with these labels. */ -}}
{{- define "boardlet.beside" -}}
topologyKey: kubernetes.io/hostname
labelSelector:
  matchLabels:
    {{- . | nindent 4 }}
{{- end }}

{{- /* Where pods may run, beside their affinities. */ -}}
{{- define "boardlet.placed" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A number of a values file is a float, which would be written as 2.0261125e+07. */ -}}
{{- define "boardlet.setting" -}}
{{ if kindIs "float64" . }}{{ if eq . (floor .) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ . }}{{ end }}
{{- end }}
