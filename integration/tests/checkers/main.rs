//! Tests of the checkers: legal histories pass, planted violations do not, and the search agrees
//! with one that tries all orders.
#![allow(clippy::unwrap_used)]

mod legal;
mod oracle;
mod planted;
mod reference;
