//! The job spec.
