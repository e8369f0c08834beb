//! A store on a cluster keeps the contracts.

use crate::support::Cluster;

event_core::store_contract_tests!(Cluster::take());

mod parallel {
    use super::*;

    event_core::parallel_contract_tests!(Cluster::take());
}

mod subscriptions {
    use super::*;

    event_core::subscription_contract_tests!(Cluster::take());
}
