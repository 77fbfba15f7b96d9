//! The simulated world as a whole.

mod boot;
mod histories;
mod scripts;
mod seeds;
mod wan;
