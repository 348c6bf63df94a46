# shellcheck shell=bash
# The cluster's certificate authority, its leaves, and the kubeconfigs that hold them.

pki_up() {
  local dir=$RUN/pki.part
  if [ ! -d "$RUN/pki" ]; then
    rm -rf "$dir"; mkdir "$dir"
    # Python 3.13 and later, so Patroni in a newer image, refuses an authority without keyUsage and leaves without key
    # identifiers.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=pgrekey-dev-cluster \
      -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$dir/ca.key" -out "$dir/ca.crt" 2>/dev/null
    openssl genrsa -out "$dir/service-accounts.key" 2048 2>/dev/null
    openssl rsa -in "$dir/service-accounts.key" -pubout -out "$dir/service-accounts.pub" 2>/dev/null
    leaf "$dir" apiserver /CN=kube-apiserver serverAuth \
      "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:$NODE_IP,IP:$PEER_IP,IP:$API_SERVICE_IP"
    leaf "$dir" kubelet "/O=system:nodes/CN=system:node:$NODE" clientAuth,serverAuth "DNS:$NODE,IP:$NODE_IP"
    leaf "$dir" admin /O=system:masters/CN=admin clientAuth
    mv "$dir" "$RUN/pki"
  fi
  kubeconfig admin | put "$RUN/admin.conf"
  kubeconfig kubelet | put "$RUN/conf/kubelet.kubeconfig"
}

leaf() { # DIRECTORY NAME SUBJECT EXTENDED-KEY-USAGE [ALTERNATIVE-NAMES]
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" -keyout "$1/$2.key" -out "$1/$2.csr" 2>/dev/null
  printf '%s\n' "extendedKeyUsage=$4" subjectKeyIdentifier=hash authorityKeyIdentifier=keyid ${5:+"subjectAltName=$5"} >"$1/$2.ext"
  openssl x509 -req -days 3650 -in "$1/$2.csr" -CA "$1/ca.crt" -CAkey "$1/ca.key" -CAcreateserial -extfile "$1/$2.ext" \
    -out "$1/$2.crt" 2>/dev/null
  rm "$1/$2.csr" "$1/$2.ext"
}

kubeconfig() { # LEAF
  cat <<C
apiVersion: v1
kind: Config
clusters:
- name: pgrekey
  cluster: {server: "https://$NODE_IP:6443", certificate-authority-data: $(base64 -w0 "$RUN/pki/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$RUN/pki/$1.crt"), client-key-data: $(base64 -w0 "$RUN/pki/$1.key")}
contexts:
- name: pgrekey
  context: {cluster: pgrekey, user: $1}
current-context: pgrekey
C
}
