# shellcheck shell=bash
# Where the volumes of pods are.
#
# In memory, because PostgreSQL waits for fsync, and on a disk shared with compilers one fsync was seen to take more
# than two seconds: tests of what happens during a switchover would measure the disk. PGREKEY_STORAGE=disk turns it off.
#
# Volumes keep their content over "down" and "up". The mark says which copy is the right one: with it the one in memory,
# without it the one on disk, and that is $RUN/storage.disk while it is being moved. When there is a mark and no memory,
# the machine was restarted. Then the cluster starts empty: a database whose files are gone while the API server still
# knows it never becomes ready again.

storage_up() {
  local mark=$RUN/storage-in-memory disk=$RUN/storage.disk old
  for old in "$RUN"/etcd*; do
    [ -d "$old" ] && [ "$old" != "$RUN/etcd-$ETCD_SUITE" ] || continue
    say "etcd is another one than before: the cluster starts empty"
    forget
  done
  if [ -f "$mark" ] && ! storage_mounted; then
    say "the machine was restarted and took the volumes in memory with it: the cluster starts empty"
    forget
  elif [ ! -f "$mark" ] && [ -d "$disk" ]; then
    ! storage_mounted || umount -l "$RUN/storage"
    rm -rf "$RUN/storage"
    mv "$disk" "$RUN/storage"
  fi
  mkdir -p "$RUN/storage"
  [ "$STORAGE" = memory ] && [ ! -f "$mark" ] || return 0
  mv "$RUN/storage" "$disk"
  mkdir "$RUN/storage"
  mount -t tmpfs -o "size=$STORAGE_SIZE,mode=0755" pgrekey "$RUN/storage"
  cp -a "$disk/." "$RUN/storage/"
  touch "$mark"
  rm -rf "$disk"
}

storage_mounted() { mountpoint -q "$RUN/storage"; }

# storage_down: move what is in memory to disk.
storage_down() {
  local mark=$RUN/storage-in-memory disk=$RUN/storage.disk
  [ -f "$mark" ] && storage_mounted || return 0
  rm -rf "$disk.part"
  cp -a "$RUN/storage" "$disk.part"
  mv "$disk.part" "$disk"
  rm "$mark"
  umount -l "$RUN/storage"
  rmdir "$RUN/storage"
  mv "$disk" "$RUN/storage"
}

# forget: what the API server and the kubelet know, and the volumes. The certificates and images stay.
forget() {
  stop kubelet "${CONTROLLERS[@]}" apiserver etcd
  containers_down
  ! storage_mounted || umount -l "$RUN/storage"
  rm -rf --one-file-system "$RUN"/{etcd*,kubelet,storage,storage.disk,storage.disk.part,storage-in-memory,applied,issues,pod-logs}
}
