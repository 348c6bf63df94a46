# shellcheck shell=bash
# containerd, the images in it, and what containers leave behind when their end did not come from us.

ctr() { command ctr --address "$RUN/containerd/sock" --namespace k8s.io "$@"; }

containerd_up() {
  # When everything was killed from outside, mounts, sockets and addresses of dead containers are still there, and pods
  # may have survived their shims. Start from none. (containerd alone may end: the shims keep the pods for its next start.)
  if ! running containerd && [ -z "$(shims)" ]; then
    stop kubelet   # it holds for mounted what is unmounted here
    containers_down
  fi
  cgroups_up
  mkdir -p "$RUN/containerd" "$RUN/cni"
  put "$RUN/conf/containerd.toml" <<C
version = 2
root = "$RUN/containerd/root"
state = "$RUN/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "$RUN/containerd/sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "pgrekey.local/pause:1"
  # Lowering a process's oom_score_adj needs CAP_SYS_RESOURCE, which root in a container often lacks.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$RUN/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "$RUN/containerd/runc"   # not among the containers of the machine's own containerd
C
  # Hairpin mode lets a pod reach itself through its Service.
  put "$RUN/cni/10-pgrekey.conflist" <<C
{"cniVersion": "0.4.0", "name": "pgrekey", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$RUN/cni-addresses", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
C
  start containerd "$RUN/conf/containerd.toml" -- containerd --config "$RUN/conf/containerd.toml"
  wait_for containerd 30 ctr version
}

# shims: the processes that hold this cluster's containers.
shims() {
  local file
  for file in /proc/[0-9]*/cmdline; do
    tr '\0' ' ' 2>/dev/null <"$file" | grep -q "containerd-shim.* -address $RUN/containerd/sock" && basename "${file%/cmdline}"
  done 2>/dev/null || true
}

cgroups_up() {
  local dir
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then   # version 2: controllers are handed down by the parent
    mkdir -p "/sys/fs/cgroup/$NAMESPACE"
    sed 's/[a-z]\+/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
  else                                                # version 1: the kubelet wants its root in every hierarchy
    for dir in /sys/fs/cgroup/*/; do mkdir -p "$dir$NAMESPACE" 2>/dev/null || true; done
  fi
  # All pods together count as one against each other process of the machine, and a compiler is several: servers would miss
  # what they are given seconds for.
  { echo 4096 >"/sys/fs/cgroup/cpu/$NAMESPACE/cpu.shares" || echo 400 >"/sys/fs/cgroup/$NAMESPACE/cpu.weight"; } 2>/dev/null || true
}

cgroup_roots() { ls -d "/sys/fs/cgroup/$NAMESPACE" /sys/fs/cgroup/*/"$NAMESPACE" 2>/dev/null || true; }

# containers_down: end every process of every pod and take away what they stood on. Reads only what the kernel and
# containerd's state say, so it works whether containerd, its shims, or none of them still run.
containers_down() {
  local tasks=$RUN/containerd/state/io.containerd.runtime.v2.task/k8s.io root file netns pods=''
  stop containerd
  # Network namespaces of pods: those that containers were started in, and any with an address of ours.
  netns=$(cat "$tasks"/*/config.json 2>/dev/null | jq -r '.linux.namespaces[]? | select(.type == "network") | .path // empty' 2>/dev/null | sort -u || true)
  for _ in {1..50}; do
    pods=$( { for root in $(cgroup_roots); do find "$root" -name cgroup.procs -exec cat {} + 2>/dev/null || true; done; shims; } | sort -u)
    [ -n "$pods" ] || break
    # shellcheck disable=SC2086  # a list
    kill -KILL $pods 2>/dev/null || true
    sleep 0.1
  done
  [ -z "$pods" ] || die "processes of pods do not end: $(xargs <<<"$pods")"
  # Containers' roots, the kubelet's memory-backed volumes; deepest first.
  awk -v state="$RUN/containerd/state/" -v kubelet="$RUN/kubelet" \
    'index($5, state) == 1 || index($5 "/", kubelet "/") == 1 {print $5}' /proc/self/mountinfo | sort -r | xargs -r -n1 umount -l
  for file in /run/netns/cni-*; do
    if [ -e "$file" ] && grep -qxF "$file" <<<"$netns" || ip -n "${file##*/}" -o -4 addr 2>/dev/null | grep -q ' 198\.18\.1[6-9]\.'; then
      umount -l "$file" 2>/dev/null || true
      rm -f "$file"
    fi
  done
  { sed -n 's/^unix:\/\///p' "$tasks"/*/address 2>/dev/null || true; } | xargs -r rm -f   # the shims' sockets, outside our state
  for _ in {1..20}; do
    for root in $(cgroup_roots); do find "$root" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
    [ -n "$(cgroup_roots)" ] || break
    sleep 0.1
  done
  rm -rf "$RUN/containerd/state" "$RUN/containerd/runc" "$RUN/containerd/sock"*
  # Reserved addresses are free again, but the next to be handed out stays the next: Patroni does not start while another
  # pod answers at the address that its member had last.
  find "$RUN/cni-addresses" -type f ! -name 'last_reserved_ip*' -delete 2>/dev/null || true
  # What CNI remembers of each pod, in a place that cannot be chosen: pgrekey-POD-eth0 and cni-loopback-POD-lo.
  for file in /var/lib/cni/results/pgrekey-*; do
    file=${file##*/pgrekey-}
    rm -f "/var/lib/cni/results/pgrekey-$file" "/var/lib/cni/results/cni-loopback-${file%-eth0}-lo"
  done
  find /var/log/containers -lname "$RUN/*" -delete 2>/dev/null || true
}

# archives: the newest archive of each image that was built.
archives() {
  local name
  for name in $(find "$IMAGES" -maxdepth 1 -name '*.tar' -printf '%f\n' 2>/dev/null | sed 's/\.[^.]*\.tar$//' | sort -u); do
    find "$IMAGES" -maxdepth 1 -name "$name.*.tar" -printf '%T@ %p\n' | sort -rn | head -n1 | cut -d' ' -f2
  done
}

# import_archives: the ones that are not in containerd yet.
import_archives() {
  local archive name
  mkdir -p "$RUN/imported"
  for archive in $(archives); do
    name=$(basename "$archive"); name=${name%.*.tar}
    [ "$(cat "$RUN/imported/$name" 2>/dev/null)" != "$archive" ] || continue
    say "importing image $name"
    import_archive "$archive"
    echo "$archive" >"$RUN/imported/$name"
  done
}

import_archive() { ctr images import "$1" >"$RUN/log/import" 2>&1 || die "importing $1 failed: $(tail -n1 "$RUN/log/import")"; }
