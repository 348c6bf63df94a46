# shellcheck shell=bash
# File trees out of Debian packages.

# mirror: the address the machine itself gets Debian from, whatever form its sources are written in.
mirror() {
  local found
  found=$(known_mirror)
  if [ -z "$found" ]; then apt-get update -qq >/dev/null; found=$(known_mirror); fi   # apt knows origins from fetched lists
  [ -n "$found" ] || refuse "no Debian mirror in this machine's apt sources: add one to /etc/apt/sources.list"
  echo "$found"
}

# shellcheck disable=SC2016  # the variables are apt's
known_mirror() {
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian Debian //p' | head -n1
}

# packages FILE [MAJOR]: the names in FILE, joined by commas.
packages() { sed "s/#.*//; s/MAJOR/${2:-}/" "$1" | xargs | tr ' ' ,; }

# debian_root SUITE OUT.tar MMDEBSTRAP-OPTION...: without the names and addresses of the machine it is made on.
debian_root() {
  local suite=$1 out=$2
  shift 2
  # A testing suite's Release file runs out while a mirror stands still; its signature is checked all the same.
  mmdebstrap --quiet --mode=root --components=main \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt="$HERE/dpkg.cfg" "$@" \
    --customize-hook="cd \"\$1\" && rm -f etc/hostname etc/resolv.conf etc/apt/sources.list" \
    "$suite" "$out" "$(mirror)"
}

# debian_files SUITE DIRECTORY PACKAGE...: the package files themselves.
# shellcheck disable=SC2016  # the variable is mmdebstrap's
debian_files() {
  local suite=$1 directory=$2
  shift 2
  mmdebstrap --quiet --mode=root --components=main --variant=custom --skip=cleanup \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg --aptopt='Acquire::Check-Valid-Until "false"' \
    --customize-hook="cd '$directory' && APT_CONFIG=\"\$MMDEBSTRAP_APT_CONFIG\" apt-get -qq -o APT::Sandbox::User=root download $*" \
    "$suite" /dev/null "$(mirror)"
}

# version_in ROOT.tar PACKAGE: the upstream part of the version that is installed in a tree.
version_in() {
  tar -xOf "$1" ./var/lib/dpkg/status |
    awk -v p="$2" '/^Package: /{here = $2 == p} here && /^Version: /{sub(/^[0-9]+:/, "", $2); sub(/-.*/, "", $2); print $2}'
}
