//! What a user can do wrong: each gets a clear error, and nothing is lost.
