-- Godwit's own tables in PostgreSQL: schema godwit, beside the user's, made by 'godwit pg install' or
-- at the first start. All of it may run again on any older version and leaves a newer one alone: that
-- is how the schema is brought up to date. A new version adds statements that do nothing where their
-- work is done.
--
-- No sequences where order matters, no advisory locks, no deferrable constraints, scope first in
-- every key. Texts that are compared use the C collation: the order of a key is the order of its
-- bytes, on every machine. JSON is kept as it was written (json, not jsonb): the feed is what clients
-- get.
--  * row.created_at/created_seq: meta of the columns without an entry of their own; vclock and
--    col_meta NULL = as the creating operation left them
--  * change.vclock/clock_seq: the row's clock for the feed, NULL = {"$":0, author: clock_seq}
--  * op.result_change: the result is the after-image of that change of the commit
--  * tracked: which tables are synced; of those that --dev made, what the device declared
CREATE SCHEMA IF NOT EXISTS godwit;
CREATE TABLE IF NOT EXISTS godwit.meta (
  k text COLLATE "C" PRIMARY KEY, v bigint NOT NULL, note text);
INSERT INTO godwit.meta VALUES ('schema_version', 0), ('registry_version', 0), ('outbox', 0)
  ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS godwit.tracked (
  name text COLLATE "C" PRIMARY KEY, schema_name text COLLATE "C" NOT NULL,
  number int NOT NULL UNIQUE, declared_keys json,
  declared_types json);
CREATE TABLE IF NOT EXISTS godwit.scope (
  scope text COLLATE "C" PRIMARY KEY, head bigint NOT NULL DEFAULT 0,
  horizon bigint NOT NULL DEFAULT 0, ledger_floor bigint NOT NULL DEFAULT 0,
  pruned bigint NOT NULL DEFAULT 0, -- the log is deleted up to here, at most the horizon
  schema_ver int NOT NULL DEFAULT 1) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS godwit.device (
  scope text COLLATE "C" NOT NULL, device_id text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL, lineage text COLLATE "C" NOT NULL, label text,
  registered_at timestamptz NOT NULL, last_seen timestamptz,
  state text NOT NULL DEFAULT 'active'
    CHECK (state IN ('active','forked','retired','revoked')),
  applied_seq bigint NOT NULL DEFAULT 0, last_key bytea NOT NULL DEFAULT '',
  confirmed_seq bigint NOT NULL DEFAULT 0, pulled_seq bigint NOT NULL DEFAULT 0,
  pulled_at timestamptz, last_at bigint NOT NULL DEFAULT 0, report json,
  PRIMARY KEY (scope, device_id)) WITH (fillfactor = 70);
CREATE TABLE IF NOT EXISTS godwit.commit (
  scope text COLLATE "C" NOT NULL, commit_seq bigint NOT NULL, salt bigint NOT NULL,
  origin text NOT NULL, device_id text COLLATE "C", first_seq bigint, last_seq bigint,
  outcome text NOT NULL, user_id text, committed_at timestamptz NOT NULL,
  PRIMARY KEY (scope, commit_seq));
CREATE TABLE IF NOT EXISTS godwit.change (
  scope text COLLATE "C" NOT NULL, commit_seq bigint NOT NULL, idx int NOT NULL,
  tbl text COLLATE "C" NOT NULL, pk text COLLATE "C" NOT NULL, kind "char" NOT NULL,
  full_row boolean NOT NULL, prev_seq bigint, clock_seq bigint, vclock json, cols json,
  PRIMARY KEY (scope, commit_seq, idx));
CREATE TABLE IF NOT EXISTS godwit.row (
  scope text COLLATE "C" NOT NULL, tbl text COLLATE "C" NOT NULL,
  pk text COLLATE "C" NOT NULL, ver bigint NOT NULL, gen int NOT NULL DEFAULT 1,
  created_ver bigint NOT NULL, created_at bigint NOT NULL, created_seq bigint NOT NULL,
  del_ver bigint, del_device text, vclock json, col_meta json, last_image json,
  PRIMARY KEY (scope, tbl, pk));
CREATE TABLE IF NOT EXISTS godwit.op (
  scope text COLLATE "C" NOT NULL, device_id text COLLATE "C" NOT NULL,
  seq bigint NOT NULL, lineage text COLLATE "C" NOT NULL, lsn bigint NOT NULL,
  op_key bytea NOT NULL, commit_seq bigint NOT NULL, outcome text NOT NULL, code text,
  detail text, conflicts json, result_change int, result json,
  PRIMARY KEY (scope, device_id, seq));
-- operations of a device's own lineage are found by the device: own_lsn is the highest of them
ALTER TABLE godwit.device ADD COLUMN IF NOT EXISTS own_lsn bigint;
UPDATE godwit.device d SET own_lsn = coalesce((SELECT max(o.lsn) FROM godwit.op o
  WHERE o.scope = d.scope AND o.lineage = d.device_id AND o.device_id = d.device_id), 0)
  WHERE own_lsn IS NULL;
ALTER TABLE godwit.device ALTER COLUMN own_lsn SET DEFAULT 0, ALTER COLUMN own_lsn SET NOT NULL;
DROP INDEX IF EXISTS godwit.op_origin;
CREATE INDEX IF NOT EXISTS op_taken_over ON godwit.op (scope, lineage, lsn)
  WHERE lineage <> device_id;
CREATE TABLE IF NOT EXISTS godwit.conflict (
  scope text COLLATE "C" NOT NULL, conflict_id text COLLATE "C" NOT NULL,
  commit_seq bigint NOT NULL, tbl text NOT NULL, pk text NOT NULL, kind text NOT NULL,
  op_key bytea NOT NULL, device_id text, cols json, base json, theirs json, ours json,
  chosen json, policy text NOT NULL, winner text NOT NULL,
  state text NOT NULL CHECK (state IN ('auto','open','resolved','reverted')),
  resolved_by text, resolved_commit bigint, at timestamptz NOT NULL,
  operation text, writers json,
  PRIMARY KEY (scope, conflict_id));
CREATE INDEX IF NOT EXISTS conflict_open ON godwit.conflict (scope, state)
  WHERE state = 'open';
CREATE INDEX IF NOT EXISTS conflict_commit ON godwit.conflict (scope, commit_seq);
CREATE INDEX IF NOT EXISTS conflict_done ON godwit.conflict (scope, at)
  WHERE state <> 'open';
CREATE TABLE IF NOT EXISTS godwit.idem (
  scope text COLLATE "C" NOT NULL, idem_key text COLLATE "C" NOT NULL,
  fingerprint bytea NOT NULL, commit_seq bigint, at timestamptz NOT NULL, response text,
  PRIMARY KEY (scope, idem_key));
CREATE INDEX IF NOT EXISTS idem_at ON godwit.idem (scope, at);

-- Writes from elsewhere: statement triggers note what changed, the engine takes it over as commits
-- (server/external.c). They look up at run time which columns a table has, so that a table may be
-- altered without being tracked again; they write to the outbox alone and wait for nobody.
ALTER TABLE godwit.tracked ADD COLUMN IF NOT EXISTS scope text COLLATE "C",
  ADD COLUMN IF NOT EXISTS scope_column text COLLATE "C";
CREATE TABLE IF NOT EXISTS godwit.outbox (
  id bigint GENERATED ALWAYS AS IDENTITY, tx text COLLATE "C" NOT NULL,
  tbl text COLLATE "C" NOT NULL, pk text COLLATE "C" NOT NULL, kind "char" NOT NULL,
  cols text[], image json, actor text, at timestamptz NOT NULL,
  waiting boolean NOT NULL DEFAULT false); -- nobody has said which scope it belongs to
CREATE UNIQUE INDEX IF NOT EXISTS outbox_next ON godwit.outbox (id) WHERE NOT waiting;
CREATE INDEX IF NOT EXISTS outbox_tx ON godwit.outbox (tx, id) WHERE NOT waiting;
CREATE INDEX IF NOT EXISTS outbox_row ON godwit.outbox (tbl, pk) WHERE NOT waiting;

-- the text of an expression: the entityId of a row called `alias`
CREATE OR REPLACE FUNCTION godwit.id_of(of regclass, alias text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN count(*) = 1 THEN max(part)
    ELSE '''['' || ' || string_agg('to_json(' || part || ')::text', ' || '','' || ' ORDER BY place)
      || ' || '']''' END
  FROM (SELECT array_position(i.indkey::int2[], a.attnum) AS place,
      format(CASE WHEN a.atttypid = 'bytea'::regtype THEN 'encode(%I.%I, ''hex'')'
        ELSE '%I.%I::text' END, alias, a.attname) AS part
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
      AND a.attnum = ANY (i.indkey::int2[])
    WHERE i.indrelid = of AND i.indisprimary) k
$$;

CREATE OR REPLACE FUNCTION godwit.this_tx() RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_backend_pid() || '.' || (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint
$$;

-- (a column could be called n: to_json(n) would be that column)
-- a row that changes its key or its scope is one that goes and one that comes
CREATE OR REPLACE FUNCTION godwit.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET bytea_output = 'hex' SET extra_float_digits = 1
SET "IntervalStyle" = 'postgres' SET "TimeZone" = 'UTC' AS $$
DECLARE
  actor text := left(coalesce(
    substring(current_setting('request.jwt.claims', true) FROM '"sub"\s*:\s*"([^"]*)"'),
    nullif(current_setting('role', true), 'none'), session_user), 128);
  tx text := godwit.this_tx();
  note text := 'INSERT INTO godwit.outbox(tx, tbl, pk, kind, cols, image, actor, at) SELECT $1, '
    || quote_literal(TG_TABLE_NAME) || ', ';
  rest text := ', $2, clock_timestamp() FROM ';
  moved text := coalesce((SELECT t.scope_column FROM godwit.tracked t
    WHERE t.name = TG_TABLE_NAME AND t.schema_name = TG_TABLE_SCHEMA), '');
  same text;
  part text;
  differ text;
BEGIN
  IF TG_OP = 'INSERT' THEN
    EXECUTE note || godwit.id_of(TG_RELID, 'godwit_new') || ', ''I'', NULL, to_json(godwit_new)' || rest
      || 'new_rows godwit_new' USING tx, actor;
  ELSIF TG_OP = 'DELETE' THEN
    EXECUTE note || godwit.id_of(TG_RELID, 'godwit_old') || ', ''D'', NULL, to_json(godwit_old)' || rest
      || 'old_rows godwit_old' USING tx, actor;
  ELSIF TG_OP = 'TRUNCATE' THEN
    EXECUTE note || godwit.id_of(TG_RELID, 'godwit_old') || ', ''D'', NULL, to_json(godwit_old)' || rest
      || format('%s godwit_old', TG_RELID::regclass) USING tx, actor;
  ELSE
    SELECT string_agg(format('godwit_old.%1$I = godwit_new.%1$I', a.attname), ' AND '), max(quote_ident(a.attname))
      INTO same, part FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
        AND a.attnum = ANY (i.indkey::int2[])
      WHERE i.indrelid = TG_RELID AND i.indisprimary;
    SELECT string_agg(format('CASE WHEN ROW(godwit_old.%1$I)::record *<>'
        ' ROW(godwit_new.%1$I)::record THEN %1$L END', a.attname), ', ')
      INTO differ FROM pg_attribute a
      WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped;
    IF EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = TG_RELID AND attname = moved) THEN
      same := same || format(' AND coalesce(godwit_old.%1$I::text, '''')'
        ' = coalesce(godwit_new.%1$I::text, '''')', moved);
    END IF;
    EXECUTE note || 'd.pk, d.kind, d.cols, d.image' || rest || format('(SELECT'
      ' CASE WHEN godwit_new.%1$s IS NULL THEN %2$s ELSE %3$s END AS pk,'
      ' CASE WHEN godwit_new.%1$s IS NULL THEN ''D'' WHEN godwit_old.%1$s IS NULL THEN ''I'' ELSE ''U'' END::"char" AS kind,'
      ' array_remove(ARRAY[%4$s], NULL) AS cols,'
      ' CASE WHEN godwit_new.%1$s IS NULL THEN to_json(godwit_old) ELSE to_json(godwit_new) END AS image'
      ' FROM old_rows godwit_old FULL JOIN new_rows godwit_new ON %5$s) d WHERE d.cols <> ''{}''',
      part, godwit.id_of(TG_RELID, 'godwit_old'), godwit.id_of(TG_RELID, 'godwit_new'), differ, same) USING tx, actor;
  END IF;
  RETURN NULL;
END $$;

-- notes all writes to a table but Godwit's own from now on, and the rows that are there
CREATE OR REPLACE FUNCTION godwit.watch(of regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  table_name text := (SELECT relname FROM pg_catalog.pg_class WHERE oid = of);
  -- what triggers of the application make of Godwit's own writes is noted, too; but not what they make
  -- of its taking over what was noted
  elsewhere text := $w$ FOR EACH STATEMENT WHEN (coalesce(current_setting('godwit.writing', true), '')
    NOT IN ('all', CASE WHEN pg_trigger_depth() > 0 THEN 'all' ELSE 'yes' END))
    EXECUTE FUNCTION godwit.note()$w$;
  noted bigint;
BEGIN
  UPDATE godwit.outbox SET waiting = false WHERE waiting AND tbl = table_name;
  IF EXISTS (SELECT 1 FROM pg_catalog.pg_trigger WHERE tgrelid = of AND tgname = 'godwit_insert') THEN
    RETURN format('%s is tracked already', of);
  END IF;
  EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', of);
  EXECUTE format('CREATE TRIGGER godwit_insert AFTER INSERT ON %s'
    ' REFERENCING NEW TABLE AS new_rows', of) || elsewhere;
  EXECUTE format('CREATE TRIGGER godwit_update AFTER UPDATE ON %s'
    ' REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows', of) || elsewhere;
  EXECUTE format('CREATE TRIGGER godwit_delete AFTER DELETE ON %s'
    ' REFERENCING OLD TABLE AS old_rows', of) || elsewhere;
  EXECUTE format('CREATE TRIGGER godwit_truncate BEFORE TRUNCATE ON %s', of) || elsewhere;
  EXECUTE format('INSERT INTO godwit.outbox(tx, tbl, pk, kind, image, actor, at)'
    ' SELECT ''track '' || now(), %L, d.pk, d.kind, d.image, session_user, now() FROM'
    ' (SELECT %s AS pk, ''I''::"char" AS kind, to_json(godwit_new) AS image FROM %s godwit_new UNION ALL'
    ' SELECT r.pk, ''D'', NULL FROM godwit.row r WHERE r.tbl = %L AND r.del_ver IS NULL'
    ' AND NOT EXISTS (SELECT 1 FROM %s godwit_new WHERE %s = r.pk)) d',
    table_name, godwit.id_of(of, 'godwit_new'), of, table_name, of, godwit.id_of(of, 'godwit_new'));
  GET DIAGNOSTICS noted = ROW_COUNT;
  RETURN format('%s is tracked; rows to sync: %s', of, noted);
END $$;

CREATE OR REPLACE FUNCTION godwit.unwatch(of regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  event text;
BEGIN
  FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete', 'truncate'] LOOP
    EXECUTE format('DROP TRIGGER IF EXISTS godwit_%s ON %s', event, of);
  END LOOP;
  DELETE FROM godwit.outbox WHERE tbl = (SELECT relname FROM pg_catalog.pg_class WHERE oid = of);
END $$;

-- the last statement: what came before is done
UPDATE godwit.meta SET v = greatest(v, 3) WHERE k = 'schema_version';
