//! The simulated world as a whole.

mod boot;
mod disks;
mod histories;
mod scripts;
mod seeds;
mod wan;
