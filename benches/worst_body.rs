//! Reviews that cost the most memory for what they are: lists without end of what takes three bytes
//! to write and hundreds to keep.

/// What is repeated, where: the text of an object around the place of the entries (`@`), and an
/// entry (`#` is its number).
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    kind: (&'static str, &'static str, &'static str),
    object: &'static str,
    entry: &'static str,
}

const POSTGRES: (&str, &str, &str) = ("kubedb.com", "v1", "Postgres");
const REQUEST: (&str, &str, &str) = ("ops.kubedb.com", "v1alpha1", "PostgresOpsRequest");

const fn postgres(name: &'static str, object: &'static str, entry: &'static str) -> Shape {
    Shape {
        name,
        kind: POSTGRES,
        object,
        entry,
    }
}

const fn request(name: &'static str, object: &'static str, entry: &'static str) -> Shape {
    Shape {
        name,
        kind: REQUEST,
        object,
        entry,
    }
}

pub(crate) const SHAPES: &[Shape] = &[
    postgres(
        "managed fields",
        r#""metadata":{"name":"a","managedFields":[@]},"spec":{"version":"17""#,
        "{}",
    ),
    postgres(
        "deep managed fields",
        r#""metadata":{"name":"a","managedFields":[@]},"spec":{"version":"17""#,
        r#"{"fieldsV1":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{}}}}}}}}}}"#,
    ),
    postgres(
        "annotations",
        r#""metadata":{"name":"a","annotations":{@}},"spec":{"version":"17""#,
        r##""#":"""##,
    ),
    postgres(
        "owners",
        r#""metadata":{"name":"a","ownerReferences":[@]},"spec":{"version":"17""#,
        r#"{"apiVersion":"","kind":"","name":"","uid":""}"#,
    ),
    postgres(
        "conditions",
        r#""metadata":{"name":"a"},"status":{"conditions":[@]},"spec":{"version":"17""#,
        r#"{"type":"","status":"","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"","message":""}"#,
    ),
    postgres(
        "variables",
        r#""metadata":{"name":"a"},"spec":{"version":"17","podTemplate":{"spec":{"containers":[{"name":"postgres","env":[@]}]}}"#,
        "{}",
    ),
    postgres(
        "containers",
        r#""metadata":{"name":"a"},"spec":{"version":"17","podTemplate":{"spec":{"containers":[@]}}"#,
        r#"{"name":""}"#,
    ),
    postgres(
        "containers with variables",
        r#""metadata":{"name":"a"},"spec":{"version":"17","podTemplate":{"spec":{"containers":[@]}}"#,
        r#"{"name":"","env":[{}]}"#,
    ),
    postgres(
        "tolerations",
        r#""metadata":{"name":"a"},"spec":{"version":"17","podTemplate":{"spec":{"tolerations":[@]}}"#,
        "{}",
    ),
    postgres(
        "spreading",
        r#""metadata":{"name":"a"},"spec":{"version":"17","podTemplate":{"spec":{"topologySpreadConstraints":[@]}}"#,
        "{}",
    ),
    postgres(
        "affinity",
        r#""metadata":{"name":"a"},"spec":{"version":"17","podTemplate":{"spec":{"affinity":{"podAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[@]}}}}"#,
        "{}",
    ),
    postgres(
        "node selector",
        r#""metadata":{"name":"a"},"spec":{"version":"17","podTemplate":{"spec":{"nodeSelector":{@}}}"#,
        r##""#":"""##,
    ),
    postgres(
        "Services",
        r#""metadata":{"name":"a"},"spec":{"version":"17","serviceTemplates":[@]"#,
        r#"{"alias":"stats"}"#,
    ),
    postgres(
        "Services with labels",
        r#""metadata":{"name":"a"},"spec":{"version":"17","serviceTemplates":[@]"#,
        r#"{"alias":"stats","metadata":{"labels":{"a":""}},"spec":{"ports":[]}}"#,
    ),
    postgres(
        "settings",
        r#""metadata":{"name":"a"},"spec":{"version":"17","configuration":{"inline":{@}}"#,
        r##""#":"""##,
    ),
    postgres(
        "certificates",
        r#""metadata":{"name":"a"},"spec":{"version":"17","tls":{"certificates":[@]}"#,
        r#"{"alias":""}"#,
    ),
    postgres(
        "subjects",
        r#""metadata":{"name":"a"},"spec":{"version":"17","tls":{"certificates":[@]}"#,
        r#"{"alias":"","subject":{},"issuerRef":{"name":""}}"#,
    ),
    postgres(
        "names",
        r#""metadata":{"name":"a"},"spec":{"version":"17","tls":{"issuerRef":{"name":"i"},"certificates":[{"alias":"server","dnsNames":[@]}]}"#,
        r##""#""##,
    ),
    request(
        "names of a request",
        r#""metadata":{"name":"a"},"spec":{"type":"ReconfigureTLS","databaseRef":{"name":"b"},"tls":{"issuerRef":{"name":"i"},"certificates":[{"alias":"server","dnsNames":[@]}]}"#,
        r##""#""##,
    ),
    request(
        "certificates of a request",
        r#""metadata":{"name":"a"},"spec":{"type":"ReconfigureTLS","databaseRef":{"name":"b"},"tls":{"certificates":[@]}"#,
        r#"{"alias":""}"#,
    ),
    request(
        "opaque lists",
        r#""metadata":{"name":"a"},"spec":{"type":"Restart","databaseRef":{"name":"b"},"migration":{"a":[@]}"#,
        r#"{"a":0}"#,
    ),
    request(
        "opaque objects",
        r#""metadata":{"name":"a"},"spec":{"type":"Restart","databaseRef":{"name":"b"},"migration":{@}"#,
        r##""#":{"a":{"a":{"a":{"a":0}}}}"##,
    ),
    request(
        "opaque nothings",
        r#""metadata":{"name":"a"},"spec":{"type":"Restart","databaseRef":{"name":"b"},"migration":{"a":[@]}"#,
        "0",
    ),
];

impl Shape {
    /// The path of its webhook that begins with this.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind.2
    }

    fn object(&self, entries: usize, filler: usize, more: &str) -> String {
        let list: Vec<String> = (0..entries)
            .map(|i| self.entry.replace('#', &i.to_string()))
            .collect();
        let object = self.object.replacen('@', &list.join(","), 1);
        let (group, version, kind) = self.kind;
        let filler = "x".repeat(filler);
        format!(
            r#"{{"apiVersion":"{group}/{version}","kind":"{kind}",{object},"timeout":"{filler}"{more}}}}}"#
        )
    }

    /// An update of an object with so many entries and so many bytes of text.
    pub(crate) fn update(&self, entries: usize, filler: usize) -> Vec<u8> {
        let (group, version, kind) = self.kind;
        let [new, old] = [r#","halted":true,"maxRetries":1"#, r#","maxRetries":2"#]
            .map(|more| self.object(entries, filler, more));
        format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","operation":"UPDATE","namespace":"demo","kind":{{"group":"{group}","version":"{version}","kind":"{kind}"}},"oldObject":{old},"object":{new}}}}}"#
        )
        .into_bytes()
    }

    /// How many entries have so many values, as the server counts them.
    pub(crate) fn entries(&self, values: usize) -> usize {
        let each = 1 + self
            .entry
            .bytes()
            .filter(|byte| matches!(byte, b'{' | b'[' | b','))
            .count();
        values / each
    }
}
