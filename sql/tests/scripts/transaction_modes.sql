-- What a transaction's modes are, and until when they may change.
CREATE TABLE t (id int PRIMARY KEY);

-- READ ONLY holds from where it is said.
BEGIN;
INSERT INTO t VALUES (1);
SET TRANSACTION READ ONLY;
SHOW transaction_read_only;
INSERT INTO t VALUES (2);
ROLLBACK;
BEGIN;
INSERT INTO t VALUES (3);
SET transaction_read_only = on;
SET TRANSACTION READ ONLY;
SELECT id FROM t;
COMMIT;
SELECT id FROM t;
BEGIN;
SELECT count(*) FROM t;
SET LOCAL transaction_read_only = on;
SELECT id FROM t FOR UPDATE;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SET TRANSACTION READ ONLY;
DELETE FROM t;
ROLLBACK;

-- READ WRITE is not for who has begun to read only.
BEGIN READ ONLY;
SET TRANSACTION READ WRITE;
INSERT INTO t VALUES (4);
COMMIT;
BEGIN READ ONLY;
SELECT count(*) FROM t;
SET TRANSACTION READ WRITE;
ROLLBACK;
BEGIN READ ONLY;
SAVEPOINT s;
SET TRANSACTION READ WRITE;
ROLLBACK;
BEGIN;
SELECT count(*) FROM t;
SET TRANSACTION READ WRITE;
COMMIT;

-- The level is chosen before the first query, however it is said.
BEGIN;
SET transaction_isolation = 'read committed';
SHOW transaction_isolation;
SELECT count(*) FROM t;
SET transaction_isolation = 'serializable';
ROLLBACK;
BEGIN;
SELECT count(*) FROM t;
SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
ROLLBACK;
BEGIN;
SET transaction_isolation = 'whatever';
ROLLBACK;

-- So is DEFERRABLE.
BEGIN READ ONLY;
SELECT count(*) FROM t;
SET TRANSACTION DEFERRABLE;
ROLLBACK;
BEGIN READ ONLY;
SAVEPOINT s;
SET TRANSACTION DEFERRABLE;
ROLLBACK;
BEGIN READ ONLY;
SET TRANSACTION DEFERRABLE;
SHOW transaction_deferrable;
COMMIT;
SHOW transaction_deferrable;

-- The session's defaults, and what is not reset.
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, DEFERRABLE;
SHOW default_transaction_deferrable;
BEGIN;
SHOW transaction_read_only;
SHOW transaction_deferrable;
INSERT INTO t VALUES (5);
ROLLBACK;
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE, NOT DEFERRABLE;
BEGIN READ ONLY;
RESET ALL;
SHOW transaction_read_only;
RESET transaction_read_only;
ROLLBACK;
SET transaction_read_only = on;
SHOW transaction_read_only;
INSERT INTO t VALUES (6);
SELECT id FROM t ORDER BY id;

-- Words that only locks are made of.
SELECT id FROM t ORDER BY id FOR NO KEY UPDATE;
SELECT id FROM t ORDER BY id FOR KEY SHARE;
SELECT key share FROM (SELECT 1 AS key) AS one;
