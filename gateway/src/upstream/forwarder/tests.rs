//! The forwarder's promises, with an upstream in memory that loses, delays and refuses.
//! The tests are the core's driver.

mod acknowledging;
mod gate;
mod order;
mod poison;
mod random;
mod reading;

mod sim;
