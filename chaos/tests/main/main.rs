//! The simulated world as a whole.

mod boot;
mod scripts;
mod seeds;
