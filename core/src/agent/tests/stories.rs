//! Stories, told one step at a time.
