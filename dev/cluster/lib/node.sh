# shellcheck shell=bash
# kubelet, kube-proxy and DNS. (containerd is in containers.sh.)

node_up() {
  local k8s
  k8s=$(bin_dir kubernetes)
  put "$RUN/conf/kubelet.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: /$NAMESPACE            # all pods below one root: what is ours is known when the cluster is taken down
failCgroupV1: false                # from 1.35 on the kubelet refuses version 1 unless told
failSwapOn: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://$RUN/containerd/sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $RUN/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $RUN/pki/kubelet.crt
tlsPrivateKeyFile: $RUN/pki/kubelet.key
clusterDNS: [$NODE_IP]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: $RUN/pod-logs
volumePluginDir: $RUN/volume-plugins
# The disk is the developer's, full of other things. A full one must not evict pods, nor remove images that no registry
# has.
evictionHard: {}
imageGCHighThresholdPercent: 100
C
  start kubelet "$RUN/conf/kubelet.yaml" "$RUN/conf/kubelet.kubeconfig" -- "$k8s/kubelet" --config="$RUN/conf/kubelet.yaml" \
    --kubeconfig="$RUN/conf/kubelet.kubeconfig" --root-dir="$RUN/kubelet" --cert-dir="$RUN/kubelet-pki" \
    --hostname-override="$NODE" --node-ip="$NODE_IP"

  put "$RUN/conf/proxy.yaml" <<C
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $RUN/admin.conf}
hostnameOverride: $NODE
clusterCIDR: $POD_CIDR
conntrack: {maxPerCore: 0}         # the table's size is the machine's, not the namespace's
C
  start proxy "$RUN/conf/proxy.yaml" "$RUN/admin.conf" -- "$k8s/kube-proxy" --config="$RUN/conf/proxy.yaml"

  put "$RUN/conf/Corefile" <<C
.:53 {
  bind $NODE_IP
  errors
  cache 5
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $RUN/admin.conf pgrekey
    pods insecure
  }
}
C
  start coredns "$RUN/conf/Corefile" "$RUN/admin.conf" -- "$(bin_dir coredns)/coredns" -conf "$RUN/conf/Corefile"
}

# node_ready: as said by the kubelet that runs now. What an earlier one said stays in the API server for most of a minute.
node_ready() {
  local ready heartbeat
  running kubelet || return 1
  read -r ready heartbeat < <(kubectl get --request-timeout=5s node "$NODE" \
    -o jsonpath='{range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{end}{"\n"}' 2>/dev/null) || return 1
  [ "$ready" = True ] && [ "$(date -d "$heartbeat" +%s)" -ge "$(stat -c %Y "$RUN/pid/kubelet")" ]
}
