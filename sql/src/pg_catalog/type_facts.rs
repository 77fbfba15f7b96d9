//! Value: what `pg_type` says about a type besides what `types` knows: how it is passed, aligned and stored, and the names of its
//! conversions. PostgreSQL 15's `pg_type.dat`, for the types that exist here.

use crate::types::Type::{self, *};

/// A function of `pg_proc`: name and OID; "" and 0: none.
pub(super) type Proc = (&'static str, u32);

/// What `pg_type` says about a scalar type.
pub(super) struct TypeFacts {
    pub by_value: bool,
    /// input, output, receive, send, modifier in, modifier out.
    pub procs: [Proc; 6],
    pub align: &'static str,
    pub storage: &'static str,
    pub collation: u32,
    pub subscript: Proc,
    pub analyze: Proc,
}

const NONE: Proc = ("", 0);
const ARRAY_SUBSCRIPT: Proc = ("array_subscript_handler", 6179);
const ARRAY_ANALYZE: Proc = ("array_typanalyze", 3816);
const ARRAY: [Proc; 4] =
    [("array_in", 750), ("array_out", 751), ("array_recv", 2400), ("array_send", 2401)];

type Line = (Type, bool, [Proc; 6], &'static str, &'static str, u32);

#[rustfmt::skip]
const SCALARS: &[Line] = &[
    (Bool, true, [("boolin", 1242), ("boolout", 1243), ("boolrecv", 2436), ("boolsend", 2437), ("", 0), ("", 0)], "c", "p", 0),
    (Bytea, false, [("byteain", 1244), ("byteaout", 31), ("bytearecv", 2412), ("byteasend", 2413), ("", 0), ("", 0)], "i", "x", 0),
    (Char, true, [("charin", 1245), ("charout", 33), ("charrecv", 2434), ("charsend", 2435), ("", 0), ("", 0)], "c", "p", 0),
    (Name, false, [("namein", 34), ("nameout", 35), ("namerecv", 2422), ("namesend", 2423), ("", 0), ("", 0)], "c", "p", 950),
    (Int8, true, [("int8in", 460), ("int8out", 461), ("int8recv", 2408), ("int8send", 2409), ("", 0), ("", 0)], "d", "p", 0),
    (Int2, true, [("int2in", 38), ("int2out", 39), ("int2recv", 2404), ("int2send", 2405), ("", 0), ("", 0)], "s", "p", 0),
    (Int2Vector, false, [("int2vectorin", 40), ("int2vectorout", 41), ("int2vectorrecv", 2410), ("int2vectorsend", 2411), ("", 0), ("", 0)], "i", "p", 0),
    (Int4, true, [("int4in", 42), ("int4out", 43), ("int4recv", 2406), ("int4send", 2407), ("", 0), ("", 0)], "i", "p", 0),
    (RegProc, true, [("regprocin", 44), ("regprocout", 45), ("regprocrecv", 2444), ("regprocsend", 2445), ("", 0), ("", 0)], "i", "p", 0),
    (Text, false, [("textin", 46), ("textout", 47), ("textrecv", 2414), ("textsend", 2415), ("", 0), ("", 0)], "i", "x", 100),
    (Oid, true, [("oidin", 1798), ("oidout", 1799), ("oidrecv", 2418), ("oidsend", 2419), ("", 0), ("", 0)], "i", "p", 0),
    (Xid, true, [("xidin", 50), ("xidout", 51), ("xidrecv", 2440), ("xidsend", 2441), ("", 0), ("", 0)], "i", "p", 0),
    (OidVector, false, [("oidvectorin", 54), ("oidvectorout", 55), ("oidvectorrecv", 2420), ("oidvectorsend", 2421), ("", 0), ("", 0)], "i", "p", 0),
    (Json, false, [("json_in", 321), ("json_out", 322), ("json_recv", 323), ("json_send", 324), ("", 0), ("", 0)], "i", "x", 0),
    (PgNodeTree, false, [("pg_node_tree_in", 195), ("pg_node_tree_out", 196), ("pg_node_tree_recv", 197), ("pg_node_tree_send", 198), ("", 0), ("", 0)], "i", "x", 100),
    (Float4, true, [("float4in", 200), ("float4out", 201), ("float4recv", 2424), ("float4send", 2425), ("", 0), ("", 0)], "i", "p", 0),
    (Float8, true, [("float8in", 214), ("float8out", 215), ("float8recv", 2426), ("float8send", 2427), ("", 0), ("", 0)], "d", "p", 0),
    (Unknown, false, [("unknownin", 109), ("unknownout", 110), ("unknownrecv", 2416), ("unknownsend", 2417), ("", 0), ("", 0)], "c", "p", 0),
    (AclItem, false, [("aclitemin", 1031), ("aclitemout", 1032), ("", 0), ("", 0), ("", 0), ("", 0)], "i", "p", 0),
    (BpChar, false, [("bpcharin", 1044), ("bpcharout", 1045), ("bpcharrecv", 2430), ("bpcharsend", 2431), ("bpchartypmodin", 2913), ("bpchartypmodout", 2914)], "i", "x", 100),
    (Varchar, false, [("varcharin", 1046), ("varcharout", 1047), ("varcharrecv", 2432), ("varcharsend", 2433), ("varchartypmodin", 2915), ("varchartypmodout", 2916)], "i", "x", 100),
    (Date, true, [("date_in", 1084), ("date_out", 1085), ("date_recv", 2468), ("date_send", 2469), ("", 0), ("", 0)], "i", "p", 0),
    (Time, true, [("time_in", 1143), ("time_out", 1144), ("time_recv", 2470), ("time_send", 2471), ("timetypmodin", 2909), ("timetypmodout", 2910)], "d", "p", 0),
    (Timestamp, true, [("timestamp_in", 1312), ("timestamp_out", 1313), ("timestamp_recv", 2474), ("timestamp_send", 2475), ("timestamptypmodin", 2905), ("timestamptypmodout", 2906)], "d", "p", 0),
    (TimestampTz, true, [("timestamptz_in", 1150), ("timestamptz_out", 1151), ("timestamptz_recv", 2476), ("timestamptz_send", 2477), ("timestamptztypmodin", 2907), ("timestamptztypmodout", 2908)], "d", "p", 0),
    (Interval, false, [("interval_in", 1160), ("interval_out", 1161), ("interval_recv", 2478), ("interval_send", 2479), ("intervaltypmodin", 2903), ("intervaltypmodout", 2904)], "d", "p", 0),
    (Numeric, false, [("numeric_in", 1701), ("numeric_out", 1702), ("numeric_recv", 2460), ("numeric_send", 2461), ("numerictypmodin", 2917), ("numerictypmodout", 2918)], "i", "m", 0),
    (RegProcedure, true, [("regprocedurein", 2212), ("regprocedureout", 2213), ("regprocedurerecv", 2446), ("regproceduresend", 2447), ("", 0), ("", 0)], "i", "p", 0),
    (RegClass, true, [("regclassin", 2218), ("regclassout", 2219), ("regclassrecv", 2452), ("regclasssend", 2453), ("", 0), ("", 0)], "i", "p", 0),
    (RegType, true, [("regtypein", 2220), ("regtypeout", 2221), ("regtyperecv", 2454), ("regtypesend", 2455), ("", 0), ("", 0)], "i", "p", 0),
    (Record, false, [("record_in", 2290), ("record_out", 2291), ("record_recv", 2402), ("record_send", 2403), ("", 0), ("", 0)], "d", "x", 0),
    (CString, false, [("cstring_in", 2292), ("cstring_out", 2293), ("cstring_recv", 2500), ("cstring_send", 2501), ("", 0), ("", 0)], "c", "p", 0),
    (Any, true, [("any_in", 2294), ("any_out", 2295), ("", 0), ("", 0), ("", 0), ("", 0)], "i", "p", 0),
    (AnyArray, false, [("anyarray_in", 2296), ("anyarray_out", 2297), ("anyarray_recv", 2502), ("anyarray_send", 2503), ("", 0), ("", 0)], "d", "x", 0),
    (Void, true, [("void_in", 2298), ("void_out", 2299), ("void_recv", 3120), ("void_send", 3121), ("", 0), ("", 0)], "i", "p", 0),
    (AnyElement, true, [("anyelement_in", 2312), ("anyelement_out", 2313), ("", 0), ("", 0), ("", 0), ("", 0)], "i", "p", 0),
    (AnyNonArray, true, [("anynonarray_in", 2777), ("anynonarray_out", 2778), ("", 0), ("", 0), ("", 0), ("", 0)], "i", "p", 0),
    (Uuid, false, [("uuid_in", 2952), ("uuid_out", 2953), ("uuid_recv", 2961), ("uuid_send", 2962), ("", 0), ("", 0)], "c", "p", 0),
    (Jsonb, false, [("jsonb_in", 3806), ("jsonb_out", 3804), ("jsonb_recv", 3805), ("jsonb_send", 3803), ("", 0), ("", 0)], "i", "x", 0),
    (RegNamespace, true, [("regnamespacein", 4084), ("regnamespaceout", 4085), ("regnamespacerecv", 4087), ("regnamespacesend", 4088), ("", 0), ("", 0)], "i", "p", 0),
    (RegRole, true, [("regrolein", 4098), ("regroleout", 4092), ("regrolerecv", 4094), ("regrolesend", 4095), ("", 0), ("", 0)], "i", "p", 0),
];

/// What `pg_type` says about a type; COUNTER has no row of its own.
pub(super) fn of(ty: Type) -> Option<TypeFacts> {
    let scalar = match ty {
        Array(element) => *element,
        scalar => scalar,
    };
    let (_, by_value, procs, align, storage, collation) =
        *SCALARS.iter().find(|line| line.0 == scalar)?;
    let subscript = match ty {
        Array(_) | Int2Vector | OidVector => ARRAY_SUBSCRIPT,
        Name => ("raw_array_subscript_handler", 6180),
        Jsonb => ("jsonb_subscript_handler", 6098),
        _ => NONE,
    };
    if !matches!(ty, Array(_)) {
        return Some(TypeFacts {
            by_value,
            procs,
            align,
            storage,
            collation,
            subscript,
            analyze: NONE,
        });
    }
    let [input, output, receive, send] = ARRAY;
    Some(TypeFacts {
        by_value: false,
        procs: [input, output, receive, send, procs[4], procs[5]],
        align: if align == "d" { "d" } else { "i" },
        storage: "x",
        collation,
        subscript,
        analyze: ARRAY_ANALYZE,
    })
}

/// The types that have a row: scalars and their arrays.
pub(super) fn all() -> impl Iterator<Item = Type> {
    Type::SCALARS
        .iter()
        .filter(|ty| **ty != Counter)
        .flat_map(|ty| [Some(*ty), ty.array()])
        .flatten()
}

/// The conversions: OID, name, arguments, result. The arrays' come once.
pub(super) fn conversions() -> Vec<(u32, &'static str, Vec<Type>, Type)> {
    let mut found = Vec::new();
    for ty in all() {
        let Some(facts) = of(ty) else { continue };
        let shown = if matches!(ty, Array(_)) { AnyArray } else { ty };
        let [input, output, receive, send, modifier_in, modifier_out] = facts.procs;
        for ((name, oid), args, result) in [
            (input, vec![CString], shown),
            (output, vec![shown], CString),
            (receive, vec![Any], shown),
            (send, vec![shown], Bytea),
            (modifier_in, vec![Array(&CString)], Int4),
            (modifier_out, vec![Int4], CString),
            (facts.subscript, vec![Any], Any),
            (facts.analyze, vec![Any], Bool),
        ] {
            if oid != 0 {
                found.push((oid, name, args, result));
            }
        }
    }
    found
}
