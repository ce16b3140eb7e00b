//! Promises to the customer, kept by real processes.
