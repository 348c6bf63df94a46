{{- /*
The wall: what RBAC cannot say about the writes of pgrekey's ServiceAccount. RBAC binds verbs to kinds; it knows neither
labels nor content, so whoever held the token could change any Secret and run any pod. A row is a policy:

  name         what it is about; `wall.yaml` puts the release before it
  resources    the kinds, by apiVersion
  operations   CREATE and UPDATE if left out
  levels       with which values of podSecurity.level the row is there; always if left out
  foreign      a kind of object. The policy is asked once for each one in the namespace that is no database's (and has none of
               the labels in `allowedBy`), as `params`, and all answers must be yes: so it knows what CEL cannot look up
  the rest     as in a ValidatingAdmissionPolicy

A change, and a deletion, is judged by the object as it was: a label that comes with the change itself opens nothing.
*/ -}}
{{- define "pgrekey.wall" -}}
- name: objects
  resources:
    v1: [configmaps, persistentvolumeclaims, pods, secrets, serviceaccounts, services]
    apps/v1: [statefulsets]
    apps.k8s.appscode.com/v1: [petsets, petsets/status]
    cert-manager.io/v1: [certificates, certificates/status]
    monitoring.coreos.com/v1: [servicemonitors]
    policy/v1: [poddisruptionbudgets]
    rbac.authorization.k8s.io/v1: [rolebindings, roles]
  operations: [CREATE, UPDATE, DELETE]
  variables:
    - name: metadata
      expression: "request.operation == 'CREATE' ? object.metadata : oldObject.metadata"
    - name: labelled
      expression: variables.metadata.?labels[?'app.kubernetes.io/name'].orValue('') == 'postgreses.kubedb.com'
    # Somebody may have taken the labels off: they are put on again.
    - name: controlled
      expression: >-
        variables.metadata.?ownerReferences.orValue([]).exists(owner, owner.?controller.orValue(false) &&
        [owner.apiVersion, owner.kind] in [['kubedb.com/v1', 'Postgres'], ['apps.k8s.appscode.com/v1', 'PetSet']])
    - name: own
      expression: >-
        request.resource.resource == 'secrets' && request.namespace == '{{ .Release.Namespace }}' &&
        request.name == 'pgrekey-webhook'
  validations:
    - expression: variables.labelled || variables.controlled || variables.own
      message: "pgrekey writes only what has the label app.kubernetes.io/name: postgreses.kubedb.com, or belongs to a Postgres"
    - expression: >-
        request.operation != 'CREATE' || variables.own ||
        !(request.namespace in {{ list "kube-system" .Release.Namespace | toJson }})
      message: pgrekey makes nothing in kube-system, and no databases in its own namespace

# Kubernetes itself fills in the token of an account, or lets nodes in, by Secrets of other types.
- name: secrets
  resources: {v1: [secrets]}
  operations: [CREATE]
  validations:
    - expression: object.?type.orValue('Opaque') in ['Opaque', 'kubernetes.io/basic-auth']
      message: pgrekey makes no Secrets that Kubernetes gives a meaning to

- name: pods
  resources: {v1: [pods]}
  operations: [UPDATE]
  variables:
    - name: before
      expression: oldObject.metadata.?annotations.orValue({})
    - name: after
      expression: object.metadata.?annotations.orValue({})
  validations:
    - expression: >-
        object.spec == oldObject.spec && object.metadata.?labels == oldObject.metadata.?labels &&
        object.metadata.?finalizers == oldObject.metadata.?finalizers &&
        object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences
      message: of a pod, pgrekey changes annotations only
    - expression: >-
        variables.before.all(key, key.startsWith('pgrekey.dev/') || key in variables.after) &&
        variables.after.all(key, key.startsWith('pgrekey.dev/') || variables.before[?key] == optional.of(variables.after[key]))
      message: of the annotations of a pod, pgrekey changes only those in pgrekey.dev

- name: services
  resources: {v1: [services]}
  variables:
    - name: before
      expression: "oldObject == null ? [] : oldObject.spec.?externalIPs.orValue([])"
  validations:
    - expression: >-
        object.spec.?selector[?'app.kubernetes.io/name'].orValue('') == 'postgreses.kubedb.com' &&
        object.spec.?type.orValue('ClusterIP') != 'ExternalName'
      message: a Service of pgrekey's leads to the pods of a database
    - expression: >-
        {{ .Values.externalIPs.allowed }} ||
        object.spec.?externalIPs.orValue([]).all(address, address in variables.before)
      message: a Service of pgrekey's has externalIPs only where the chart's externalIPs.allowed says so

- name: selectors
  resources:
    policy/v1: [poddisruptionbudgets]
    monitoring.coreos.com/v1: [servicemonitors]
  validations:
    - expression: dyn(object).spec.selector.?matchLabels[?'app.kubernetes.io/name'].orValue('') == 'postgreses.kubedb.com'
      message: what pgrekey makes selects the pods and Services of a database

# Prometheus would read files of its own, its token among them, and show them to whom it scrapes.
- name: monitors
  resources: {monitoring.coreos.com/v1: [servicemonitors]}
  variables:
    - name: endpoints
      expression: dyn(object).spec.?endpoints.orValue([])
  validations:
    - expression: >-
        dyn(object).spec.?namespaceSelector.orValue({}) == {'matchNames': [request.namespace]}
      message: a ServiceMonitor of pgrekey's looks into its own namespace
    - expression: >-
        variables.endpoints.all(endpoint, endpoint.all(key, key in ['interval', 'path', 'port', 'scheme', 'tlsConfig']) &&
        endpoint.?tlsConfig.orValue({}).all(key, key in ['ca', 'serverName']))
      message: an endpoint of a ServiceMonitor of pgrekey's sends no credentials

- name: roles
  resources: {rbac.authorization.k8s.io/v1: [roles]}
  variables:
    - name: any
      expression: "{'configmaps': ['create', 'list', 'watch'], 'pods': ['list', 'watch']}"
    - name: named
      expression: "{'configmaps': ['get', 'patch', 'update'], 'pods': ['get', 'patch']}"
  validations:
    - expression: >-
        object.?rules.orValue([]).all(rule, rule.?apiGroups.orValue([]) == [''] && rule.?nonResourceURLs.orValue([]) == [] &&
        rule.?resources.orValue([]).all(kind, kind in variables.any && rule.verbs.all(verb, verb in variables.any[kind] ||
        verb in variables.named[kind] && rule.?resourceNames.orValue([]) != [] &&
        rule.resourceNames.all(name, name.startsWith(object.metadata.name + '-')))))
      message: "a Role of pgrekey's holds what Patroni needs: its pods and ConfigMaps"

- name: rolebindings
  resources: {rbac.authorization.k8s.io/v1: [rolebindings]}
  validations:
    - expression: object.roleRef.kind == 'Role' && object.roleRef.name == object.metadata.name
      message: a RoleBinding of pgrekey's gives the Role of its own name
    - expression: >-
        object.?subjects.orValue([]).all(subject, subject.kind == 'ServiceAccount' &&
        subject.?namespace.orValue('') == request.namespace &&
        subject.name in [object.metadata.name] + {{ .Values.podSecurity.serviceAccounts | toJson }})
      message: >-
        a RoleBinding of pgrekey's gives it to the account of its own name, or to one of the chart's podSecurity.serviceAccounts

# Whatever pgrekey's account may do, somebody else's Role of that name may hold, and RBAC lets it be given away. Which Role a
# RoleBinding gives is said once.
- name: givenroles
  resources: {rbac.authorization.k8s.io/v1: [rolebindings]}
  operations: [CREATE]
  foreign: {apiVersion: rbac.authorization.k8s.io/v1, kind: Role}
  validations:
    - expression: params.metadata.name != object.roleRef.name
      message: a RoleBinding of pgrekey's gives a Role that it made

# What became too much only when the chart's values changed stays as it is until its pods are to be others.
- name: workloads
  resources: &workloads
    apps/v1: [statefulsets]
    apps.k8s.appscode.com/v1: [petsets]
  matchConditions: &template-changes
    - name: template-changes
      expression: request.operation == 'CREATE' || object.spec.template != oldObject.spec.template
  variables:
    - name: template
      expression: dyn(object).spec.template
  validations:
    - expression: variables.template.?metadata.?labels[?'app.kubernetes.io/name'].orValue('') == 'postgreses.kubedb.com'
      message: pgrekey runs the pods of databases only
    - expression: >-
        variables.template.spec.?serviceAccountName.orValue('') in
        [object.metadata.name] + {{ .Values.podSecurity.serviceAccounts | toJson }}
      message: pods of pgrekey's run as the account of their set's name, or as one of the chart's podSecurity.serviceAccounts

- name: baseline
  levels: [baseline, restricted]
  resources: *workloads
  matchConditions: *template-changes
  variables: &pod
    - name: pod
      expression: dyn(object).spec.template.spec
    - name: context
      expression: variables.pod.?securityContext.orValue({})
    - name: containers
      expression: variables.pod.?containers.orValue([]) + variables.pod.?initContainers.orValue([])
    - name: each
      expression: variables.containers.map(container, container.?securityContext.orValue({}))
    - name: contexts
      expression: "[variables.context] + variables.each"
    - name: annotations
      expression: dyn(object).spec.template.?metadata.?annotations.orValue({})
  validations:
    - expression: "['hostNetwork', 'hostPID', 'hostIPC'].all(key, !variables.pod[?key].orValue(false))"
      message: "pod security: no namespaces of the host"
    - expression: variables.pod.?volumes.orValue([]).all(volume, !has(volume.hostPath))
      message: "pod security: no hostPath"
    - expression: >-
        variables.containers.all(container, container.?ports.orValue([]).all(port, port.?hostPort.orValue(0) == 0))
      message: "pod security: no hostPort"
    - expression: >-
        variables.each.all(context, !context.?privileged.orValue(false)) &&
        variables.contexts.all(context, !context.?windowsOptions.?hostProcess.orValue(false))
      message: "pod security: nothing privileged"
    - expression: >-
        variables.each.all(context, context.?capabilities.?add.orValue([]).all(capability, capability in ['AUDIT_WRITE', 'CHOWN',
        'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL', 'MKNOD', 'NET_BIND_SERVICE', 'SETFCAP', 'SETGID', 'SETPCAP', 'SETUID',
        'SYS_CHROOT']))
      message: "pod security: no capabilities beyond those that containers have by default"
    - expression: variables.each.all(context, context.?procMount.orValue('Default') == 'Default')
      message: "pod security: procMount is the default"
    - expression: >-
        variables.contexts.all(context, [context.?seccompProfile, context.?appArmorProfile].all(profile,
        profile.?type.orValue('RuntimeDefault') in ['RuntimeDefault', 'Localhost']))
      message: "pod security: seccomp and AppArmor are not unconfined"
    - expression: >-
        variables.annotations.all(key, !key.startsWith('container.apparmor.security.beta.kubernetes.io/') ||
        variables.annotations[key].matches('^(runtime/default|localhost/.*)$'))
      message: "pod security: AppArmor is not unconfined by an annotation"
    - expression: >-
        variables.contexts.all(context, context.?seLinuxOptions.?user.orValue('') == '' &&
        context.?seLinuxOptions.?role.orValue('') == '' && context.?seLinuxOptions.?type.orValue('') in
        ['', 'container_t', 'container_init_t', 'container_kvm_t', 'container_engine_t'])
      message: "pod security: SELinux options are those of containers"
    - expression: >-
        variables.context.?sysctls.orValue([]).all(sysctl, sysctl.name in ['kernel.shm_rmid_forced',
        'net.ipv4.ip_local_port_range', 'net.ipv4.ip_local_reserved_ports', 'net.ipv4.ip_unprivileged_port_start',
        'net.ipv4.ping_group_range', 'net.ipv4.tcp_fin_timeout', 'net.ipv4.tcp_keepalive_intvl', 'net.ipv4.tcp_keepalive_probes',
        'net.ipv4.tcp_keepalive_time', 'net.ipv4.tcp_rmem', 'net.ipv4.tcp_syncookies', 'net.ipv4.tcp_wmem'])
      message: "pod security: no sysctls that reach beyond the pod"
    - expression: >-
        variables.containers.all(container, [container.?livenessProbe, container.?readinessProbe, container.?startupProbe,
        container.?lifecycle.?postStart, container.?lifecycle.?preStop].all(ask,
        [ask.?httpGet, ask.?tcpSocket].all(to, to.?host.orValue('') == '')))
      message: "pod security: probes and hooks ask the pod itself"

- name: restricted
  levels: [restricted]
  resources: *workloads
  matchConditions: *template-changes
  variables: *pod
  validations:
    - expression: >-
        variables.pod.?volumes.orValue([]).all(volume, volume.all(key, key in ['name', 'configMap', 'csi', 'downwardAPI',
        'emptyDir', 'ephemeral', 'persistentVolumeClaim', 'projected', 'secret']))
      message: "pod security: no volumes of other kinds"
    - expression: variables.each.all(context, !context.?allowPrivilegeEscalation.orValue(true))
      message: "pod security: allowPrivilegeEscalation is false"
    - expression: variables.each.all(context, context.?runAsNonRoot.orValue(variables.context.?runAsNonRoot.orValue(false)))
      message: "pod security: runAsNonRoot is true"
    - expression: variables.contexts.all(context, context.?runAsUser.orValue(1) != 0)
      message: "pod security: runAsUser is not 0"
    - expression: >-
        variables.each.all(context,
        context.?seccompProfile.?type.or(variables.context.?seccompProfile.?type).orValue('Unconfined') != 'Unconfined')
      message: "pod security: there is a seccomp profile"
    - expression: >-
        variables.each.all(context, 'ALL' in context.?capabilities.?drop.orValue([]) &&
        context.?capabilities.?add.orValue([]).all(capability, capability == 'NET_BIND_SERVICE'))
      message: "pod security: all capabilities are dropped"

# An Eviction tells no more of its pod than the name.
- name: evictions
  resources: {v1: [pods/eviction]}
  operations: [CREATE]
  foreign: {apiVersion: v1, kind: Pod}
  validations:
    - expression: params.metadata.name != request.name
      message: pgrekey evicts only pods of databases

- name: accounts
  resources: *workloads
  matchConditions: *template-changes
  foreign: {apiVersion: v1, kind: ServiceAccount}
  allowedBy: {pgrekey.dev/usable-by-databases: "true"}
  validations:
    - expression: params.metadata.name != dyn(object).spec.template.spec.?serviceAccountName.orValue('')
      message: "pods of pgrekey's run as an account that it made, or that has the label pgrekey.dev/usable-by-databases: \"true\""

# cert-manager would write over it in our name, and give it our label.
- name: certificates
  resources: {cert-manager.io/v1: [certificates]}
  matchConditions:
    - name: secret-changes
      expression: request.operation == 'CREATE' || object.spec.secretName != oldObject.spec.secretName
  foreign: {apiVersion: v1, kind: Secret}
  validations:
    - expression: >-
        params.metadata.name != object.spec.secretName || params.?data.orValue({}).size() == 0 ||
        params.metadata.?annotations[?'cert-manager.io/certificate-name'].orValue('') == object.metadata.name
      message: pgrekey has no certificate issued into a Secret that is there for something else

# Whoever decides where reviews go sees, and changes, whatever is created in the cluster.
- name: registrations
  resources:
    admissionregistration.k8s.io/v1: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
  operations: [UPDATE]
  variables:
    - name: before
      expression: dyn(oldObject.?webhooks.orValue([]))
    - name: after
      expression: dyn(object.?webhooks.orValue([]))
  validations:
    - expression: >-
        ['labels', 'annotations', 'finalizers', 'ownerReferences'].all(key,
        dyn(object.metadata)[?key] == dyn(oldObject.metadata)[?key])
      message: &bundles of the registrations of webhooks, pgrekey changes caBundle only
    - expression: >-
        variables.after.size() == variables.before.size() &&
        variables.after.all(new, variables.before.exists_one(old, old.name == new.name &&
        new.all(key, key == 'clientConfig' || new[?key] == old[?key]) && old.all(key, key in new) &&
        new.clientConfig.?url == old.clientConfig.?url && new.clientConfig.?service == old.clientConfig.?service))
      message: *bundles

- name: finalizers
  resources:
    kubedb.com/v1: [postgreses]
    ops.kubedb.com/v1alpha1: [postgresopsrequests]
  operations: [UPDATE]
  validations:
    - expression: >-
        object.metadata.?finalizers.orValue([]).filter(name, !(name in ['kubedb.com', 'pgrekey.dev/ops-request'])) ==
        oldObject.metadata.?finalizers.orValue([]).filter(name, !(name in ['kubedb.com', 'pgrekey.dev/ops-request']))
      message: pgrekey takes off no finalizers but its own
{{- end }}
