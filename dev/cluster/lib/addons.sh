# shellcheck shell=bash
# cert-manager and the local-path volume provisioner: processes beside the cluster, with the admin's kubeconfig, so that
# they need no images.

addons_up() {
  local wanted
  wanted=$({ bin_dir cert-manager; addon_objects; } | sha256sum)
  if [ "$(cat "$RUN/applied" 2>/dev/null)" != "$wanted" ]; then
    addon_objects | put "$RUN/conf/addons.yaml"
    kubectl apply --server-side --force-conflicts -f "$(bin_dir cert-manager)/crds" -f "$RUN/conf/addons.yaml" >/dev/null
    kubectl wait --for=condition=Established --timeout=30s -f "$(bin_dir cert-manager)/crds" >/dev/null
    echo "$wanted" >"$RUN/applied"
  fi
  start cert-manager "$RUN/admin.conf" -- "$(bin_dir cert-manager)/cert-manager" --kubeconfig="$RUN/admin.conf"

  put "$RUN/conf/local-path.json" <<<'{"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["'"$RUN/storage"'"]}]}'
  put "$RUN/conf/local-path-helper.yaml" <<C
apiVersion: v1
kind: Pod
metadata: {name: helper-pod}
spec:
  containers: [{name: helper-pod, image: "pgrekey.local/busybox:1", imagePullPolicy: IfNotPresent}]
C
  # It asks for a service account even outside a cluster, where it has none; helper pods get that one.
  start local-path "$RUN/conf/local-path.json" "$RUN/conf/local-path-helper.yaml" "$RUN/admin.conf" -- \
    "$(bin_dir local-path-provisioner)/local-path-provisioner" start --kubeconfig "$RUN/admin.conf" \
    --config "$RUN/conf/local-path.json" --namespace local-path-storage --service-account-name default \
    --helper-image pgrekey.local/busybox:1 --helper-pod-file "$RUN/conf/local-path-helper.yaml"
}

# The provisioner takes the scripts of its helper pods from a ConfigMap of this name; without it claims stay Pending.
addon_objects() {
  cat <<'C'
apiVersion: v1
kind: Namespace
metadata: {name: cert-manager}
---
apiVersion: v1
kind: Namespace
metadata: {name: local-path-storage}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: local-path-config, namespace: local-path-storage}
data: {setup: 'mkdir -m 0777 -p "$VOL_DIR"', teardown: 'rm -rf "$VOL_DIR"'}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: rancher.io/local-path
reclaimPolicy: Delete
volumeBindingMode: WaitForFirstConsumer
C
}

# issues: cert-manager really issues from a CA. Asked once for each process that cert-manager has been.
issues() {
  local now
  now=$(cat "$RUN/pid/cert-manager")
  [ "$(cat "$RUN/issues" 2>/dev/null)" != "$now" ] || return 0
  kubectl delete certificate,secret --namespace cert-manager --ignore-not-found check-leaf >/dev/null
  kubectl apply --server-side --force-conflicts -f - >/dev/null <<'C'
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: check-root, namespace: cert-manager}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: check-ca, namespace: cert-manager}
spec: {isCA: true, commonName: check-ca, secretName: check-ca, issuerRef: {name: check-root}}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: check-ca, namespace: cert-manager}
spec: {ca: {secretName: check-ca}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: check-leaf, namespace: cert-manager}
spec: {commonName: check-leaf, dnsNames: [check-leaf], secretName: check-leaf, issuerRef: {name: check-ca}}
C
  wait_for "a certificate from cert-manager" 60 \
    kubectl wait --namespace cert-manager --for=condition=Ready --timeout=2s certificate/check-leaf
  echo "$now" >"$RUN/issues"
}
