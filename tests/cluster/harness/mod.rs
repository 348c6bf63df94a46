//! What the tests of the cluster share.
//!
//! [`cluster`] connects, [`turns`] says who runs beside whom, [`namespace`] is where one test works, [`controllers`] and
//! [`operator`] run pgrekey with the [`rights`] of the chart, and [`installed`] the chart itself.
//! [`postgres`] makes databases and requests; [`client`] and [`traffic`] are users' programs.
//! [`vault`] and [`signer`] play issuers that the dev cluster does not have.

mod client;
mod cluster;
mod controllers;
mod installed;
mod json_path;
mod namespace;
mod operator;
mod pki;
mod postgres;
mod report;
mod rights;
mod sample;
mod signer;
mod traffic;
mod turns;
mod vault;

pub(crate) use self::client::Known;
pub(crate) use self::cluster::{Answer, Cluster, definitions, eventually, kubectl, pgrekey};
pub(crate) use self::controllers::Controllers;
pub(crate) use self::installed::Installed;
pub(crate) use self::namespace::{TestNamespace, names};
pub(crate) use self::operator::{Installation, Operator, Registration, UNSEEN};
pub(crate) use self::pki::{Ca, ca, ca_below, ca_secret, ca_until, leaf, leaf_until};
pub(crate) use self::postgres::{
    ended, example, install, issuers, primary, psql, read_example, secret, show, steps, tutorial,
    uids, version_of_the_chart, versions, whole_secret,
};
pub(crate) use self::rights::{OPERATOR, Rights};
pub(crate) use self::sample::{one_of_each, sample_or_all};
pub(crate) use self::signer::{Form, Policy, Signer};
pub(crate) use self::traffic::{Traffic, Writes};
pub(crate) use self::turns::Seat;
pub(crate) use self::vault::{Mount, Role, Vault};
