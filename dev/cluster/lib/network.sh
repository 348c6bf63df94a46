# shellcheck shell=bash
# The node's network namespace, and the one link between it and the host. Every step may be repeated: a start that was
# interrupted, or a route that somebody removed, is repaired by the next one.

in_namespace() { nsenter --net="/run/netns/$NAMESPACE" "$@"; }

# pids_in_namespace: processes of ours that have the node's network: the components and containerd's shims. (Pods have
# network namespaces of their own.)
pids_in_namespace() { [ ! -e "/run/netns/$NAMESPACE" ] || ip netns pids "$NAMESPACE" 2>/dev/null || true; }

network_up() {
  local net
  if ! in_namespace true 2>/dev/null; then
    ip netns del "$NAMESPACE" 2>/dev/null || rm -f "/run/netns/$NAMESPACE"   # a file that is no namespace any more
    ip netns add "$NAMESPACE"
  fi
  echo "$RUN" >/run/pgrekey.owner
  # Kernels for small machines come without the "dummy" device: the node's address is one more on its loopback.
  ip -n "$NAMESPACE" link set lo up
  ip -n "$NAMESPACE" addr replace "$NODE_IP/32" dev lo
  # A link whose other end is in a namespace that is no more (or another one of that name) leads nowhere.
  if [ ! -e "/sys/class/net/$LINK" ] || ! ip -n "$NAMESPACE" link show host >/dev/null 2>&1; then
    ip link del "$LINK" 2>/dev/null || true
    ip link add "$LINK" type veth peer name host netns "$NAMESPACE"
  fi
  ip addr replace "$HOST_IP/30" dev "$LINK"
  ip link set "$LINK" up
  ip -n "$NAMESPACE" addr replace "$PEER_IP/30" dev host
  ip -n "$NAMESPACE" link set host up
  ip -n "$NAMESPACE" route replace default via "$HOST_IP"
  in_namespace sysctl -qw net.ipv4.ip_forward=1
  # Routes on the host make pods and ClusterIPs reachable from it as they are from a pod.
  for net in "$NODE_IP/32" "$POD_CIDR" "$SERVICE_CIDR"; do ip route replace "$net" via "$PEER_IP"; done
}

network_down() {
  ip link del "$LINK" 2>/dev/null || true   # its peer and the host's routes go with it
  ip netns del "$NAMESPACE" 2>/dev/null || true
  rm -f /run/pgrekey.owner
}
