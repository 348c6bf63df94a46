# The development cluster and its images; included by the Makefile at the top.
DEV := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))

.PHONY: cluster cluster-down cluster-status images

cluster: ## Start a real Kubernetes on this machine, or repair it (Linux, root; the first run builds it)
	@$(DEV)/cluster/cluster up

cluster-down: ## End it (PURGE=1 also forgets its objects and volumes)
	@$(DEV)/cluster/cluster down $(if $(PURGE),--purge)

cluster-status: ## Tell what of it runs
	@$(DEV)/cluster/cluster status

images: ## Build the container images that changed, and load them into the cluster when it runs
	@$(DEV)/images/build
	@$(DEV)/cluster/cluster import
