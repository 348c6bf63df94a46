//! Reads the objects in which the posture of a cluster is written.

use crate::build::Cluster;
use crate::build::current_posture::{PostureObjects, PostureUnknown};
use crate::cluster::{Error, Objects};
use crate::controller::outcome::{Interrupt, Pending};

/// Reads the objects of a cluster in which its posture is written.
pub(crate) async fn fetch(objects: &Objects, cluster: &Cluster) -> Result<PostureObjects, Error> {
    let shared = cluster.names().patroni_config_maps().config;
    Ok(PostureObjects {
        tls: objects.get(&cluster.names().tls_secret()).await?,
        shared: objects.get(&shared).await?,
        patroni: objects.get(&cluster.names().patroni()).await?,
        pet_set: objects.get(cluster.name()).await?,
    })
}

impl From<PostureUnknown> for Interrupt {
    fn from(unknown: PostureUnknown) -> Self {
        match unknown {
            PostureUnknown::NotIssued => Self::Wait(Pending::Certificates),
            PostureUnknown::Lost(why) => Self::Blocked("PostureUnknown", why),
        }
    }
}
