//! The DNS domain of the Kubernetes cluster: set by a flag, or found in the configuration of the
//! resolver.

use std::fs;

use tracing::{info, warn};

use crate::api::names::DEFAULT_CLUSTER_DOMAIN;
use crate::rules::text::is_dns_name;

/// The configuration of the resolver. The kubelet writes the domain of the cluster into that of a
/// pod.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The domain of the cluster
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterDomainFlag {
    /// DNS domain of the Kubernetes cluster, for the names in certificates. Default: DOMAIN of the
    /// entry `svc.DOMAIN` in the search list of /etc/resolv.conf, else cluster.local
    #[arg(
        long,
        env = "PGREKEY_CLUSTER_DOMAIN",
        value_name = "DOMAIN",
        value_parser = parse
    )]
    cluster_domain: Option<String>,
}

/// The DNS domain of the cluster, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterDomain {
    pub(crate) name: String,
    pub(crate) source: DomainSource,
}

/// Where the domain is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DomainSource {
    /// The flag.
    Flag,
    /// The search list of the resolver.
    SearchList,
    /// Neither: it is the domain that most clusters have.
    Assumed,
}

impl ClusterDomainFlag {
    /// The domain: that of the flag, else that of the resolver.
    pub(crate) fn resolve(self) -> ClusterDomain {
        let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        choose(self.cluster_domain, &text)
    }
}

impl ClusterDomain {
    /// Names in certificates depend on the domain, so the log says where it is from.
    pub(crate) fn log(&self) {
        let cluster_domain = self.name.as_str();
        match self.source {
            DomainSource::Flag => info!(cluster_domain, "the cluster's DNS domain is set"),
            DomainSource::SearchList => {
                info!(
                    cluster_domain,
                    "found the cluster's DNS domain in /etc/resolv.conf"
                );
            }
            DomainSource::Assumed => warn!(
                cluster_domain,
                "no entry svc.DOMAIN in the search list of /etc/resolv.conf: the cluster's DNS \
                 domain is assumed; --cluster-domain (chart: clusterDomain) sets another one"
            ),
        }
    }
}

fn choose(flag: Option<String>, resolv_conf: &str) -> ClusterDomain {
    let found = || Some((in_search_list(resolv_conf)?, DomainSource::SearchList));
    let (name, source) = flag
        .map(|name| (name, DomainSource::Flag))
        .or_else(found)
        .unwrap_or_else(|| (DEFAULT_CLUSTER_DOMAIN.to_owned(), DomainSource::Assumed));
    ClusterDomain { name, source }
}

fn parse(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if is_domain(&name) {
        Ok(name)
    } else {
        Err("is no DNS domain: use one such as cluster.local".to_owned())
    }
}

fn is_domain(name: &str) -> bool {
    is_dns_name(name) && !name.starts_with("*.")
}

/// The domain of the entry `svc.DOMAIN` in the search list. Of several lists the last one counts
/// (resolv.conf(5)).
fn in_search_list(resolv_conf: &str) -> Option<String> {
    let list = resolv_conf
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("search"))
        .rfind(|list| list.starts_with([' ', '\t']))?;
    let domain = |entry: &str| parse(entry.strip_prefix("svc.")?).ok();
    list.split_whitespace().find_map(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_that_of_the_services_in_the_search_list() {
        let pods = "search demo.svc.k8s.example svc.k8s.example k8s.example lan\nnameserver 10.96.0.10\noptions ndots:5\n";
        for (resolv_conf, domain) in [
            (pods, Some("k8s.example")),
            ("search\tdemo.svc.k8s\tsvc.k8s\tk8s", Some("k8s")),
            ("  search svc.A.Example.", Some("a.example")),
            ("search svc.old\nsearch svc.new", Some("new")),
            ("search svc.old\nsearch lan", None),
            ("search a.svc.b.svc.c svc.b.svc.c", Some("b.svc.c")),
            ("search lan\nnameserver 192.0.2.1", None),
            ("search svc. svc svc.a..b svc.*.b svc.10.0 svc.c", Some("c")),
            ("searches svc.a\n# search svc.b\ndomain svc.c", None),
            ("", None),
        ] {
            assert_eq!(
                in_search_list(resolv_conf).as_deref(),
                domain,
                "{resolv_conf}"
            );
        }
        let found = choose(None, pods);
        assert_eq!(
            (found.name.as_str(), found.source),
            ("k8s.example", DomainSource::SearchList)
        );
    }

    #[test]
    fn the_flag_goes_before_the_search_list_and_without_both_the_domain_is_assumed() {
        let set = choose(Some("a.example".to_owned()), "search svc.b.example");
        assert_eq!(
            (set.name.as_str(), set.source),
            ("a.example", DomainSource::Flag)
        );
        let assumed = choose(None, "search lan");
        assert_eq!(
            (assumed.name.as_str(), assumed.source),
            ("cluster.local", DomainSource::Assumed)
        );
    }

    #[test]
    fn a_domain_that_no_name_can_end_in_is_refused() {
        assert_eq!(parse("K8s.Example."), Ok("k8s.example".to_owned()));
        for text in [
            "",
            ".",
            "*.example",
            "a b",
            "a,b",
            ".local",
            "10.0.0.1",
            "-a",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
