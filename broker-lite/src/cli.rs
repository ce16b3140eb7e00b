//! The program's commands beside serving. Shell.

pub(crate) mod passwd;
mod terminal;
