use k8s_openapi::api::core::v1::ConfigMap;

use super::*;
use crate::api::cert_manager::{CertManagerCertificateSpec, Certificate};
use crate::cluster::optional::tests::Fake;

fn objects(cluster: &Fake) -> Objects {
    let mut owner = ConfigMap::default();
    let metadata = json!({"name": "pg", "namespace": "demo", "uid": "1"});
    owner.metadata = serde_json::from_value(metadata).expect("metadata");
    Objects::owned_by(&cluster.client(), &owner, BTreeMap::new()).expect("an owner")
}

#[tokio::test]
async fn without_cert_manager_its_kinds_have_no_objects_and_none_can_be_created() {
    let objects = objects(&Fake::without("/apis/cert-manager.io/"));
    assert_eq!(
        objects.get::<Certificate>("pg").await.expect("an answer"),
        None
    );
    let certificate = Certificate::new("pg", CertManagerCertificateSpec::default());
    assert!(
        !objects
            .delete::<Certificate>("pg")
            .await
            .expect("an answer")
    );
    assert!(objects.delete_seen(&certificate).await.is_ok());
    assert!(matches!(
        objects.apply(certificate).await,
        Err(Error::UnknownKind(_))
    ));
    // The absence of a kind of Kubernetes' own is an error.
    let without = self::objects(&Fake::without("/configmaps"));
    assert!(matches!(
        without.get::<ConfigMap>("pg").await,
        Err(Error::UnknownKind(_))
    ));
}

#[test]
fn an_apply_is_bound_to_the_object_that_was_read() {
    let bound = |live: Option<&ObjectMeta>| {
        let mut body = json!({"metadata": {"name": "pg"}});
        bind(&mut body, live);
        body
    };
    let live = ObjectMeta {
        uid: Some("1".to_owned()),
        ..ObjectMeta::default()
    };
    assert_eq!(
        bound(Some(&live)),
        json!({"metadata": {"name": "pg", "uid": "1"}})
    );
    assert_eq!(
        bound(None),
        json!({"metadata": {"name": "pg", "resourceVersion": "1"}})
    );
}
