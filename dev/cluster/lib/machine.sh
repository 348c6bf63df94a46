# shellcheck shell=bash
# What the machine must be, and the Debian packages it must have.

require_root() {
  [ "$(uname -s)" = Linux ] || refuse "not Linux: run this on a Linux machine, the node uses its namespaces and cgroups"
  [ "$(id -u)" = 0 ] || refuse "not root: run this as root (sudo -E), it makes network namespaces, mounts and containers"
}

# All that can be known before anything is changed.
require_machine() {
  local route
  require_root
  unshare --net --mount true 2>/dev/null ||
    refuse "no network namespaces: this needs CAP_SYS_ADMIN and CAP_NET_ADMIN; in a container, run it with --privileged"
  [ -d /sys/fs/cgroup/pids ] || [ -f /sys/fs/cgroup/cgroup.controllers ] ||
    refuse "no cgroups: mount the cgroup file system on /sys/fs/cgroup"
  case $STORAGE in memory | disk) ;; *) refuse "PGREKEY_STORAGE is '$STORAGE': set it to memory or disk" ;; esac
  # The containerd socket's path has to fit into a socket address, which is 108 bytes.
  [ ${#RUN} -le 80 ] || refuse "the path $RUN is too long for sockets: set XDG_CACHE_HOME to a shorter one"
  require_ours
  if command -v ip >/dev/null; then
    route=$(ip -o -4 route show table all | grep -E '(^| )198\.(18|19)\.' | grep -v " dev $LINK " | head -n1 || true)
    [ -z "$route" ] || refuse "addresses 198.18.0.0/15 are taken on this machine ($(xargs <<<"$route")): remove that route or address"
  fi
}

# The machine has one set of these addresses, so it has one cluster, in whosever cache its state is.
require_ours() {
  local owner
  owner=$(cat /run/pgrekey.owner 2>/dev/null || true)
  if [ -n "$owner" ] && [ "$owner" != "$RUN" ] && [ -n "$(pids_in_namespace)" ]; then
    refuse "another cluster runs here, with its state in $owner: end it with XDG_CACHE_HOME=${owner%/pgrekey/run} $0 down"
  fi
}

# install_packages: what a command needs, only when it is missing. A machine that has the command from elsewhere (a
# containerd of its own, say) keeps it.
install_packages() {
  local entry missing=()
  for entry in containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins nft:nftables \
    conntrack:conntrack socat:socat ip:iproute2 openssl:openssl jq:jq mmdebstrap:mmdebstrap gcc:gcc strip:binutils \
    /usr/lib/"$(uname -m)"-linux-gnu/libc.a:libc6-dev sysctl:procps \
    /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring; do
    case $entry in
      /*) [ -e "${entry%:*}" ] || missing+=("${entry#*:}") ;;
      *) command -v "${entry%:*}" >/dev/null || missing+=("${entry#*:}") ;;
    esac
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || refuse "no apt-get: install ${missing[*]} by hand, or use Debian"
  say "installing Debian packages: ${missing[*]}"
  { apt_get update && apt_get install -y --no-install-recommends "${missing[@]}"; } ||
    die "could not install ${missing[*]}: see $CACHE/apt.log"
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >>"$CACHE/apt.log" 2>&1 </dev/null; }
