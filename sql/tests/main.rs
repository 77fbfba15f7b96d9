//! Statements as clients send them, over a whole engine on the twin of the range servers.

mod append;
mod block_words;
mod blocks;
mod clients;
mod contention;
mod copies;
mod ddl;
mod foreign_keys;
mod history;
mod isolation;
mod limits;
mod plans;
mod psql;
mod rerun;
mod schema;
mod scripts;
mod sequences;
mod truncate;
mod world;
