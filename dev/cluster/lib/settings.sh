# shellcheck shell=bash disable=SC2034  # read by the scripts that source this file
# Where everything is. Nothing that the cluster writes lies in, or points into, a checkout: two checkouts of the
# project on one machine see the same cluster.
export LC_ALL=C   # the scripts read what commands print
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pgrekey
BIN=$CACHE/bin            # programs, one directory per module and version
IMAGES=$CACHE/images      # container images, written by dev/images/build
RUN=$CACHE/run            # the state of the cluster
export KUBECONFIG=$RUN/admin.conf

# The cluster is one node in a network namespace. 198.18.0.0/15 is set aside for tests of network devices (RFC 2544):
# it is neither routed in the world nor used by homes, offices and clouds the way private ranges are.
NAMESPACE=pgrekey                # the network namespace, and the root of the node's cgroups
NODE=pgrekey                     # the node's name
LINK=pgrekey0                    # the host's end of the veth pair into the namespace
NODE_IP=198.18.0.1               # API server, kubelet and DNS
POD_CIDR=198.18.16.0/22
SERVICE_CIDR=198.19.0.0/24
API_SERVICE_IP=198.19.0.1        # the first of SERVICE_CIDR: Service "kubernetes"
HOST_IP=198.18.31.1              # the host as the cluster sees it: webhooks under development listen here
PEER_IP=198.18.31.2              # the namespace's end of the veth pair

STORAGE=${PGREKEY_STORAGE:-memory}           # memory or disk: where volumes are, see lib/storage.sh
STORAGE_SIZE=${PGREKEY_STORAGE_SIZE:-4G}     # an upper bound; memory is used only as volumes fill

# In the order in which they are started.
COMPONENTS=(etcd apiserver controller-manager scheduler containerd kubelet proxy coredns cert-manager local-path)
CONTROLLERS=(local-path cert-manager coredns proxy scheduler controller-manager)   # what only talks to the API server
