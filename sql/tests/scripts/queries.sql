-- Joins, groups, subqueries, sets.
CREATE TABLE a (id int PRIMARY KEY, g int, v text);
CREATE TABLE b (id int PRIMARY KEY, aid int REFERENCES a, w numeric(10,2));
CREATE INDEX b_aid ON b (aid);
INSERT INTO a SELECT i, i % 3, 'v' || i FROM generate_series(1, 6) i;
INSERT INTO b VALUES (1, 1, 1.5), (2, 1, 2.25), (3, 2, 10), (4, NULL, 7);
INSERT INTO b VALUES (5, 99, 1);
DELETE FROM a WHERE id = 1;
SELECT a.id, b.id AS bid, w FROM a LEFT JOIN b ON b.aid = a.id ORDER BY a.id, bid;
SELECT a.id, b.id AS bid FROM a RIGHT JOIN b ON b.aid = a.id ORDER BY bid;
SELECT a.id, b.id AS bid FROM a FULL JOIN b ON b.aid = a.id ORDER BY a.id, bid;
SELECT g, count(*), string_agg(v, ',' ORDER BY v DESC) FROM a GROUP BY g HAVING count(*) > 1 ORDER BY g;
SELECT a.id, a.v, sum(b.w) FROM a JOIN b ON b.aid = a.id GROUP BY a.id ORDER BY a.id;
SELECT a.id, (SELECT sum(w) FROM b WHERE b.aid = a.id) AS s FROM a ORDER BY id;
SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.aid = a.id) ORDER BY id;
SELECT id FROM a WHERE id IN (SELECT aid FROM b) ORDER BY id DESC;
SELECT id FROM a WHERE id NOT IN (SELECT aid FROM b);
SELECT id FROM a WHERE g = ANY (ARRAY[1, 2]) AND id BETWEEN 2 AND 5 ORDER BY 1;
SELECT 1 AS x UNION SELECT 2 UNION ALL SELECT 2 ORDER BY x;
SELECT id FROM a EXCEPT SELECT aid FROM b ORDER BY id;
SELECT DISTINCT g FROM a ORDER BY g;
SELECT DISTINCT ON (g) g, id FROM a ORDER BY g, id DESC;
WITH x AS (SELECT g, count(*) AS n FROM a GROUP BY g) SELECT * FROM x WHERE n = 2 ORDER BY g;
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t;
SELECT CASE WHEN g = 0 THEN 'zero' WHEN g = 1 THEN 'one' ELSE 'many' END AS c, coalesce(NULL, v) AS v FROM a ORDER BY id LIMIT 3;
SELECT id, row_number() OVER (PARTITION BY g ORDER BY id DESC) FROM a ORDER BY id;
SELECT unnest(ARRAY[1, 2]) AS u, generate_series(1, 3) AS s;
SELECT x.n, y.m FROM generate_series(1, 2) AS x(n), LATERAL (SELECT x.n * 10 AS m) AS y;
SELECT g FROM a GROUP BY v;
SELECT sum(v) FROM a;
SELECT 1 + 'a';
SELECT 1 / 0;
SELECT 'abc'::int;
SELECT 5 / 2, 5 % 2, 5.0 / 2, -7 / 2, 2 ^ 10, 1e3;
SELECT NULL = NULL AS n, NULL IS NULL AS y, 1 IS DISTINCT FROM NULL AS d;
SELECT 'a' || 'b' || 1, upper('x'), length('héllo'), substring('hello' FROM 2 FOR 3), trim('  x ');
SELECT ARRAY[1,2,3], (ARRAY[1,2,3])[2], array_length(ARRAY[1,2,3], 1);
SELECT '2024-02-29'::date + 1, timestamp '2024-01-01 10:00' + interval '1 day 2 hours';
SELECT extract(year FROM date '2024-05-06'), date_trunc('month', timestamp '2024-05-06 07:08:09');
UPDATE a SET v = b.w::text FROM b WHERE b.aid = a.id AND b.id = 3;
SELECT id, v FROM a WHERE id = 2;
DELETE FROM b USING a WHERE b.aid = a.id AND a.g = 2 RETURNING b.id;
TRUNCATE b;
SELECT count(*) FROM b;
VALUES (1, 'x'), (2, 'y');
PREPARE q(int) AS SELECT v FROM a WHERE id = $1;
EXECUTE q(3);
DEALLOCATE q;

-- Blocks go on after AND CHAIN, in the same modes.
CREATE TABLE chained (x int PRIMARY KEY);
BEGIN ISOLATION LEVEL READ COMMITTED;
INSERT INTO chained VALUES (1);
ROLLBACK AND CHAIN;
SHOW transaction_isolation;
INSERT INTO chained VALUES (2);
ROLLBACK;
SELECT * FROM chained;
BEGIN READ ONLY;
COMMIT AND CHAIN;
INSERT INTO chained VALUES (3);
ROLLBACK AND CHAIN;
SHOW transaction_read_only;
COMMIT;
ROLLBACK AND CHAIN;
COMMIT AND CHAIN;

-- A clause is done or refused.
SELECT * FROM (VALUES (1), (3), (2)) v(x) ORDER BY x USING >;
SELECT * FROM (VALUES (1), (3), (2)) v(x) ORDER BY x USING <;
SELECT array_agg(x ORDER BY x USING >) FROM (VALUES (1), (3), (2)) v(x);
VALUES (1), (3), (2) ORDER BY 1 USING >;
SELECT 1 AS x ORDER BY x USING <=;
SELECT * FROM a TABLESAMPLE SYSTEM (1);
SELECT id FROM a ORDER BY id FETCH FIRST 1 ROW WITH TIES;
SELECT a.id FROM a JOIN b ON b.aid = a.id FOR UPDATE OF a SKIP LOCKED;
SELECT id FROM a WHERE id = 1 FOR UPDATE OF a SKIP LOCKED;
SELECT id FROM a FOR UPDATE OF nothing;
CREATE TABLE links (x int REFERENCES chained, id int PRIMARY KEY);
CREATE TABLE ends (id int REFERENCES links PRIMARY KEY);
INSERT INTO chained VALUES (4);
INSERT INTO links VALUES (4, 5);
INSERT INTO ends VALUES (5);
TRUNCATE chained RESTRICT;
TRUNCATE chained CASCADE;
SELECT (SELECT count(*) FROM chained) AS a, (SELECT count(*) FROM links) AS b, (SELECT count(*) FROM ends) AS c;
SELECT count(DISTINCT g) OVER () FROM a;
SELECT upper(DISTINCT 'a');
SELECT upper('a') FILTER (WHERE true);
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM a;
SELECT 'a' < 'B' COLLATE "de_DE";
SELECT 'a' < 'B' COLLATE "C";

-- USING and NATURAL: shared columns first.
SELECT * FROM (VALUES ('x', 1)) a(v, k) JOIN (VALUES ('y', 1)) b(w, k) USING (k);
SELECT * FROM (VALUES ('x', 1, 2)) a(v, k, l) NATURAL JOIN (VALUES (2, 'y', 1)) b(l, w, k);
SELECT * FROM (VALUES ('x', 1, 2)) a(v, k, l) JOIN (VALUES (2, 'y', 1)) b(l, w, k) USING (l, k);
SELECT * FROM (VALUES ('x', 1)) a(v, k) LEFT JOIN (VALUES ('y', 2)) b(w, k) USING (k);
SELECT * FROM (VALUES ('x', 1)) a(v, k) RIGHT JOIN (VALUES ('y', 2)) b(w, k) USING (k);
SELECT * FROM (VALUES ('x', 1)) a(v, k) FULL JOIN (VALUES ('y', 2)) b(w, k) USING (k) ORDER BY k;
SELECT * FROM (VALUES ('x', 1)) a(v, k) JOIN (VALUES ('y', 1)) b(w, k) USING (k) JOIN (VALUES ('z', 'y')) c(z, w) USING (w);
SELECT * FROM (VALUES ('x', 1)) a(v, k) FULL JOIN (VALUES ('y', 2)) b(w, k) USING (k) FULL JOIN (VALUES ('z', 3)) c(z, k) USING (k) ORDER BY k;
SELECT * FROM (VALUES (0)) o(o), (VALUES ('x', 1)) a(v, k) JOIN (VALUES ('y', 1)) b(w, k) USING (k);
SELECT * FROM (VALUES (0)) o(o) CROSS JOIN ((VALUES ('x', 1)) a(v, k) JOIN (VALUES ('y', 1)) b(w, k) USING (k));
SELECT a.*, b.* FROM (VALUES ('x', 1)) a(v, k) JOIN (VALUES ('y', 1)) b(w, k) USING (k);

-- What binds tighter.
SELECT -2 ^ 2 AS a, 2 * -2 ^ 2 AS b, 2 ^ -2 ^ 2 AS c, ~1 + 1 AS d, @ -3 + 1 AS e, -(2 ^ 2) AS f;
SELECT -9223372036854775808 AS least, - -1 AS one, 1 - -1 AS two, ~1 & 3 AS two_again;

-- NULL in rows.
SELECT ROW(1,NULL)=ROW(1,NULL) AS a, ROW(1,2)=ROW(1,NULL) AS b, ROW(1,NULL)<>ROW(1,2) AS c, ROW(NULL,1)<ROW(1,2) AS d, ROW(2,NULL)<>ROW(1,NULL) AS e;
SELECT ROW(1,NULL) IS NOT NULL AS a, ROW(1,NULL) IS NULL AS b, ROW(1,2) IS NOT NULL AS c, ROW(NULL,NULL) IS NULL AS d, ROW(NULL) = ROW(1) AS e;
SELECT e.x, e IS NOT NULL AS whole, e IS NULL AS none FROM (VALUES (1, 'a'), (2, NULL), (NULL, NULL)) e(x, y);
SELECT (1, NULL) IN ((1, 2), (2, 3)) AS a, ROW(1, 2) IN (ROW(1, 2)) AS b, ROW(1, 2) IN (SELECT 1, 2) AS c;

-- Time zones: a number is hours east.
SET TIME ZONE '+02';
SHOW TimeZone;
SELECT timestamptz '2024-06-01 12:00+00';
SET TIME ZONE '-5';
SELECT timestamptz '2024-06-01 12:00+00';
SET TIME ZONE 5;
SELECT timestamptz '2024-06-01 12:00+00';
SET TIME ZONE -3.5;
SELECT timestamptz '2024-06-01 12:00+00';
SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE;
SELECT timestamptz '2024-06-01 12:00+00';
SET TIME ZONE '+02:00';
SELECT timestamptz '2024-06-01 12:00+00';
SET TIME ZONE 'Etc/GMT+3';
SELECT timestamptz '2024-06-01 12:00+00';
SET TIME ZONE 99;
SET TIME ZONE 'UTC';

-- char(n) and boolean as text.
SELECT 'abc'::char(5) || '|' AS a, '|' || 'abc'::char(5) || '|' AS b, 'a' || true AS c, false || 'a' AS d;
SELECT 'abc'::char(5) LIKE 'abc' AS a, 'abc'::char(5) LIKE 'abc  ' AS b, 'abc'::char(5) NOT LIKE 'abc' AS c, 'ABC'::char(5) ILIKE 'abc__' AS d, 'abc' LIKE 'abc' AS e;

-- JSON in JSON.
SELECT json_build_object('a', '{"z": 1,"b":2}'::json, 'b', '{"z": 1,"b":2}'::jsonb, 'c', NULL::json);
SELECT jsonb_build_object('a', '{"z": 1,"b":2}'::json, 'b', '[1]'::jsonb), json_build_array('[1]'::json, 'x'), jsonb_build_array('[1]'::json, 'x');
SELECT to_json('{"a": 1}'::json), to_jsonb('{"a": 1}'::json), to_json('{"a":1}'::jsonb), to_json(NULL::json), to_json('x'::text);
SELECT json_agg(j), jsonb_agg(j) FROM (VALUES ('{"b":1}'::json), ('2'), (NULL)) v(j);
SELECT json_agg(t), jsonb_agg(t), count(*) FROM (VALUES (1, 'x'), (2, NULL)) t(b, a);
SELECT to_json(t), to_jsonb(t), to_json(ROW(1, 'x')), to_json(ARRAY[[1,2],[3,4]]) FROM (VALUES (1, '{"q":1}'::json)) t(b, a);

-- One after the other.
SELECT NULLIF(NULL, 1) AS a, NULLIF(1, NULL) AS b, NULLIF(NULL, NULL) AS c, NULLIF('a', 'a') AS d, NULLIF('1', 1) AS e;
SELECT set_config('my.var', 'y', false), current_setting('my.var');
SELECT set_config('my.var', 'z', false), 1 / (g - g) FROM a LIMIT 1;
SELECT current_setting('my.var');
CREATE SEQUENCE drawn;
SELECT nextval('drawn'), currval('drawn'), lastval(), nextval('drawn'), currval('drawn');
SELECT currval('drawn'), lastval(), nextval('drawn');
CREATE SEQUENCE fresh;
SELECT CASE WHEN false THEN currval('fresh') END AS never;
SELECT currval('fresh'), nextval('fresh');
DROP SEQUENCE fresh;
DROP SEQUENCE drawn;

-- A parameter of no type.
SELECT $1;
PREPARE untyped AS SELECT $1;
EXECUTE untyped('x');

-- A cast names its column, unless what it casts has a name.
SELECT '12:00'::time::text, true::int, '1'::jsonb::int, 1.5::numeric::text, date '2024-01-01'::text, NOT true;
SELECT g::text, upper(v)::varchar, CASE WHEN true THEN 1 ELSE 2::int END, CASE WHEN true THEN 1 ELSE g END, '{1}'::int[] FROM a LIMIT 1;

-- An aggregate belongs to the query whose columns it is of.
SELECT (SELECT max(a.id) FROM b) FROM a;
SELECT id, (SELECT max(a.id + c.id) FROM a c) AS both FROM a WHERE id = 2;
