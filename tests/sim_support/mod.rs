//! The real code over a simulated bucket, with virtual clocks, in a run that follows from its seed.
//!
//! `scenario::run` is one run: agents (`agent`) whose processes do `action`s through `client`s on one `bucket`. What
//! goes wrong, and how often, is the `plan`'s; what was promised is the `model`'s. A further verb is a further
//! `action::Action`.

pub(crate) mod action;
pub(crate) mod agent;
pub(crate) mod bucket;
pub(crate) mod client;
pub(crate) mod decide;
pub(crate) mod model;
pub(crate) mod plan;
pub(crate) mod random;
pub(crate) mod scenario;
pub(crate) mod seeds;
pub(crate) mod world;
