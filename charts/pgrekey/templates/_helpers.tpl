{{- define "pgrekey.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "pgrekey.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pgrekey.labels" -}}
{{ include "pgrekey.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "pgrekey.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "pgrekey.fullname" .) -}}
{{- end }}

{{- /* The Secret that is mounted; nothing when pgrekey has a CA of its own. */ -}}
{{- define "pgrekey.certificateSecret" -}}
{{- if eq .Values.certificate.source "certManager" -}}
{{- include "pgrekey.fullname" . }}-serving
{{- else if eq .Values.certificate.source "secret" -}}
{{- required "certificate.source is secret: set certificate.secretName" .Values.certificate.secretName -}}
{{- end -}}
{{- end }}

{{- define "pgrekey.controllers" -}}
{{- $controllers := list -}}
{{- if .Values.features.provisioner }}{{ $controllers = append $controllers "provisioner" }}{{ end -}}
{{- if .Values.features.opsManager }}{{ $controllers = append $controllers "ops-manager" }}{{ end -}}
{{- $controllers | join "," | default "none" -}}
{{- end }}

{{- define "pgrekey.roleRef" -}}
apiGroup: rbac.authorization.k8s.io
kind: {{ .kind }}
name: {{ .name }}
{{- end }}

{{- define "pgrekey.subjects" -}}
- kind: ServiceAccount
  name: {{ include "pgrekey.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
