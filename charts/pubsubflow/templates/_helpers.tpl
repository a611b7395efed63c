{{- define "psf.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "psf.labels" -}}
app.kubernetes.io/name: pubsubflow
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "psf.selector" -}}
app.kubernetes.io/name: pubsubflow
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "psf.secret" -}}
{{- .Values.secret.existing | default (printf "%s-secrets" (include "psf.name" .)) -}}
{{- end -}}

{{- define "psf.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "psf.natsUrl" -}}
{{- $name := include "psf.name" . -}}
{{- if .Values.nats.enabled -}}
{{- $urls := list -}}
{{- range $i := until 3 -}}
{{- $urls = append $urls (printf "nats://%s-nats-%d.%s-nats:4222" $name $i $name) -}}
{{- end -}}
{{- join "," $urls -}}
{{- else -}}
{{- .Values.nats.url -}}
{{- end -}}
{{- end -}}

{{/* NATS as pods of other namespaces reach it. */}}
{{- define "psf.natsUrlAbroad" -}}
{{- $name := include "psf.name" . -}}
{{- if .Values.nats.enabled -}}
{{- $urls := list -}}
{{- range $i := until 3 -}}
{{- $urls = append $urls (printf "nats://%s-nats-%d.%s-nats.%s:4222" $name $i $name $.Release.Namespace) -}}
{{- end -}}
{{- join "," $urls -}}
{{- else -}}
{{- .Values.nats.url -}}
{{- end -}}
{{- end -}}

{{- define "psf.postgresUrl" -}}
{{- if .Values.postgres.enabled -}}
{{- printf "postgres://pubsubflow@%s-postgres:5432/pubsubflow" (include "psf.name" .) -}}
{{- else -}}
{{- .Values.postgres.url -}}
{{- end -}}
{{- end -}}

{{/* Environment of workers: nothing of Postgres. */}}
{{- define "psf.natsEnv" -}}
- name: PUBSUBFLOW__NATS__URL
  value: {{ include "psf.natsUrl" . | quote }}
- name: PUBSUBFLOW__NATS__TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "psf.secret" . }}, key: nats-token}}
{{- range $name, $value := .Values.config }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "psf.postgresEnv" -}}
- name: PUBSUBFLOW__POSTGRES__URL
  value: {{ include "psf.postgresUrl" . | quote }}
- name: PUBSUBFLOW__POSTGRES__PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "psf.secret" . }}, key: postgres-password}}
{{- end -}}

{{- define "psf.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "psf.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What every pod has: spread over nodes; no token of the API server but for those that make pods. */}}
{{- define "psf.pod" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "psf.name" $root }}{{ if .makesPods }}-pods{{ end }}
automountServiceAccountToken: {{ .makesPods | default false }}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- if $root.Values.topologySpread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "psf.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
{{- end }}
{{- end -}}
