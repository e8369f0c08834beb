//! A store on a cluster keeps the contracts.

use crate::support::Cluster;

event_core::store_contract_tests!(Cluster::take());

event_core::parallel_contract_tests!(Cluster::take());

event_core::subscription_contract_tests!(Cluster::take());
