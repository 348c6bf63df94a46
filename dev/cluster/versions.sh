# shellcheck shell=bash disable=SC2034  # read by the scripts that source this file
# The pinned version of everything that is built from Go modules. Each can be set from outside for one run;
# binaries of different versions live side by side in the cache.
K8S_VERSION=${K8S_VERSION:-1.34.4}
# etcd is the package of this suite of Debian; another suite may have a format of data that this one cannot read.
ETCD_SUITE=${ETCD_SUITE:-trixie}
CERT_MANAGER_VERSION=${CERT_MANAGER_VERSION:-1.21.2}
COREDNS_VERSION=${COREDNS_VERSION:-1.14.7}
LOCAL_PATH_VERSION=${LOCAL_PATH_VERSION:-0.0.30}
HELM_VERSION=${HELM_VERSION:-4.3.1}
