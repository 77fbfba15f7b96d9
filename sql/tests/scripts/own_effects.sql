-- A statement sees the rows as they were before it, whatever its parts change.
CREATE TABLE t (id int PRIMARY KEY, v int, u int UNIQUE);
CREATE INDEX t_v ON t (v);
INSERT INTO t VALUES (1, 10, 100), (2, 20, 200), (3, 30, 300);
WITH i AS (INSERT INTO t VALUES (4, 40, 400) RETURNING id) SELECT count(*) FROM t;
SELECT count(*) FROM t;
WITH i AS (INSERT INTO t VALUES (4, 41, 400) ON CONFLICT (id) DO NOTHING RETURNING id) SELECT id FROM i UNION ALL SELECT id FROM t WHERE id = 4;
WITH i AS (INSERT INTO t VALUES (5, 50, 500) ON CONFLICT (id) DO NOTHING RETURNING id) SELECT id FROM i UNION ALL SELECT id FROM t WHERE id = 5;
WITH d AS (DELETE FROM t WHERE id = 5 RETURNING id) SELECT d.id, t.v FROM d JOIN t ON t.id = d.id;
WITH d AS (UPDATE t SET v = v + 1 WHERE v = 40 RETURNING v) SELECT d.v, t.v AS before FROM d, t WHERE t.v = 40;
WITH d AS (UPDATE t SET v = v - 1 WHERE v = 41) SELECT count(*) FROM t WHERE v = 41;
SELECT id, v FROM t ORDER BY id;
-- Within one UPDATE, DELETE or INSERT.
UPDATE t SET v = (SELECT sum(v) FROM t b WHERE b.id <= t.id);
SELECT id, v FROM t ORDER BY id;
UPDATE t SET v = id * 10 WHERE id < 3 RETURNING id, v, (SELECT sum(b.v) FROM t b) AS sum;
UPDATE t SET v = id * 10 RETURNING id, (SELECT b.v FROM t b WHERE b.id = t.id) AS before;
DELETE FROM t WHERE id = 4 RETURNING id, (SELECT count(*) FROM t) AS n;
INSERT INTO t VALUES (4, 40, 400), (5, 50, 500) RETURNING id, (SELECT max(id) FROM t) AS max;
INSERT INTO t VALUES (1, 0, 1), (2, 0, 2) ON CONFLICT (id) DO UPDATE SET v = (SELECT max(v) FROM t) + excluded.u;
SELECT id, v FROM t ORDER BY id;
INSERT INTO t SELECT id + 10, v, u + 10 FROM t;
SELECT id, v, u FROM t ORDER BY id DESC LIMIT 2;
DELETE FROM t WHERE id > 10;
-- Two parts, one row: the first one changes it.
WITH a AS (UPDATE t SET v = 1 WHERE id = 1 RETURNING id) UPDATE t SET v = 2 FROM a WHERE t.id = a.id;
SELECT id, v FROM t WHERE v < 3;
SELECT id FROM t WHERE id = 1 AND v = 1;
WITH a AS (DELETE FROM t WHERE id = 1 RETURNING id) UPDATE t SET v = 3 FROM a WHERE t.id = a.id;
SELECT count(*) FROM t WHERE id = 1;
SELECT count(*) FROM t WHERE v IN (1, 3);
WITH a AS (DELETE FROM t WHERE id = 2 RETURNING *) INSERT INTO t SELECT id, v + 1000, u FROM a;
SELECT id, v, u FROM t WHERE id = 2;
SELECT id FROM t WHERE v > 1000;
WITH a AS (INSERT INTO t VALUES (6, 60, 600) RETURNING id) INSERT INTO t SELECT id, 61, 600 FROM a;
-- Blocks: what statements before have written is seen.
BEGIN;
INSERT INTO t VALUES (7, 70, 700);
SAVEPOINT s;
UPDATE t SET v = 71 WHERE id = 7;
WITH a AS (UPDATE t SET v = 72 WHERE id = 7 RETURNING v) SELECT a.v, t.v AS before FROM a, t WHERE t.id = 7;
SELECT v FROM t WHERE id = 7;
ROLLBACK TO s;
WITH a AS (UPDATE t SET v = 73 WHERE id = 7 RETURNING v) SELECT a.v, t.v AS before FROM a, t WHERE t.id = 7;
COMMIT;
SELECT v FROM t WHERE id = 7;
-- What references a row follows it, also what the same statement has made.
CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE);
WITH a AS (INSERT INTO t VALUES (8, 80, 800) RETURNING id) INSERT INTO c SELECT 1, id FROM a;
WITH a AS (INSERT INTO c VALUES (2, 8) RETURNING t) DELETE FROM t USING a WHERE t.id = a.t;
SELECT count(*) FROM c;
WITH a AS (DELETE FROM t WHERE id = 7 RETURNING id) SELECT count(*) FROM c;
-- Only around everything else.
SELECT * FROM (WITH a AS (DELETE FROM t RETURNING id) SELECT * FROM a) q;
WITH x AS (WITH a AS (DELETE FROM t RETURNING id) SELECT * FROM a) SELECT * FROM x;
WITH x AS (WITH a AS (SELECT 9 AS id) INSERT INTO t SELECT id, 90, 900 FROM a RETURNING id) SELECT * FROM x;
INSERT INTO t WITH a AS (DELETE FROM t WHERE id = 9 RETURNING *) SELECT id + 1, v, u FROM a RETURNING id;
CREATE VIEW w AS WITH a AS (DELETE FROM t RETURNING id) SELECT * FROM a;
SELECT count(*) FROM t;
