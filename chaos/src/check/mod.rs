//! Judges of histories. Each takes what clients saw, knows nothing of the database, and says what is wrong or nothing.
//!
//! | judge | what it accepts |
//! |---|---|
//! | [`append`] | transactions over lists that could have run one after another (in an order that real time allows) |
//! | [`register`] | single registers that behave as one copy |
//! | [`bank`] | transfers of which every acknowledged one happened once, every failed one never |

pub mod append;
pub mod bank;
pub mod register;
