//! Names of objects: those that are the same in every database, and those that follow from the
//! database's own name.

/// Name of the container that runs PostgreSQL.
pub const POSTGRES: &str = "postgres";

/// Name of the container with the metrics exporter.
pub const EXPORTER: &str = "exporter";

/// Name of the data volume of a pod, and of the template of its claim.
pub const DATA_VOLUME: &str = "data";

/// The certificates of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alias {
    /// What the database serves.
    Server,
    /// What the database's own clients, such as standbys, present.
    Client,
    /// What the metrics exporter serves.
    MetricsExporter,
}

impl Alias {
    /// Every certificate of a database, in the order in which they are listed to users.
    pub const ALL: [Self; 3] = [Self::Server, Self::Client, Self::MetricsExporter];

    /// The alias as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::MetricsExporter => "metrics-exporter",
        }
    }

    /// The alias that the API writes so, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alias| alias.as_str() == text)
    }
}

/// The names of the objects of one database: each follows from the database's own name.
///
/// Three names depend on the spec too: the Secret of the superuser, the Secrets of certificates and
/// the ServiceAccount. Here is what they are called if the spec does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    database: &'a str,
}

impl<'a> Names<'a> {
    /// The names of the database with this name.
    #[must_use]
    pub const fn new(database: &'a str) -> Self {
        Self { database }
    }

    /// The database's own name: its PetSet, primary Service, ServiceAccount, Role, RoleBinding and
    /// PodDisruptionBudget.
    #[must_use]
    pub const fn database(self) -> &'a str {
        self.database
    }

    /// The headless Service that gives pods their DNS names.
    #[must_use]
    pub fn pods_service(self) -> String {
        self.with_suffix("pods")
    }

    /// The Service of the standbys.
    #[must_use]
    pub fn standby_service(self) -> String {
        self.with_suffix("standby")
    }

    /// The Service of the metrics, and the ServiceMonitor.
    #[must_use]
    pub fn stats_service(self) -> String {
        self.with_suffix("stats")
    }

    /// The Secret with the superuser's name and password, if the spec names none.
    #[must_use]
    pub fn auth_secret(self) -> String {
        self.with_suffix("auth")
    }

    /// The Secret with the certificates and keys that the pods mount.
    #[must_use]
    pub fn tls_secret(self) -> String {
        self.with_suffix("tls")
    }

    /// The Secret with the PostgreSQL settings that `postgresql.conf` includes.
    #[must_use]
    pub fn user_conf_secret(self) -> String {
        self.with_suffix("user-conf")
    }

    /// The ConfigMap with `patroni.yml`, and the Secret with the credentials of Patroni's REST API.
    #[must_use]
    pub fn patroni(self) -> String {
        self.with_suffix("patroni")
    }

    /// The ConfigMap with the CA bundle for clients.
    #[must_use]
    pub fn ca_config_map(self) -> String {
        self.with_suffix("ca")
    }

    /// The ConfigMaps in which Patroni keeps the cluster's state.
    #[must_use]
    pub fn patroni_config_maps(self) -> PatroniConfigMaps {
        // Patroni appends the suffix to the scope and cuts nothing.
        let name = |suffix: &str| format!("{}-{suffix}", self.database);
        PatroniConfigMaps {
            config: name("config"),
            leader: name("leader"),
            failover: name("failover"),
            sync: name("sync"),
        }
    }

    /// The Certificate of an alias, and its Secret if the spec names none: `NAME-server-cert`.
    ///
    /// If the database's name has more than 41 characters its end may be cut off. Two databases may
    /// then need the same name.
    #[must_use]
    pub fn certificate(self, alias: Alias) -> String {
        self.with_suffix(&format!("{}-cert", alias.as_str()))
    }

    /// The Certificate with which an operation tries the issuer of an alias, and its Secret:
    /// `NAME-trial-server`.
    ///
    /// The suffix is short: two databases never need the same one of these names if they do not
    /// need the same [`Names::certificate`].
    #[must_use]
    pub fn trial_certificate(self, alias: Alias) -> String {
        self.with_suffix(match alias {
            Alias::Server => "trial-server",
            Alias::Client => "trial-client",
            Alias::MetricsExporter => "trial-exporter",
        })
    }

    /// A request that the command line makes: `DATABASE-OPERATION-xxxxx`.
    #[must_use]
    pub fn request(self, operation: &str, random: &str) -> String {
        self.with_suffix(&format!("{operation}-{random}"))
    }

    /// The pod with this ordinal.
    #[must_use]
    pub fn pod(self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.database)
    }

    /// The DNS name of a pod inside the Kubernetes cluster. The server's certificate has it.
    #[must_use]
    pub fn pod_host(self, pod: &str, namespace: &str) -> String {
        service_host(&format!("{pod}.{}", self.pods_service()), namespace)
    }

    /// The PersistentVolumeClaim with the data of the pod with this ordinal.
    #[must_use]
    pub fn data_claim(self, ordinal: i32) -> String {
        format!("{DATA_VOLUME}-{}", self.pod(ordinal))
    }

    /// `NAME-suffix` in 63 characters, as KubeDB makes it: the database's name is cut, so that the
    /// suffix survives.
    fn with_suffix(self, suffix: &str) -> String {
        let room = 63_usize.saturating_sub(suffix.len() + 1);
        let base = self
            .database
            .char_indices()
            .nth(room)
            .map_or(self.database, |(end, _)| &self.database[..end]);
        format!("{base}-{suffix}").trim_matches('-').to_owned()
    }
}

/// The ConfigMaps in which Patroni keeps the cluster's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatroniConfigMaps {
    /// The dynamic configuration, in annotation `config`.
    pub config: String,
    /// The pod that leads, in annotation `leader`.
    pub leader: String,
    /// The switchover that is asked for, in annotations `leader` and `member`.
    pub failover: String,
    /// The standbys that are synchronous, in annotation `sync_standby`.
    pub sync: String,
}

impl PatroniConfigMaps {
    /// All four of them.
    #[must_use]
    pub fn all(self) -> [String; 4] {
        let Self {
            config,
            leader,
            failover,
            sync,
        } = self;
        [config, leader, failover, sync]
    }
}

/// The DNS name of a Service inside the Kubernetes cluster: `SERVICE.NAMESPACE.svc`.
#[must_use]
pub fn service_host(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}.svc")
}

/// The DNS domain of a Kubernetes cluster that was set up without another one.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// The longest name of a database, in characters.
///
/// Its pods carry the label `controller-revision-hash` with the value `NAME-` and a hash of ten
/// characters, and a label's value ends at 63. Of what is derived otherwise only the names of
/// certificates are longer, and cut.
pub const MAX_DATABASE: usize = 52;

/// The longest name of a request, in characters: it is a label's value (`ops.kubedb.com/name`) on
/// what the request makes.
pub const MAX_REQUEST: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_before_its_suffix() {
        assert_eq!(
            Names::new("pg").certificate(Alias::Server),
            "pg-server-cert"
        );
        let long = "d".repeat(MAX_DATABASE);
        let name = Names::new(&long).certificate(Alias::MetricsExporter);
        assert_eq!(
            (name.len(), name.ends_with("d-metrics-exporter-cert")),
            (63, true)
        );
        let longest = "d".repeat(58);
        assert_eq!(
            Names::new(&longest).pods_service(),
            format!("{longest}-pods")
        );
    }

    #[test]
    fn only_names_of_certificates_are_ever_cut() {
        let long = "d".repeat(MAX_DATABASE);
        let names = Names::new(&long);
        for (name, suffix) in [
            (names.auth_secret(), "auth"),
            (names.tls_secret(), "tls"),
            (names.ca_config_map(), "ca"),
            (names.pods_service(), "pods"),
            (names.standby_service(), "standby"),
            (names.stats_service(), "stats"),
            (names.patroni(), "patroni"),
            (names.user_conf_secret(), "user-conf"),
        ] {
            assert_eq!(name, format!("{long}-{suffix}"));
        }
        for alias in Alias::ALL {
            let uncut = "d".repeat(41);
            assert_eq!(
                Names::new(&uncut).certificate(alias),
                format!("{uncut}-{}-cert", alias.as_str())
            );
        }
    }

    #[test]
    fn databases_whose_certificates_have_names_of_their_own_have_trials_of_their_own() {
        let certificates = |name: &str| Alias::ALL.map(|alias| Names::new(name).certificate(alias));
        let trials = |name: &str| Alias::ALL.map(|alias| Names::new(name).trial_certificate(alias));
        assert_eq!(
            trials("pg"),
            ["pg-trial-server", "pg-trial-client", "pg-trial-exporter"]
        );
        for length in 1..MAX_DATABASE {
            let name = |end| format!("{}{end}", "d".repeat(length));
            let (one, other) = (name('x'), name('y'));
            assert!(trials(&one).iter().all(|name| name.len() <= 63));
            let share = |one: [String; 3], other: [String; 3]| {
                one.iter().zip(&other).any(|(one, other)| one == other)
            };
            assert!(
                !share(trials(&one), trials(&other))
                    || share(certificates(&one), certificates(&other)),
                "{one}"
            );
        }
    }

    #[test]
    fn the_objects_of_a_database_have_the_names_that_kubedb_gives_them() {
        let names = Names::new("pg");
        assert_eq!(
            names.patroni_config_maps().all(),
            ["pg-config", "pg-leader", "pg-failover", "pg-sync"]
        );
        assert_eq!(names.data_claim(1), "data-pg-1");
        assert_eq!(names.pod_host("pg-1", "demo"), "pg-1.pg-pods.demo.svc");
        assert_eq!(names.request("restart", "x2x4x"), "pg-restart-x2x4x");
    }
}
