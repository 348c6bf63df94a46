# shellcheck shell=bash
# Builds the cluster's programs from Go modules; etcd comes out of Debian's package.
#
# One directory below $BIN for each module, named MODULE-VERSION-HASH: another version, or another main.go of ours,
# is another directory, so a cached binary is never the wrong one.

# module_of NAME: sets module, version, programs (the packages to build) and ldflags.
module_of() {
  local stamp=k8s.io/component-base/version c
  ldflags=
  case $1 in
    kubernetes)
      module=k8s.io/kubernetes version=$K8S_VERSION programs=
      for c in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
        programs+=" $module/cmd/$c"
      done
      # Unstamped binaries call themselves v0.0.0-master, and clients that compare versions believe it.
      c=${version#*.}
      ldflags="-X $stamp.gitVersion=v$version -X $stamp.gitMajor=${version%%.*} -X $stamp.gitMinor=${c%%.*}"
      ;;
    etcd)         module=etcd-server version=$ETCD_SUITE programs= ;;
    coredns)      module=github.com/coredns/coredns version=$COREDNS_VERSION programs=. ;;
    cert-manager) module=github.com/cert-manager/cert-manager version=$CERT_MANAGER_VERSION programs=. ;;
    local-path-provisioner)
      module=github.com/rancher/local-path-provisioner version=$LOCAL_PATH_VERSION programs=$module ;;
    helm)
      module=helm.sh/helm/v4 version=$HELM_VERSION programs=$module/cmd/helm
      ldflags="-X $module/internal/version.version=v$version" ;;
  esac
}

MODULES=(etcd kubernetes cert-manager coredns local-path-provisioner helm)
# How long each takes on two cores, while images are made beside it.
declare -A MINUTES=([etcd]=1 [kubernetes]=9 [cert-manager]=3 [coredns]=2 [local-path-provisioner]=1 [helm]=4)

# bin_dir MODULE: where its programs are, or would be.
bin_dir() {
  local module version programs ldflags
  module_of "$1"
  echo "$BIN/$1-$version-$( { echo "$module $programs $ldflags"; [ ! -d "$SRC/$1" ] || cat "$SRC/$1"/*; } | sha256sum | cut -c1-8)"
}

# unbuilt: the modules that are not in the cache.
unbuilt() {
  local name
  for name in "${MODULES[@]}"; do [ -d "$(bin_dir "$name")" ] || echo "$name"; done
}

require_go() {
  [ -z "$(unbuilt)" ] || command -v go >/dev/null || refuse "no Go toolchain: install Go 1.26 or later and put 'go' on PATH"
}

# minutes NAME...: how long these take in all.
minutes() {
  local name all=0
  for name; do all=$((all + MINUTES[$name])); done
  echo "$all"
}

build_all() {
  local left
  mapfile -t left < <(unbuilt)
  while [ ${#left[@]} -gt 0 ]; do
    say "building ${left[0]}, about ${MINUTES[${left[0]}]} min; all programs in about $(minutes "${left[@]}") min"
    if [ "${left[0]}" = etcd ]; then take_etcd; else build_module "${left[0]}"; fi ||
      die "building ${left[0]} failed: see $CACHE/build/${left[0]}.log"
    left=("${left[@]:1}")
  done
}

# take_etcd: out of the package, whichever release of Debian this machine has.
take_etcd() {
  local out work=$CACHE/build/etcd.work
  out=$(bin_dir etcd)
  rm -rf "$work" "$out.part"; mkdir -p "$work" "$out.part"
  ( debian_files "$ETCD_SUITE" "$work" etcd-server && dpkg-deb -x "$work"/etcd-server_*.deb "$work" &&
    mv "$work/usr/bin/etcd" "$out.part/" && "$out.part/etcd" --version ) >"$CACHE/build/etcd.log" 2>&1 || return
  mv "$out.part" "$out" && rm -rf "$work"
}

build_module() {
  local name=$1 module version programs ldflags out work
  module_of "$name"
  out=$(bin_dir "$name") work=$CACHE/build/$name.work
  rm -rf "$work" "$out.part"; mkdir -p "$work" "$out.part"
  [ ! -d "$SRC/$name" ] || cp "$SRC/$name"/* "$work"
  # Joined by &&, because where the caller asks for the result, as ours does, "set -e" is off.
  # -mod=mod fills in the rest of go.mod: every other version follows from the one that is pinned, and the toolchain
  # checks each download against the public checksum database, so no go.sum has to be kept.
  # shellcheck disable=SC2086  # programs is a list
  ( cd "$work" && write_go_mod "$name" &&
    CGO_ENABLED=0 GOWORK=off go build -mod=mod -buildvcs=false -trimpath -ldflags "-s -w $ldflags" -o "$out.part/" $programs &&
    if [ "$name" = cert-manager ]; then
      cp -r --no-preserve=mode "$(GOWORK=off go list -mod=mod -m -f '{{.Dir}}' "$module")/deploy/crds" "$out.part/crds"
    fi
  ) >"$CACHE/build/$name.log" 2>&1 || return
  mv "$out.part" "$out" && rm -rf "$work"
}

# write_go_mod NAME: a go.mod that requires the module of that name. The go line and the godebug defaults are the
# module's own, because Go takes them from the main module, which is ours.
write_go_mod() {
  local upstream
  upstream=$(go mod download -json "$module@v$version" | sed -n 's/^\t"GoMod": "\(.*\)",\?$/\1/p')
  [ -n "$upstream" ] || { echo "no module $module in version v$version"; return 1; }
  { echo "module pgrekey.local/dev/$1"
    grep -E '^(go|godebug) [^(]' "$upstream"
    sed -n '/^godebug ($/,/^)$/p' "$upstream"
    echo "require $module v$version"
    # Kubernetes asks for v0.0.0 of the modules of its own staging tree; published they are v0.MINOR.PATCH.
    sed -n "s/^\t\(k8s.io\/[^ ]*\) v0\.0\.0\( .*\)\?$/replace \1 => \1 v0.${version#*.}/p" "$upstream"
  } >go.mod
}
