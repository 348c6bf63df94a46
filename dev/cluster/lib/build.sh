# shellcheck shell=bash
# Builds the cluster's programs from Go modules.
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
    etcd)         module=go.etcd.io/etcd/server/v3 version=$ETCD_VERSION programs=. ;;
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

build_all() {
  local name
  for name in $(unbuilt); do
    say "building $name (the first build of everything takes 10 to 20 minutes)"
    build_module "$name" || die "building $name failed: see $CACHE/build/$name.log"
  done
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
