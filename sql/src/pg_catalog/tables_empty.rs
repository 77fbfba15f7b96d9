//! Value: relations that clients ask for and that are empty here, because what they list does not exist (policies, triggers,
//! publications, text search, enums, partitions, comments), or is not told through them (statistics, locks).
//! `psql \\d` and others fail without them.

use super::VirtualTable;
use super::cell::{ACLS, CHARS, OIDS, TEXTS};
use crate::types::Type::{
    self, AnyArray, Bool, Bytea, Char, Float4, Int2, Int2Vector, Int4, Int8, Interval, Name,
    Numeric, Oid, OidVector, PgNodeTree, RegProc, Text, TimestampTz, Xid,
};

const NAMES: Type = Type::Array(&Type::Name);
const FLOAT4S: Type = Type::Array(&Type::Float4);

/// Declares relations without rows.
macro_rules! empty {
    ($($item:ident = $oid:literal, $name:literal $kind:ident { $($column:ident $ty:ident;)* })*) => {
        $(static $item: VirtualTable = VirtualTable {
            oid: $oid,
            schema: crate::catalog::PG_CATALOG,
            name: $name,
            kind: super::Kind::$kind,
            columns: &[$((stringify!($column), $ty)),*],
            narrowed_by: None,
            build: |_, _| Vec::new(),
            asks: None,
        };)*

        pub(super) static TABLES: &[&VirtualTable] = &[$(&$item),*];
    };
}

empty! {
    PG_DESCRIPTION = 2609, "pg_description" Table {
        objoid Oid; classoid Oid; objsubid Int4; description Text;
    }
    PG_SHDESCRIPTION = 2396, "pg_shdescription" Table {
        objoid Oid; classoid Oid; description Text;
    }
    PG_AUTH_MEMBERS = 1261, "pg_auth_members" Table {
        roleid Oid; member Oid; grantor Oid; admin_option Bool;
    }
    PG_ENUM = 3501, "pg_enum" Table {
        oid Oid; enumtypid Oid; enumsortorder Float4; enumlabel Name;
    }
    PG_RANGE = 3541, "pg_range" Table {
        rngtypid Oid; rngsubtype Oid; rngmultitypid Oid; rngcollation Oid; rngsubopc Oid; rngcanonical RegProc;
        rngsubdiff RegProc;
    }
    PG_INHERITS = 2611, "pg_inherits" Table {
        inhrelid Oid; inhparent Oid; inhseqno Int4; inhdetachpending Bool;
    }
    PG_PARTITIONED_TABLE = 3350, "pg_partitioned_table" Table {
        partrelid Oid; partstrat Char; partnatts Int2; partdefid Oid; partattrs Int2Vector; partclass OidVector;
        partcollation OidVector; partexprs PgNodeTree;
    }
    PG_MATVIEWS = 12038, "pg_matviews" View {
        schemaname Name; matviewname Name; matviewowner Name; tablespace Name; hasindexes Bool;
        ispopulated Bool; definition Text;
    }
    PG_OPERATOR = 2617, "pg_operator" Table {
        oid Oid; oprname Name; oprnamespace Oid; oprowner Oid; oprkind Char; oprcanmerge Bool; oprcanhash Bool;
        oprleft Oid; oprright Oid; oprresult Oid; oprcom Oid; oprnegate Oid; oprcode RegProc; oprrest RegProc;
        oprjoin RegProc;
    }
    PG_POLICY = 3256, "pg_policy" Table {
        oid Oid; polname Name; polrelid Oid; polcmd Char; polpermissive Bool; polroles OIDS; polqual PgNodeTree;
        polwithcheck PgNodeTree;
    }
    PG_POLICIES = 12018, "pg_policies" View {
        schemaname Name; tablename Name; policyname Name; permissive Text; roles NAMES; cmd Text; qual Text;
        with_check Text;
    }
    PG_STATISTIC_EXT = 3381, "pg_statistic_ext" Table {
        oid Oid; stxrelid Oid; stxname Name; stxnamespace Oid; stxowner Oid; stxstattarget Int4;
        stxkeys Int2Vector; stxkind CHARS; stxexprs PgNodeTree;
    }
    PG_PUBLICATION = 6104, "pg_publication" Table {
        oid Oid; pubname Name; pubowner Oid; puballtables Bool; pubinsert Bool; pubupdate Bool; pubdelete Bool;
        pubtruncate Bool; pubviaroot Bool;
    }
    PG_PUBLICATION_REL = 6106, "pg_publication_rel" Table {
        oid Oid; prpubid Oid; prrelid Oid; prqual PgNodeTree; prattrs Int2Vector;
    }
    PG_PUBLICATION_NAMESPACE = 6237, "pg_publication_namespace" Table {
        oid Oid; pnpubid Oid; pnnspid Oid;
    }
    PG_SUBSCRIPTION = 6100, "pg_subscription" Table {
        oid Oid; subdbid Oid; subskiplsn Text; subname Name; subowner Oid; subenabled Bool; subbinary Bool;
        substream Bool; subtwophasestate Char; subdisableonerr Bool; subconninfo Text; subslotname Name;
        subsynccommit Text; subpublications TEXTS;
    }
    PG_TRIGGER = 2620, "pg_trigger" Table {
        oid Oid; tgrelid Oid; tgparentid Oid; tgname Name; tgfoid Oid; tgtype Int2; tgenabled Char;
        tgisinternal Bool; tgconstrrelid Oid; tgconstrindid Oid; tgconstraint Oid; tgdeferrable Bool;
        tginitdeferred Bool; tgnargs Int2; tgattr Int2Vector; tgargs Bytea; tgqual PgNodeTree; tgoldtable Name;
        tgnewtable Name;
    }
    PG_REWRITE = 2618, "pg_rewrite" Table {
        oid Oid; rulename Name; ev_class Oid; ev_type Char; ev_enabled Char; is_instead Bool;
        ev_qual PgNodeTree; ev_action PgNodeTree;
    }
    PG_EXTENSION = 3079, "pg_extension" Table {
        oid Oid; extname Name; extowner Oid; extnamespace Oid; extrelocatable Bool; extversion Text;
        extconfig OIDS; extcondition TEXTS;
    }
    PG_CONVERSION = 2607, "pg_conversion" Table {
        oid Oid; conname Name; connamespace Oid; conowner Oid; conforencoding Int4; contoencoding Int4;
        conproc RegProc; condefault Bool;
    }
    PG_DB_ROLE_SETTING = 2964, "pg_db_role_setting" Table {
        setdatabase Oid; setrole Oid; setconfig TEXTS;
    }
    PG_DEFAULT_ACL = 826, "pg_default_acl" Table {
        oid Oid; defaclrole Oid; defaclnamespace Oid; defaclobjtype Char; defaclacl ACLS;
    }
    PG_EVENT_TRIGGER = 3466, "pg_event_trigger" Table {
        oid Oid; evtname Name; evtevent Name; evtowner Oid; evtfoid Oid; evtenabled Char; evttags TEXTS;
    }
    PG_FOREIGN_DATA_WRAPPER = 2328, "pg_foreign_data_wrapper" Table {
        oid Oid; fdwname Name; fdwowner Oid; fdwhandler Oid; fdwvalidator Oid; fdwacl ACLS; fdwoptions TEXTS;
    }
    PG_FOREIGN_SERVER = 1417, "pg_foreign_server" Table {
        oid Oid; srvname Name; srvowner Oid; srvfdw Oid; srvtype Text; srvversion Text; srvacl ACLS;
        srvoptions TEXTS;
    }
    PG_FOREIGN_TABLE = 3118, "pg_foreign_table" Table {
        ftrelid Oid; ftserver Oid; ftoptions TEXTS;
    }
    PG_LARGEOBJECT_METADATA = 2995, "pg_largeobject_metadata" Table {
        oid Oid; lomowner Oid; lomacl ACLS;
    }
    PG_TS_CONFIG = 3602, "pg_ts_config" Table {
        oid Oid; cfgname Name; cfgnamespace Oid; cfgowner Oid; cfgparser Oid;
    }
    PG_TS_DICT = 3600, "pg_ts_dict" Table {
        oid Oid; dictname Name; dictnamespace Oid; dictowner Oid; dicttemplate Oid; dictinitoption Text;
    }
    PG_TS_PARSER = 3601, "pg_ts_parser" Table {
        oid Oid; prsname Name; prsnamespace Oid; prsstart RegProc; prstoken RegProc; prsend RegProc;
        prsheadline RegProc; prslextype RegProc;
    }
    PG_TS_TEMPLATE = 3764, "pg_ts_template" Table {
        oid Oid; tmplname Name; tmplnamespace Oid; tmplinit RegProc; tmpllexize RegProc;
    }
    PG_AGGREGATE = 2600, "pg_aggregate" Table {
        aggfnoid RegProc; aggkind Char; aggnumdirectargs Int2; aggtransfn RegProc; aggfinalfn RegProc;
        aggcombinefn RegProc; aggserialfn RegProc; aggdeserialfn RegProc; aggmtransfn RegProc;
        aggminvtransfn RegProc; aggmfinalfn RegProc; aggfinalextra Bool; aggmfinalextra Bool;
        aggfinalmodify Char; aggmfinalmodify Char; aggsortop Oid; aggtranstype Oid; aggtransspace Int4;
        aggmtranstype Oid; aggmtransspace Int4; agginitval Text; aggminitval Text;
    }
    PG_AMOP = 2602, "pg_amop" Table {
        oid Oid; amopfamily Oid; amoplefttype Oid; amoprighttype Oid; amopstrategy Int2; amoppurpose Char;
        amopopr Oid; amopmethod Oid; amopsortfamily Oid;
    }
    PG_AMPROC = 2603, "pg_amproc" Table {
        oid Oid; amprocfamily Oid; amproclefttype Oid; amprocrighttype Oid; amprocnum Int2; amproc RegProc;
    }
    PG_TRANSFORM = 3576, "pg_transform" Table {
        oid Oid; trftype Oid; trflang Oid; trffromsql RegProc; trftosql RegProc;
    }
    PG_SHDEPEND = 1214, "pg_shdepend" Table {
        dbid Oid; classid Oid; objid Oid; objsubid Int4; refclassid Oid; refobjid Oid; deptype Char;
    }
    PG_SECLABEL = 3596, "pg_seclabel" Table {
        objoid Oid; classoid Oid; objsubid Int4; provider Text; label Text;
    }
    PG_INIT_PRIVS = 3394, "pg_init_privs" Table {
        objoid Oid; classoid Oid; objsubid Int4; privtype Char; initprivs ACLS;
    }
    PG_STAT_USER_TABLES = 12161, "pg_stat_user_tables" View {
        relid Oid; schemaname Name; relname Name; seq_scan Int8; seq_tup_read Int8; idx_scan Int8;
        idx_tup_fetch Int8; n_tup_ins Int8; n_tup_upd Int8; n_tup_del Int8; n_tup_hot_upd Int8; n_live_tup Int8;
        n_dead_tup Int8; n_mod_since_analyze Int8; n_ins_since_vacuum Int8; last_vacuum TimestampTz;
        last_autovacuum TimestampTz; last_analyze TimestampTz; last_autoanalyze TimestampTz; vacuum_count Int8;
        autovacuum_count Int8; analyze_count Int8; autoanalyze_count Int8;
    }
    PG_STAT_USER_INDEXES = 12192, "pg_stat_user_indexes" View {
        relid Oid; indexrelid Oid; schemaname Name; relname Name; indexrelname Name; idx_scan Int8;
        idx_tup_read Int8; idx_tup_fetch Int8;
    }
    PG_STATIO_ALL_TABLES = 12170, "pg_statio_all_tables" View {
        relid Oid; schemaname Name; relname Name; heap_blks_read Int8; heap_blks_hit Int8; idx_blks_read Int8;
        idx_blks_hit Int8; toast_blks_read Int8; toast_blks_hit Int8; tidx_blks_read Int8; tidx_blks_hit Int8;
    }
    PG_STAT_ACTIVITY = 12222, "pg_stat_activity" View {
        datid Oid; datname Name; pid Int4; leader_pid Int4; usesysid Oid; usename Name; application_name Text;
        client_addr Text; client_hostname Text; client_port Int4; backend_start TimestampTz;
        xact_start TimestampTz; query_start TimestampTz; state_change TimestampTz; wait_event_type Text;
        wait_event Text; state Text; backend_xid Xid; backend_xmin Xid; query_id Int8; query Text;
        backend_type Text;
    }
    PG_LOCKS = 12073, "pg_locks" View {
        locktype Text; database Oid; relation Oid; page Int4; tuple Int2; virtualxid Text; transactionid Xid;
        classid Oid; objid Oid; objsubid Int2; virtualtransaction Text; pid Int4; mode Text; granted Bool;
        fastpath Bool; waitstart TimestampTz;
    }
    PG_STAT_SSL = 12249, "pg_stat_ssl" View {
        pid Int4; ssl Bool; version Text; cipher Text; bits Int4; client_dn Text; client_serial Numeric;
        issuer_dn Text;
    }
    PG_TIMEZONE_ABBREVS = 12122, "pg_timezone_abbrevs" View {
        abbrev Text; utc_offset Interval; is_dst Bool;
    }
    PG_AVAILABLE_EXTENSIONS = 12081, "pg_available_extensions" View {
        name Name; default_version Text; installed_version Text; comment Text;
    }
    PG_PREPARED_XACTS = 12090, "pg_prepared_xacts" View {
        transaction Xid; gid Text; prepared TimestampTz; owner Name; database Name;
    }
    PG_STATS = 12053, "pg_stats" View {
        schemaname Name; tablename Name; attname Name; inherited Bool; null_frac Float4; avg_width Int4;
        n_distinct Float4; most_common_vals AnyArray; most_common_freqs FLOAT4S; histogram_bounds AnyArray;
        correlation Float4; most_common_elems AnyArray; most_common_elem_freqs FLOAT4S;
        elem_count_histogram FLOAT4S;
    }
    PG_RULES = 12023, "pg_rules" View {
        schemaname Name; tablename Name; rulename Name; definition Text;
    }
}
