# shellcheck shell=bash
# A container image is a config and tars of file trees: docker-archive is these in one tar.

# write_archive REFERENCE CONFIG-JSON OUT LAYER.tar...
write_archive() {
  local reference=$1 config=$2 out=$3 dir layer names=() ids=() name
  shift 3
  dir=$(mktemp -d -p "$WORK")
  for layer; do
    name=layer$((${#names[@]} + 1)).tar
    ln -s "$(realpath "$layer")" "$dir/$name"
    names+=("$name") ids+=("sha256:$(sha256sum <"$layer" | cut -d' ' -f1)")
  done
  # Without a date the same content is the same image.
  jq -cn --arg arch "$(dpkg --print-architecture)" --argjson config "$config" \
    '{architecture: $arch, os: "linux", config: $config, rootfs: {type: "layers", diff_ids: $ARGS.positional},
      history: [$ARGS.positional[] | {created_by: "dev/images/build"}]}' --args "${ids[@]}" >"$dir/config"
  name=$(sha256sum <"$dir/config" | cut -d' ' -f1).json
  mv "$dir/config" "$dir/$name"
  jq -cn --arg config "$name" --arg reference "$reference" \
    '[{Config: $config, RepoTags: [$reference], Layers: $ARGS.positional}]' --args "${names[@]}" >"$dir/manifest.json"
  tar -C "$dir" --dereference --owner=0 --group=0 --mtime=@0 -cf "$out" manifest.json "$name" "${names[@]}"
  rm -rf "$dir"
}
