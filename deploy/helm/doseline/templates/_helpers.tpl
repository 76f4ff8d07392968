{{/* All names begin with the release. */}}
{{- define "doseline.name" -}}
{{- printf "%s-%s" .Release.Name "doseline" | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "doseline.labels" -}}
app.kubernetes.io/name: doseline
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Labels that select the pods of one role. Argument: dict root, role. */}}
{{- define "doseline.selector" -}}
app.kubernetes.io/name: doseline
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "doseline.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The pod of a role: argument dict root, role, values, port (0 = none) and, for a job, restartPolicy. */}}
{{- define "doseline.pod" -}}
{{- $root := .root -}}
{{- $user := printf "doseline_%s" .role -}}
metadata:
  labels:
    {{- include "doseline.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
  annotations:
    # A change of the configuration starts the pods again.
    checksum/config: {{ include (print $root.Template.BasePath "/config.yaml") $root | sha256sum }}
spec:
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: { type: RuntimeDefault }
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  # SIGTERM lets a role finish the batch or the messages that it holds.
  terminationGracePeriodSeconds: 60
  {{- if eq .role "serve" }}
  initContainers:
    # A file of tokens that others may read is refused, and files of a Secret cannot be that private.
    - name: tokens
      image: {{ include "doseline.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: ["install", "-m", "600", "/run/tokens/tokens.json", "/var/lib/doseline/tokens.json"]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      volumeMounts:
        - { name: tokens, mountPath: /run/tokens, readOnly: true }
        - { name: private, mountPath: /var/lib/doseline }
  {{- end }}
  containers:
    - name: {{ .role }}
      image: {{ include "doseline.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ .role }}, --config, /etc/doseline/doseline.toml]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      env:
        - { name: DOSELINE__CLICKHOUSE__USERNAME, value: {{ $user }} }
        - { name: DOSELINE__CLICKHOUSE__PASSWORD_FILE, value: /run/doseline/clickhouse_password }
        {{- if $root.Values.kafka.sasl.mechanism }}
        - { name: DOSELINE__KAFKA__SASL__MECHANISM, value: {{ $root.Values.kafka.sasl.mechanism }} }
        - { name: DOSELINE__KAFKA__SASL__USERNAME, value: {{ $user }} }
        - { name: DOSELINE__KAFKA__SASL__PASSWORD_FILE, value: /run/doseline/kafka_password }
        {{- end }}
        {{- if eq .role "bridge" }}
        - name: DOSELINE__BRIDGE__CLIENT_ID
          valueFrom: { fieldRef: { fieldPath: metadata.name } }
        {{- with .values.shareGroupSecret }}
        - name: DOSELINE__BRIDGE__SHARE_GROUP
          valueFrom: { secretKeyRef: { name: {{ . }}, key: share_group } }
        {{- end }}
        {{- end }}
      {{- if .port }}
      ports:
        - { name: http, containerPort: {{ .port }}, protocol: TCP }
      # Ready when data moves. A role that is not ready is not restarted: it goes on by itself.
      readinessProbe:
        httpGet: { path: /readyz, port: http, httpHeaders: [{ name: Host, value: "localhost:{{ .port }}" }] }
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      livenessProbe:
        httpGet: { path: /livez, port: http, httpHeaders: [{ name: Host, value: "localhost:{{ .port }}" }] }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      startupProbe:
        httpGet: { path: /livez, port: http, httpHeaders: [{ name: Host, value: "localhost:{{ .port }}" }] }
        periodSeconds: 2
        failureThreshold: 60
      {{- end }}
      {{- with .values.resources }}
      resources: {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - { name: config, mountPath: /etc/doseline, readOnly: true }
        - { name: passwords, mountPath: /run/doseline, readOnly: true }
        - { name: tls, mountPath: /etc/doseline-tls, readOnly: true }
        {{- if eq .role "serve" }}
        - { name: private, mountPath: /var/lib/doseline }
        {{- end }}
  volumes:
    - name: config
      configMap: { name: {{ include "doseline.name" $root }} }
    # Each role sees its own password alone.
    - name: passwords
      projected:
        defaultMode: 0440
        sources:
          - secret:
              name: {{ $root.Values.clickhouse.passwordsSecret }}
              items: [{ key: {{ $user }}, path: clickhouse_password }]
          {{- if $root.Values.kafka.sasl.mechanism }}
          - secret:
              name: {{ required "kafka.sasl.passwordsSecret: name the Secret with the passwords of Kafka" $root.Values.kafka.sasl.passwordsSecret }}
              items: [{ key: {{ $user }}, path: kafka_password }]
          {{- end }}
    - name: tls
      projected:
        defaultMode: 0440
        sources:
          {{- if and (eq .role "bridge") $root.Values.mqtt.tlsSecret }}
          - secret:
              name: {{ $root.Values.mqtt.tlsSecret }}
              items:
                - { key: broker-ca.pem, path: broker-ca.pem }
                - { key: bridge.pem, path: bridge.pem }
                - { key: bridge.key, path: bridge.key }
          {{- end }}
          {{- with $root.Values.kafka.tlsSecret }}
          - secret: { name: {{ . }}, items: [{ key: ca.pem, path: kafka-ca.pem }] }
          {{- end }}
          {{- if not (or $root.Values.kafka.tlsSecret (and (eq .role "bridge") $root.Values.mqtt.tlsSecret)) }} []
          {{- end }}
    {{- if eq .role "serve" }}
    - name: tokens
      secret: { secretName: {{ .values.tokensSecret }}, defaultMode: 0440 }
    - name: private
      emptyDir: { medium: Memory, sizeLimit: 8Mi }
    {{- end }}
  {{- with $root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $root.Values.affinity }}
  affinity: {{- toYaml $root.Values.affinity | nindent 4 }}
  {{- else }}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels: {{- include "doseline.selector" . | nindent 16 }}
  {{- end }}
{{- end -}}
