# shellcheck shell=bash
# etcd, API server, controller manager, scheduler.

control_plane_up() {
  local pki=$RUN/pki k8s
  k8s=$(bin_dir kubernetes)
  # Nothing in this cluster is worth waiting for the disk: a killed etcd loses nothing, only a power cut would.
  start etcd -- "$(bin_dir etcd)/etcd" --data-dir "$RUN/etcd-$ETCD_SUITE" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380
  # What each operator asked for, by its ServiceAccount: the suite compares it with the rights that the chart gives.
  put "$RUN/conf/audit.yaml" <<'P'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ["system:serviceaccounts:pgrekey", "system:serviceaccounts:operator-2", "system:serviceaccounts:operator-3"]}
P
  # Without the preferred address type it looks up the node's name to read logs, and no DNS knows it.
  start apiserver "$pki/apiserver.crt" "$RUN/conf/audit.yaml" -- "$k8s/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --secure-port=6443 --advertise-address="$NODE_IP" --service-cluster-ip-range="$SERVICE_CIDR" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/service-accounts.pub" --service-account-signing-key-file="$pki/service-accounts.key" \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --audit-policy-file="$RUN/conf/audit.yaml" --audit-log-path="$RUN/log/audit" --audit-log-maxsize=50 --audit-log-maxbackup=2 \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
  wait_for "the API server" 60 kubectl get --request-timeout=5s --raw /readyz
  start controller-manager "$RUN/admin.conf" -- "$k8s/kube-controller-manager" --kubeconfig="$RUN/admin.conf" \
    --service-account-private-key-file="$pki/service-accounts.key" --root-ca-file="$pki/ca.crt" \
    --use-service-account-credentials --leader-elect=false --bind-address=127.0.0.1
  start scheduler "$RUN/admin.conf" -- "$k8s/kube-scheduler" --kubeconfig="$RUN/admin.conf" \
    --leader-elect=false --bind-address=127.0.0.1
}

# A proxy of the machine is not for addresses that only the machine knows.
kubectl() { NO_PROXY='*' "$(bin_dir kubernetes)/kubectl" "$@"; }
