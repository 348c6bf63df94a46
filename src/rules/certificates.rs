//! The rules about issuers and certificates, which `Postgres` and `PostgresOpsRequest` share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::Postgres;
use crate::api::bounds::MAX_CERTIFICATES;
use crate::api::cert_manager;
use crate::api::cert_manager::CaIssuer;
use crate::api::duration;
use crate::api::names::{Alias, Names};
use crate::api::postgres::TlsConfig;
use crate::api::tls::{
    CERT_MANAGER_GROUP, CertificateSpec, ClientAuthMode, IssuerRef, X509Subject,
};

use crate::rules::Effect::{Refuse, Warn};
use crate::rules::Operation::{Create, Update};
use crate::rules::{ClusterFacts, Findings, Needs, Operation, Review, Rule, quoted, text};

/// cert-manager's shortest life of a certificate.
const MIN_DURATION: Duration = Duration::from_hours(1);
/// cert-manager's shortest time between renewal and end.
const MIN_RENEW_BEFORE: Duration = Duration::from_mins(5);
/// cert-manager's life of a certificate whose `duration` is left out: 90 days.
const DEFAULT_DURATION: Duration = Duration::from_hours(90 * 24);
/// The TLS part of an object under review.
#[derive(Debug)]
pub struct CertificateRequestView<'a> {
    /// Namespace of object and database.
    pub namespace: &'a str,
    /// Name of the database.
    pub database: &'a str,
    /// Field that says so.
    pub named_at: &'static str,
    /// Issuer of all certificates that name none of their own.
    pub issuer_ref: Option<&'a IssuerRef>,
    /// Entries of the object.
    pub certificates: &'a [CertificateSpec],
}

/// What an object leads to.
#[derive(Debug)]
pub struct TargetTls {
    /// TLS of the database.
    pub tls: TlsConfig,
    /// How its clients log in.
    pub client_auth_mode: Option<ClientAuthMode>,
}

/// An object that speaks about TLS.
pub trait HasTls {
    /// Its TLS part, which is at `spec.tls`; nothing when it has none.
    fn tls(&self) -> Option<CertificateRequestView<'_>>;

    /// Whether that is more than the object itself says: names that are there, or asked for before,
    /// are added to.
    fn is_merged(&self, _: Option<&dyn ClusterFacts>) -> bool {
        false
    }

    /// What the database has once the object is carried out, and all that comes before it; nothing
    /// when it adds or changes no TLS.
    fn wished(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls>;

    /// The same, whose certificates need have nothing but their issuers: names may be hundreds.
    fn wished_issuers(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        self.wished(facts)
    }

    /// The database whose settings apply to what the object leaves out.
    fn unchanged(&self, facts: Option<&dyn ClusterFacts>) -> Option<Arc<Postgres>>;
}

const CHANGES: &[Operation] = &[Create, Update];

/// The rules of this file, for either kind of object; `unchanged` says what is needed to know what
/// the database has already.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a table")]
pub const fn rules<K: 'static>(unchanged: Needs) -> [Rule<K>; 15]
where
    Review<K>: HasTls,
{
    [
        Rule {
            id: "issuer-kind",
            effect: Refuse,
            on: CHANGES,
            what: "an issuer of another kind than `Issuer` or `ClusterIssuer`",
            why: "cert-manager signs with these two kinds only.",
            example: "tls: {issuerRef: {kind: Vault, name: pg-issuer}}",
            needs: Needs::Nothing,
            check: issuer_kind,
        },
        Rule {
            id: "issuer-group",
            effect: Refuse,
            on: CHANGES,
            what: "an issuer of another API group than `cert-manager.io`",
            why: "pgrekey creates Certificates, and only cert-manager's own issuers are known to fill them as pgrekey verifies them.",
            example: "tls: {issuerRef: {apiGroup: example.com, kind: Issuer, name: pg-issuer}}",
            needs: Needs::Nothing,
            check: issuer_group,
        },
        Rule {
            id: "issuer-exists",
            effect: Refuse,
            on: CHANGES,
            what: "an issuer that does not exist; an Issuer must be in the database's own namespace",
            why: "The operation would wait for it until its timeout.",
            example: "tls: {issuerRef: {kind: Issuer, name: no-such-issuer}}",
            needs: Needs::SomeFacts,
            check: issuer_exists,
        },
        Rule {
            id: "issuer-not-ready",
            effect: Warn,
            on: CHANGES,
            what: "an issuer that is not Ready",
            why: "The operation waits for it, and nothing is touched before it is Ready.",
            example: "tls: {issuerRef: {kind: Issuer, name: broken-issuer}}",
            needs: Needs::Facts,
            check: issuer_not_ready,
        },
        Rule {
            id: "cert-shared-issuer",
            effect: Warn,
            on: CHANGES,
            what: "`clientAuthMode: cert` with a ClusterIssuer, or with an Issuer that other databases use",
            why: "A client is who its certificate says, if an issuer of the database has signed it: whoever can obtain one for the superuser's name is superuser. Another database's `NAME-client-cert` is such a one.",
            example: "{clientAuthMode: cert, tls: {issuerRef: {kind: ClusterIssuer, name: cluster-issuer}}}",
            needs: Needs::SomeFacts,
            check: cert_shared_issuer,
        },
        Rule {
            id: "alias-known",
            effect: Refuse,
            on: CHANGES,
            what: "a certificate alias other than `server`, `client` and `metrics-exporter`",
            why: "Nothing would ever use the certificate; most often the alias is misspelt.",
            example: "tls: {certificates: [{alias: sever}]}",
            needs: Needs::Nothing,
            check: alias_known,
        },
        Rule {
            id: "alias-unique",
            effect: Refuse,
            on: CHANGES,
            what: "two entries for one alias",
            why: "Only one of them could take effect, and it would not be clear which.",
            example: "tls: {certificates: [{alias: server}, {alias: server}]}",
            needs: Needs::Nothing,
            check: alias_unique,
        },
        Rule {
            id: "secret-name-unique",
            effect: Refuse,
            on: CHANGES,
            what: "a certificate Secret, named or by default, that two aliases share, that pgrekey or the spec uses otherwise, that belongs to another database, or that holds the CA of an issuer",
            why: "Two writers of one Secret overwrite each other for ever, and cert-manager writes over whatever it finds. In which namespace the CA of a ClusterIssuer is, pgrekey does not know: its name is taken in all of them.",
            example: "tls: {certificates: [{alias: server, secretName: pg-certs}, {alias: client, secretName: pg-certs}]}",
            needs: Needs::SomeFacts,
            check: secret_name_unique,
        },
        Rule {
            id: "certificate-name-unique",
            effect: Refuse,
            on: CHANGES,
            what: "TLS for a database whose Certificates would have the names of another one's",
            why: "A name has at most 63 characters, so the end of a database's long name is cut off to make room: of 41 characters and more for `-metrics-exporter-cert`, of 51 for the others.",
            example: "# metadata.name: the same 41 characters as another database with TLS, and then something else",
            needs: Needs::Facts,
            check: certificate_name_unique,
        },
        Rule {
            id: "san-valid",
            effect: Refuse,
            on: CHANGES,
            what: "names that a certificate cannot carry, more than 250 of them, and more than 16 KiB: those of a request are counted with those that the database has",
            why: "cert-manager would refuse the Certificate in the middle of the operation; and a certificate that is too big ends handshakes, first with Java clients.",
            example: "tls: {certificates: [{alias: server, dnsNames: ['db.*.example.com'], ipAddresses: [10.0.0.256]}]}",
            needs: unchanged,
            check: san_valid,
        },
        Rule {
            id: "subject-valid",
            effect: Refuse,
            on: CHANGES,
            what: "subject values with control characters, empty ones, ones longer than X.520 allows, and countries that are not two letters",
            why: "The certificate could not be encoded, or other software would refuse it. Commas, quotes and equals signs are data, and fine.",
            example: "tls: {certificates: [{alias: client, subject: {countries: [Utopia]}}]}",
            needs: Needs::Nothing,
            check: subject_valid,
        },
        Rule {
            id: "duration-valid",
            effect: Refuse,
            on: CHANGES,
            what: "a `duration` that is no duration, or shorter than 1 h",
            why: "cert-manager issues nothing shorter.",
            example: "tls: {certificates: [{alias: server, duration: 30m}]}",
            needs: Needs::Nothing,
            check: duration_valid,
        },
        Rule {
            id: "renew-before-valid",
            effect: Refuse,
            on: CHANGES,
            what: "a `renewBefore` that is no duration, shorter than 5 min, or not shorter than the certificate's `duration`",
            why: "cert-manager refuses it, or would renew without end.",
            example: "tls: {certificates: [{alias: server, duration: 1h, renewBefore: 2h}]}",
            needs: unchanged,
            check: renew_before_valid,
        },
        Rule {
            id: "renew-before-deprecated",
            effect: Warn,
            on: CHANGES,
            what: "`renewBefore`, which KubeDB has deprecated",
            why: "It is honoured here; elsewhere it may not be.",
            example: "tls: {certificates: [{alias: server, duration: 24h, renewBefore: 8h}]}",
            needs: Needs::Nothing,
            check: renew_before_deprecated,
        },
        Rule {
            id: "secret-name-valid",
            effect: Refuse,
            on: CHANGES,
            what: "a certificate Secret whose name Kubernetes does not take",
            why: "cert-manager could not create it.",
            example: "tls: {certificates: [{alias: server, secretName: Server_Cert}]}",
            needs: Needs::Nothing,
            check: secret_name_valid,
        },
    ]
}

/// Every issuer that the object names, with its field.
fn issuers<'a>(view: &CertificateRequestView<'a>) -> Vec<(String, &'a IssuerRef)> {
    let own = view
        .issuer_ref
        .map(|issuer| ("spec.tls.issuerRef".to_owned(), issuer));
    let of_certificates = entries(view).filter_map(|(field, certificate)| {
        Some((
            format!("{field}.issuerRef"),
            certificate.issuer_ref.as_ref()?,
        ))
    });
    own.into_iter().chain(of_certificates).collect()
}

/// Every certificate of the object, with its field; of an endless list only the beginning.
fn entries<'a>(
    view: &CertificateRequestView<'a>,
) -> impl Iterator<Item = (String, &'a CertificateSpec)> + use<'a> {
    view.certificates
        .iter()
        .take(MAX_CERTIFICATES)
        .enumerate()
        .map(|(i, certificate)| (format!("spec.tls.certificates[{i}]"), certificate))
}

impl IssuerRef {
    /// The kind, `Issuer` if left out.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Issuer")
    }

    /// The API group, cert-manager's if left out.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_group.as_deref().unwrap_or(CERT_MANAGER_GROUP)
    }
}

fn kind_is_known(issuer: &IssuerRef) -> bool {
    matches!(issuer.kind(), "Issuer" | "ClusterIssuer")
}

fn issuer_kind<K>(review: &Review<K>, _: Option<&dyn ClusterFacts>, findings: &mut Findings)
where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, issuer) in issuers(&view)
        .into_iter()
        .filter(|(_, issuer)| !kind_is_known(issuer))
    {
        findings.add(
            format!("{field}.kind"),
            format!("{} is no kind of issuer", quoted(issuer.kind())),
            "use Issuer or ClusterIssuer",
        );
    }
}

fn issuer_group<K>(review: &Review<K>, _: Option<&dyn ClusterFacts>, findings: &mut Findings)
where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, issuer) in issuers(&view)
        .into_iter()
        .filter(|(_, issuer)| issuer.group() != CERT_MANAGER_GROUP)
    {
        findings.add(
            format!("{field}.apiGroup"),
            format!(
                "{} is not the group of cert-manager's issuers",
                quoted(issuer.group())
            ),
            format!("use {CERT_MANAGER_GROUP}, or leave it out"),
        );
    }
}

/// The conditions of an issuer, if it exists.
fn conditions(
    view: &CertificateRequestView<'_>,
    issuer: &IssuerRef,
    facts: &dyn ClusterFacts,
) -> Option<Vec<cert_manager::IssuanceCondition>> {
    let status = if issuer.kind() == "Issuer" {
        facts.issuer(view.namespace, &issuer.name)?.status.clone()
    } else {
        facts.cluster_issuer(&issuer.name)?.status.clone()
    };
    Some(status.map(|s| s.conditions).unwrap_or_default())
}

/// The issuers that cert-manager could have, if only they existed.
fn plausible<'a>(
    view: &CertificateRequestView<'a>,
) -> impl Iterator<Item = (String, &'a IssuerRef)> + use<'a> {
    issuers(view)
        .into_iter()
        .filter(|(_, issuer)| kind_is_known(issuer) && issuer.group() == CERT_MANAGER_GROUP)
}

fn issuer_exists<K>(review: &Review<K>, facts: Option<&dyn ClusterFacts>, findings: &mut Findings)
where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, issuer) in plausible(&view) {
        let name = &issuer.name;
        if name.is_empty() {
            findings.add(format!("{field}.name"), "is empty", "name the issuer");
            continue;
        }
        let Some(facts) = facts.filter(|facts| conditions(&view, issuer, *facts).is_none()) else {
            continue;
        };
        if facts.lacks(issuer.kind()) {
            findings.add(
                field,
                cert_manager::not_installed(issuer.kind()),
                cert_manager::INSTALL,
            );
            continue;
        }
        let missing = if issuer.kind() == "Issuer" {
            format!(
                "there is no Issuer {} in namespace {}",
                quoted(name),
                view.namespace
            )
        } else {
            format!("there is no ClusterIssuer {}", quoted(name))
        };
        findings.add(
            format!("{field}.name"),
            missing,
            near_miss(&view, issuer, facts),
        );
    }
}

/// What the author of a missing issuer may have meant.
fn near_miss(
    view: &CertificateRequestView<'_>,
    issuer: &IssuerRef,
    facts: &dyn ClusterFacts,
) -> String {
    let name = &issuer.name;
    if issuer.kind() == "ClusterIssuer" && facts.issuer(view.namespace, name).is_some() {
        return format!(
            "there is an Issuer of that name in {}: use kind: Issuer",
            view.namespace
        );
    }
    if issuer.kind() == "Issuer" && facts.cluster_issuer(name).is_some() {
        return "there is a ClusterIssuer of that name: use kind: ClusterIssuer".to_owned();
    }
    match facts.issuer_namespaces(name).first() {
        Some(elsewhere) if issuer.kind() == "Issuer" => {
            format!(
                "there is one in namespace {elsewhere}, which does not count: create it in {}, or use a ClusterIssuer",
                view.namespace
            )
        }
        _ => "create it first, or correct the name".to_owned(),
    }
}

fn issuer_not_ready<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let (Some(view), Some(facts)) = (review.tls(), facts) else {
        return;
    };
    for (field, issuer) in plausible(&view) {
        if conditions(&view, issuer, facts).is_some_and(|c| !cert_manager::holds(&c, "Ready")) {
            let problem = format!("{} {} is not Ready", issuer.kind(), quoted(&issuer.name));
            findings.add(field, problem, "the operation will wait for it");
        }
    }
}

fn cert_shared_issuer<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let (
        Some(view),
        Some(TargetTls {
            tls,
            client_auth_mode,
        }),
    ) = (review.tls(), review.wished_issuers(facts))
    else {
        return;
    };
    if client_auth_mode != Some(ClientAuthMode::Cert) {
        return;
    }
    let others = others(&view, facts);
    let used = issuers_of(&tls);
    for issuer in &used {
        let is_shared = issuer.kind() == "ClusterIssuer"
            || others
                .iter()
                .filter_map(|other| other.spec.tls.as_ref())
                .any(|tls| issuers_of(tls).contains(issuer));
        if is_shared {
            let problem = format!(
                "{} {} serves others too",
                quoted(issuer.kind()).trim_matches('"'),
                quoted(&issuer.name)
            );
            findings.add("spec.tls", problem, "whoever it signs for can be superuser");
        }
    }
}

/// Whom servers of this TLS believe, completed.
fn issuers_of(tls: &TlsConfig) -> BTreeSet<IssuerRef> {
    let own = tls
        .certificates
        .iter()
        .take(MAX_CERTIFICATES)
        .filter_map(|certificate| certificate.issuer_ref.as_ref());
    tls.issuer_ref
        .iter()
        .chain(own)
        .map(IssuerRef::completed)
        .collect()
}

fn alias_known<K>(review: &Review<K>, _: Option<&dyn ClusterFacts>, findings: &mut Findings)
where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, certificate) in entries(&view).filter(|(_, c)| Alias::parse(&c.alias).is_none()) {
        findings.add(
            format!("{field}.alias"),
            format!(
                "{} is no certificate of a Postgres",
                quoted(&certificate.alias)
            ),
            "use server, client or metrics-exporter",
        );
    }
}

fn alias_unique<K>(review: &Review<K>, _: Option<&dyn ClusterFacts>, findings: &mut Findings)
where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    let mut first = BTreeMap::new();
    for (field, certificate) in entries(&view) {
        if let Some(earlier) = first.get(&certificate.alias) {
            let problem = format!(
                "{} is the alias of {earlier} too",
                quoted(&certificate.alias)
            );
            findings.add(format!("{field}.alias"), problem, "merge the two entries");
        } else {
            first.insert(&certificate.alias, field);
        }
    }
}

fn secret_name_valid<K>(review: &Review<K>, _: Option<&dyn ClusterFacts>, findings: &mut Findings)
where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, certificate) in entries(&view) {
        if let Some(name) = certificate
            .secret_name
            .as_deref()
            .filter(|name| !text::is_object_name(name))
        {
            findings.add(
                format!("{field}.secretName"),
                format!("{} cannot be the name of a Secret", quoted(name)),
                "use lower-case letters, digits, hyphens and dots, or leave it out",
            );
        }
    }
}

/// The Secret of a certificate: what the entry says, else its default.
fn secret_of(database: &str, alias: Alias, certificates: &[CertificateSpec]) -> String {
    let entry = certificates.iter().find(|c| c.alias == alias.as_str());
    entry
        .and_then(|c| c.secret_name.clone())
        .unwrap_or_else(|| Names::new(database).certificate(alias))
}

/// The Secrets that a database uses besides those of its certificates, each with what is in it.
fn own_secrets(name: &str, database: Option<&Postgres>) -> Vec<(String, &'static str)> {
    const PASSWORD: &str = "the superuser's password";
    let auth = database.map(|database| database.spec.auth_secret_of(name));
    let names = Names::new(name);
    let made = [
        (names.auth_secret(), PASSWORD),
        (names.tls_secret(), "what the pods serve"),
        (names.patroni(), "the password of Patroni's REST API"),
    ];
    let spec = database.map(|database| &database.spec);
    let settings = spec.and_then(|spec| spec.configuration.as_ref()?.secret_name.clone());
    let scripts = spec.and_then(|spec| {
        spec.init
            .as_ref()?
            .script
            .as_ref()?
            .secret
            .as_ref()?
            .secret_name
            .clone()
    });
    let named = [
        (auth, PASSWORD),
        (settings, "settings"),
        (scripts, "init scripts"),
    ];
    named
        .into_iter()
        .filter_map(|(name, what)| Some((name?, what)))
        .chain(made)
        .collect()
}

/// Every Secret of another database, each with what for. Those of certificates only while it has
/// TLS.
fn secrets_of(database: &Postgres) -> Vec<(String, &'static str)> {
    let name = database.metadata.name.as_deref().unwrap_or_default();
    let certificates = database.spec.tls.as_ref().map(|tls| {
        Alias::ALL.map(|alias| (secret_of(name, alias, &tls.certificates), alias.as_str()))
    });
    own_secrets(name, Some(database))
        .into_iter()
        .chain(certificates.into_iter().flatten())
        .collect()
}

fn secret_name_unique<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    let unchanged = review.unchanged(facts);
    let kept = unchanged
        .as_ref()
        .and_then(|d| d.spec.tls.as_ref())
        .map_or(&[][..], |tls| &tls.certificates);
    // Where each alias' certificate will be: as the object says, else as it is, else by default.
    let will_be = Alias::ALL.map(|alias| {
        match view.certificates.iter().find(|c| c.alias == alias.as_str()) {
            Some(CertificateSpec {
                secret_name: Some(name),
                ..
            }) => (alias, name.clone()),
            _ => (alias, secret_of(view.database, alias, kept)),
        }
    });
    let own = own_secrets(view.database, unchanged.as_deref());
    let others = others(&view, facts);
    let of_issuers = facts.map_or(vec![], |facts| secrets_of_issuers(view.namespace, facts));
    let taken: BTreeMap<String, String> = others
        .iter()
        .flat_map(|other| {
            let name = other.metadata.name.as_deref().unwrap_or_default();
            let belongs =
                move |(secret, what)| (secret, format!("belongs to Postgres {name}: {what}"));
            secrets_of(other).into_iter().map(belongs)
        })
        .chain(
            of_issuers
                .iter()
                .map(|(secret, issuer)| (secret.clone(), format!("holds the CA of {issuer}"))),
        )
        .collect();
    let belongs = |secret: &str| taken.get(secret).cloned();
    let is_default = |alias: &str, secret: &str| {
        Alias::parse(alias)
            .is_some_and(|alias| Names::new(view.database).certificate(alias) == *secret)
    };
    let twin_of = |alias: &str, secret: &str| {
        will_be
            .iter()
            .find(|(other, name)| other.as_str() != alias && name == secret)
    };
    let is_shared =
        |(alias, _): &(Alias, String)| format!("is that of the {} certificate too", alias.as_str());
    let is_own = |secret: &str| {
        own.iter()
            .find(|(name, _)| name == secret)
            .map(|(_, what)| format!("holds {what}"))
    };
    for (field, certificate) in entries(&view) {
        let Some(secret) = certificate
            .secret_name
            .as_ref()
            .filter(|name| !name.is_empty())
        else {
            continue;
        };
        // A default that is written down, as the webhook does, is still one.
        if is_default(&certificate.alias, secret) {
            continue;
        }
        let twin = twin_of(&certificate.alias, secret).map(is_shared);
        for problem in [twin, is_own(secret), belongs(secret)]
            .into_iter()
            .flatten()
        {
            let problem = format!("Secret {} {problem}", quoted(secret));
            findings.add(
                format!("{field}.secretName"),
                problem,
                "choose another name, or leave it out",
            );
        }
    }
    let defaults = will_be
        .iter()
        .filter(|(alias, secret)| is_default(alias.as_str(), secret));
    for (alias, secret) in
        defaults.filter(|(alias, secret)| brings(&view, unchanged.as_deref(), *alias, secret))
    {
        // What this object says of the other alias is found there.
        let is_said = |(other, name): &&(Alias, String)| {
            view.certificates
                .iter()
                .any(|c| c.alias == other.as_str() && c.secret_name.as_ref() == Some(name))
        };
        let twin = twin_of(alias.as_str(), secret)
            .filter(|twin| !is_said(twin))
            .map(is_shared);
        // Two defaults of one name are those of Certificates too, for which there is a rule.
        let is_named = others.iter().any(|other| names_secret(other, secret))
            || of_issuers.iter().any(|(ca, _)| ca == secret);
        for problem in [twin, is_own(secret), belongs(secret).filter(|_| is_named)]
            .into_iter()
            .flatten()
        {
            let problem = format!(
                "Secret {} of the {} certificate {problem}",
                quoted(secret),
                alias.as_str()
            );
            findings.add("spec.tls", problem, "name another secretName for it");
        }
    }
}

/// The Secrets of the CAs by which issuers sign, each with its issuer.
fn secrets_of_issuers(namespace: &str, facts: &dyn ClusterFacts) -> Vec<(String, String)> {
    let issuers = facts.issuers(namespace);
    let of_namespace = issuers
        .iter()
        .map(|issuer| (&issuer.metadata, &issuer.spec.ca, "Issuer"));
    let cluster_issuers = facts.cluster_issuers();
    let of_cluster = cluster_issuers
        .iter()
        .map(|issuer| (&issuer.metadata, &issuer.spec.ca, "ClusterIssuer"));
    let named = |(metadata, ca, kind): (&ObjectMeta, &Option<CaIssuer>, &str)| {
        let name = metadata.name.as_deref().unwrap_or_default();
        Some((ca.as_ref()?.secret_name.clone(), format!("{kind} {name}")))
    };
    of_namespace.chain(of_cluster).filter_map(named).collect()
}

/// The other databases of the namespace.
fn others(
    view: &CertificateRequestView<'_>,
    facts: Option<&dyn ClusterFacts>,
) -> Vec<Arc<Postgres>> {
    let mut others = facts.map_or(vec![], |facts| facts.databases(view.namespace));
    others.retain(|other| other.metadata.name.as_deref() != Some(view.database));
    others
}

/// Whether the object brings TLS to a database that has none. Without a name yet, nothing is called
/// after it.
fn brings_tls(view: &CertificateRequestView<'_>, unchanged: Option<&Postgres>) -> bool {
    !view.database.is_empty() && unchanged.is_some_and(|database| database.spec.tls.is_none())
}

/// Whether the object brings this Secret to a certificate that had none or another.
fn brings(
    view: &CertificateRequestView<'_>,
    unchanged: Option<&Postgres>,
    alias: Alias,
    secret: &str,
) -> bool {
    let had = unchanged.and_then(|database| database.spec.tls.as_ref());
    brings_tls(view, unchanged)
        || had.is_some_and(|tls| secret_of(view.database, alias, &tls.certificates) != secret)
}

/// Whether a database uses this Secret because somebody said so.
fn names_secret(database: &Postgres, secret: &str) -> bool {
    let name = database.metadata.name.as_deref().unwrap_or_default();
    let by_default = Alias::ALL.map(|alias| Names::new(name).certificate(alias));
    secrets_of(database)
        .iter()
        .any(|(used, _)| used == secret && !by_default.contains(used))
}

fn certificate_name_unique<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    if !brings_tls(&view, review.unchanged(facts).as_deref()) {
        return;
    }
    for other in others(&view, facts)
        .iter()
        .filter(|other| other.spec.tls.is_some())
    {
        let name = other.metadata.name.as_deref().unwrap_or_default();
        let theirs = Alias::ALL.map(|alias| Names::new(name).certificate(alias));
        for own in Alias::ALL.map(|alias| Names::new(view.database).certificate(alias)) {
            if theirs.contains(&own) {
                let problem = format!(
                    "Certificate {} is that of Postgres {name} too",
                    quoted(&own)
                );
                let remedy =
                    "use a database whose name differs earlier: the end of a long one is cut off";
                findings.add(view.named_at, problem, remedy);
            }
        }
    }
}

fn san_valid<K>(review: &Review<K>, facts: Option<&dyn ClusterFacts>, findings: &mut Findings)
where
    Review<K>: HasTls,
{
    type IsValid = fn(&str) -> bool;
    let Some(view) = review.tls() else { return };
    let wished = if review.is_merged(facts) {
        review.wished(facts)
    } else {
        None
    };
    for (field, certificate) in entries(&view) {
        let lists: [(&str, &[String], IsValid, &str); 4] = [
            (
                "dnsNames",
                &certificate.dns_names,
                text::is_dns_name,
                "is no DNS name; use one such as db.example.com or *.example.com",
            ),
            (
                "ipAddresses",
                &certificate.ip_addresses,
                text::is_ip_address,
                "is no IP address; use one such as 192.0.2.1 or 2001:db8::1",
            ),
            (
                "uris",
                &certificate.uris,
                text::is_uri,
                "is no URI with scheme and host; use one such as spiffe://example.com/db",
            ),
            (
                "emailAddresses",
                &certificate.email_addresses,
                text::is_email,
                "is no e-mail address; use one such as dba@example.com",
            ),
        ];
        let whole = wished
            .as_ref()
            .and_then(|wished| wished.tls.certificate(&certificate.alias));
        if let Some(problem) = certificate
            .too_many_names()
            .or_else(|| whole?.too_many_names())
        {
            findings.add(&field, problem, "name fewer; a wildcard covers many");
            continue;
        }
        for (key, list, is_valid, words) in lists {
            let (problem, remedy) = words.split_once("; ").unwrap_or((words, ""));
            for (i, name) in list.iter().enumerate().filter(|(_, name)| !is_valid(name)) {
                findings.add(
                    format!("{field}.{key}[{i}]"),
                    format!("{} {problem}", quoted(name)),
                    remedy,
                );
            }
        }
    }
}

/// The attributes of a subject with the longest value that X.520 allows (upper bounds, ITU-T X.520
/// annex C; postal code and street: X.411), in characters.
fn subject_lists(subject: &X509Subject) -> [(&'static str, &[String], usize); 6] {
    [
        ("organizations", &subject.organizations, 64),
        ("organizationalUnits", &subject.organizational_units, 64),
        ("localities", &subject.localities, 128),
        ("provinces", &subject.provinces, 128),
        ("streetAddresses", &subject.street_addresses, 128),
        ("postalCodes", &subject.postal_codes, 40),
    ]
}

fn subject_valid<K>(review: &Review<K>, _: Option<&dyn ClusterFacts>, findings: &mut Findings)
where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, certificate) in entries(&view) {
        let Some(subject) = &certificate.subject else {
            continue;
        };
        for (key, values, longest) in subject_lists(subject) {
            for (i, value) in values.iter().enumerate() {
                subject_value(
                    &format!("{field}.subject.{key}[{i}]"),
                    value,
                    longest,
                    findings,
                );
            }
        }
        for (i, country) in subject.countries.iter().enumerate() {
            if !(country.len() == 2 && country.bytes().all(|b| b.is_ascii_alphabetic())) {
                let problem = format!("{} is no country", quoted(country));
                findings.add(
                    format!("{field}.subject.countries[{i}]"),
                    problem,
                    "use its two letters, such as DE",
                );
            }
        }
        if let Some(value) = &subject.serial_number {
            subject_value(
                &format!("{field}.subject.serialNumber"),
                value,
                64,
                findings,
            );
        }
    }
}

fn subject_value(field: &str, value: &str, longest: usize, findings: &mut Findings) {
    let length = value.chars().count();
    if value.is_empty() {
        findings.add(field, "is empty", "give a value, or leave it out");
    } else if value.chars().any(char::is_control) {
        findings.add(
            field,
            format!("{} has control characters", quoted(value)),
            "remove them",
        );
    } else if length > longest {
        findings.add(
            field,
            format!("{} has {length} characters", quoted(value)),
            format!("use at most {longest}"),
        );
    }
}

/// Reads a duration, or notes what is wrong with it.
pub(super) fn read_duration(
    field: &str,
    text: &str,
    example: &str,
    findings: &mut Findings,
) -> Option<Duration> {
    let problem = match duration::parse(text) {
        Ok(duration) => return Some(duration),
        Err(problem) => format!("{} {problem}", quoted(text)),
    };
    findings.add(field, problem, format!("use a duration such as {example}"));
    None
}

fn duration_valid<K>(review: &Review<K>, _: Option<&dyn ClusterFacts>, findings: &mut Findings)
where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, certificate) in entries(&view) {
        let Some(text) = &certificate.duration else {
            continue;
        };
        let field = format!("{field}.duration");
        if read_duration(&field, text, "2160h", findings).is_some_and(|d| d < MIN_DURATION) {
            findings.add(
                field,
                format!("{} is too short", quoted(text)),
                "use at least 1h",
            );
        }
    }
}

fn renew_before_valid<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    let unchanged = review.unchanged(facts);
    for (field, certificate) in entries(&view) {
        let field = format!("{field}.renewBefore");
        let kept = unchanged
            .as_ref()
            .and_then(|d| d.spec.tls.as_ref())
            .and_then(|t| t.certificate(&certificate.alias));
        // What the entry leaves out stays as it is in the database, so either of the two may come
        // from there.
        let life = match certificate
            .duration
            .as_ref()
            .or(kept.and_then(|c| c.duration.as_ref()))
        {
            None => Some(DEFAULT_DURATION),
            Some(text) => duration::parse(text).ok(),
        };
        let (renew_before, text) = match (
            &certificate.renew_before,
            kept.and_then(|c| c.renew_before.as_ref()),
        ) {
            (Some(text), _) => (read_duration(&field, text, "720h", findings), quoted(text)),
            (None, Some(text)) if certificate.duration.is_some() => (
                duration::parse(text).ok(),
                format!("is left out, and the database's {}", quoted(text)),
            ),
            _ => continue,
        };
        let Some(renew_before) = renew_before else {
            continue;
        };
        if certificate.renew_before.is_some() && renew_before < MIN_RENEW_BEFORE {
            findings.add(&field, format!("{text} is too short"), "use at least 5m");
        }
        if let Some(life) = life.filter(|life| renew_before >= *life) {
            let problem = format!(
                "{text} is not shorter than the certificate's life of {}",
                duration::write(life)
            );
            findings.add(&field, problem, "use less, or a longer duration");
        }
    }
}

fn renew_before_deprecated<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, _) in entries(&view).filter(|(_, c)| c.renew_before.is_some()) {
        findings.add(
            format!("{field}.renewBefore"),
            "is deprecated in KubeDB",
            "rotate by request instead",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Snapshot, judge, postgres};

    #[test]
    fn who_asks_for_tls_where_there_is_no_cert_manager_is_told_so() {
        let said = |spec: &str, lacks: &[&'static str]| {
            let mut object = Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
            object.metadata.namespace = Some("demo".to_owned());
            let facts = Snapshot {
                lacks: lacks.to_vec(),
                ..Snapshot::default()
            };
            let review = Review::create(object, Arc::default());
            let mut found = judge(postgres::rules(), &review, Some(&facts));
            found.retain(|finding| finding.rule == "issuer-exists");
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let secure = "{version: '17', tls: {issuerRef: {name: i}}}";
        let missing = "[issuer-exists] spec.tls.issuerRef: cert-manager is not installed: kind Issuer of cert-manager.io is \
            unknown to this cluster; install cert-manager; pgrekey sees it by itself, within half a minute";
        assert_eq!(said(secure, &["Issuer"]), [missing]);
        assert!(said(secure, &["ClusterIssuer"])[0].contains("there is no Issuer \"i\""));
        assert!(said("{version: '17'}", &["Issuer", "ClusterIssuer"]).is_empty());
    }
}
