//! CRD schemas, where the derived schema is not good enough.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An object whose content pgrekey does not read.
///
/// It stands for the fields of other KubeDB operations. If a request uses one of them, the
/// admission rules say that it is in the wrong place; the schema would only say that it does not
/// exist.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(transparent)]
pub struct Opaque(pub Map<String, Value>);

impl JsonSchema for Opaque {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Opaque".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        opaque_object(generator)
    }
}

/// The schema of an object with any content. It replaces Kubernetes' own large types: their full
/// schema would make a CRD larger than the 256 KiB that `kubectl apply` can store in its
/// last-applied annotation.
pub(crate) fn opaque_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// The schema of a list of such objects; see [`opaque_object`].
pub(crate) fn opaque_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } })
}

/// Drops `nullable`, which the derived schemas have on every optional field.
///
/// KubeDB's fields are optional, not nullable. With `nullable` the API server would store a `null`
/// and return it, where users expect no field.
pub(crate) fn without_nullable(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        {
            drop_nullable(schema);
        }
    }
    crd
}

/// The most entries of a list or map, and the most characters of a text, unless [`BOUNDS`] has
/// another limit.
const MANY: i64 = 256;
const LONG: i64 = 1024;

/// Longest value of an environment variable, an argument or an annotation. Some hold whole
/// documents.
const DOCUMENT: i64 = 32 * 1024;

/// Other limits, by path: `[]` is any item of a list, `.*` any value of a map. A stricter rule says
/// so in better words. Objects that an older release stored must stay writable, or their finalizers
/// could not be removed.
const BOUNDS: [(&str, i64); 14] = [
    ("spec.configuration.inline", 8),
    ("spec.configuration.inline.*", 64 * 1024),
    ("spec.monitor.prometheus.exporter.args[]", DOCUMENT),
    ("spec.monitor.prometheus.exporter.env[].value", DOCUMENT),
    ("spec.podTemplate.metadata.annotations.*", DOCUMENT),
    ("spec.podTemplate.spec.containers", 16),
    ("spec.podTemplate.spec.containers[].env[].value", DOCUMENT),
    ("spec.serviceTemplates", 16),
    ("spec.serviceTemplates[].metadata.annotations.*", DOCUMENT),
    ("spec.tls.certificates", 16),
    ("spec.tls.certificates[].dnsNames", 1000),
    ("spec.tls.certificates[].emailAddresses", 1000),
    ("spec.tls.certificates[].ipAddresses", 1000),
    ("spec.tls.certificates[].uris", 1000),
];

/// Gives every text, list and map of a spec a limit. Programs write the status, and limit it
/// themselves.
pub(crate) fn bounded(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = crd
        .spec
        .versions
        .iter_mut()
        .filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    for spec in schemas.filter_map(|schema| schema.properties.as_mut()?.get_mut("spec")) {
        bound(spec, "spec");
    }
    crd
}

fn bound(schema: &mut JSONSchemaProps, path: &str) {
    let most = |other: i64| {
        Some(
            BOUNDS
                .iter()
                .find(|(known, _)| *known == path)
                .map_or(other, |(_, most)| *most),
        )
    };
    match schema.type_.as_deref() {
        Some("array") => schema.max_items = schema.max_items.or(most(MANY)),
        Some("string") if schema.enum_.is_none() && schema.format.is_none() => {
            schema.max_length = schema.max_length.or(most(LONG));
        }
        _ => {}
    }
    for (name, property) in schema.properties.iter_mut().flatten() {
        bound(property, &format!("{path}.{name}"));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        bound(items, &format!("{path}[]"));
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        schema.max_properties = schema.max_properties.or(most(MANY));
        bound(values, &format!("{path}.*"));
    }
}

fn drop_nullable(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        drop_nullable(property);
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(items)) => drop_nullable(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(drop_nullable),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        drop_nullable(values);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The path of every text, list and map that has no limit.
    fn unbounded(
        schema: &JSONSchemaProps,
        path: &str,
        found: &mut Vec<String>,
        paths: &mut BTreeSet<String>,
    ) {
        paths.insert(path.to_owned());
        let is_bounded = match (schema.type_.as_deref(), &schema.additional_properties) {
            (Some("string"), _) => {
                schema.max_length.is_some() || schema.enum_.is_some() || schema.format.is_some()
            }
            (Some("array"), _) => schema.max_items.is_some(),
            (_, Some(_)) => schema.max_properties.is_some(),
            _ => true,
        };
        if !is_bounded {
            found.push(path.to_owned());
        }
        for (name, property) in schema.properties.iter().flatten() {
            unbounded(property, &format!("{path}.{name}"), found, paths);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            unbounded(items, &format!("{path}[]"), found, paths);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            unbounded(values, &format!("{path}.*"), found, paths);
        }
    }

    #[test]
    fn nothing_in_a_spec_is_without_bound_and_every_exception_is_a_field() {
        let (mut found, mut paths) = (vec![], BTreeSet::new());
        for crd in crate::api::crds() {
            for schema in crd
                .spec
                .versions
                .iter()
                .filter_map(|version| version.schema.as_ref())
            {
                let schema = schema.open_api_v3_schema.as_ref().expect("a schema");
                let spec = &schema.properties.as_ref().expect("properties")["spec"];
                unbounded(spec, "spec", &mut found, &mut paths);
            }
        }
        assert_eq!(found, Vec::<String>::new());
        for (path, _) in BOUNDS {
            assert!(paths.contains(path), "{path}");
        }
    }
}
