{{- define "evaserve.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "evaserve.selector" -}}
app.kubernetes.io/name: evaserve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "evaserve.labels" -}}
{{ include "evaserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "evaserve.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{- define "evaserve.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "evaserve.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* A number of values.yaml is a float64, which prints large ones as 1e+06. */}}
{{- define "evaserve.plain" -}}
{{- if kindIs "float64" . }}{{ if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- define "evaserve.modelVolume" -}}
{{- if .Values.persistence.enabled }}
persistentVolumeClaim:
  claimName: {{ include "evaserve.fullname" . }}-models
  readOnly: true
{{- else if .Values.modelVolume }}
{{ toYaml .Values.modelVolume }}
{{- end }}
{{- end }}

{{- define "evaserve.readiness" -}}
{{- if eq .Values.probes.protocol "http" -}}
httpGet: {path: /readyz, port: metrics}
{{- else -}}
grpc: {port: 8001}
{{- end }}
{{- end }}

{{- /* How proxies are to speak to the gRPC port: with TLS they cannot be told. */}}
{{- define "evaserve.appProtocol" -}}
{{- if not (hasKey .Values.options "tls-cert") }}, appProtocol: kubernetes.io/h2c{{ end }}
{{- end }}
