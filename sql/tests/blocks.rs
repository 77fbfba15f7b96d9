//! What a block leaves behind when it fails or is rolled back, whole or to a savepoint: plans, locks, cursors, settings, and what others
//! are told.

use crate::world::TestCluster;
use sql::Next;

/// Drafts of a catalog after a rollback to a savepoint have the number of those before it.
#[test]
fn a_plan_of_what_was_rolled_back_is_not_used_again() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions("SELECT 1");
    let answer = cluster.run(
        &mut session,
        "BEGIN; CREATE TABLE q (id int PRIMARY KEY, a int); SAVEPOINT s; ALTER TABLE q ADD COLUMN b int; \
         PREPARE i (int) AS INSERT INTO q VALUES ($1, $1, $1); EXECUTE i (1); \
         ROLLBACK TO s; ALTER TABLE q ADD COLUMN c text NOT NULL DEFAULT 'x'; EXECUTE i (2); COMMIT",
    );
    assert!(!answer.contains("ERROR"), "{answer}");
    assert_eq!(cluster.run(&mut session, "SELECT c || 'y' AS c FROM q"), "c\n2y\n");
    // Another table under the number of the one that is gone.
    let answer = cluster.run(
        &mut session,
        "BEGIN; SAVEPOINT s; CREATE TABLE one (id int PRIMARY KEY, a int); \
         PREPARE j AS INSERT INTO one VALUES (1, NULL); EXECUTE j; ROLLBACK TO s; \
         CREATE TABLE two (id int PRIMARY KEY, a int NOT NULL); EXECUTE j",
    );
    assert!(answer.contains("[42P01]"), "{answer}");
    cluster.run(&mut session, "ROLLBACK");
}

/// The same of a statement that the protocol prepares.
#[test]
fn a_named_statement_is_planned_again_after_a_rollback_to_a_savepoint() {
    let (cluster, mut session, _) = TestCluster::with_two_sessions("SELECT 1");
    let setup = "BEGIN; CREATE TABLE q (id int PRIMARY KEY, a int); SAVEPOINT s; ALTER TABLE q ADD COLUMN b int";
    assert!(!cluster.run(&mut session, setup).contains("ERROR"));
    cluster.world.block_on(async {
        session.parse("i", "INSERT INTO q VALUES (1, 1, 1)", &[]).await.expect("parses");
    });
    let change = "ROLLBACK TO s; ALTER TABLE q ADD COLUMN c text NOT NULL DEFAULT 'x'";
    assert!(!cluster.run(&mut session, change).contains("ERROR"));
    cluster.world.block_on(async {
        session.bind("", "i", Vec::new(), &[], &[]).await.expect("binds");
        session.execute("", 0, Next::Unknown).await.expect("executes");
    });
    assert_eq!(cluster.run(&mut session, "COMMIT"), "COMMIT\n");
    assert_eq!(cluster.run(&mut session, "SELECT c || 'y' AS c FROM q"), "c\n1y\n");
}
