//! The SQL types by name: a value. What PostgreSQL keeps in `pg_type`, as a closed enum.
//!
//! A type modifier (typmod) travels beside the type as an `i32`, in PostgreSQL's own packing, because clients see it in
//! RowDescription: `varchar(n)` and `char(n)` are `n + 4`, `numeric(p,s)` is `(p << 16 | s & 0x7ff) + 4`,
//! `timestamp(p)` is `p`, and -1 is none.
//!
//! INVARIANT: `from_oid(t.oid()) == Some(t)` but for COUNTER, which clients see as `int8`;
//! `from_internal_name(t.internal_name()) == Some(t)` for all. Source: `pg_type.dat` of PostgreSQL 15.

use super::error::{SqlState, TypeError};
use std::borrow::Cow;
use std::fmt;

/// No type modifier.
pub const NO_TYPMOD: i32 = -1;
/// PostgreSQL's largest declared length of `varchar(n)` and `char(n)`, in characters.
pub const TEXT_LENGTH_MAX: i32 = 10_485_760;
/// PostgreSQL's largest declared precision of `numeric(p,s)`, in decimal digits.
pub const NUMERIC_PRECISION_MAX: i32 = 1000;

macro_rules! scalar_types {
    ($($(#[$doc:meta])* $variant:ident $oid:literal $array_oid:literal $name:literal $sql:literal
       $category:literal $preferred:ident $length:literal;)*) => {
        /// A type of SQL values. Copied freely; the element of an array is a scalar.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Type {
            $($(#[$doc])* $variant,)*
            /// An array of any dimensions over the element.
            Array(&'static Type),
        }

        impl Type {
            /// Every type that is not an array, in the order of `pg_type` OIDs; COUNTER is last.
            pub const SCALARS: &'static [Type] = &[$(Type::$variant,)*];

            fn facts(self) -> Facts {
                match self {
                    $(Type::$variant => Facts {
                        oid: $oid, array_oid: $array_oid, name: $name, sql: $sql,
                        category: $category, preferred: preferred!($preferred), length: $length,
                    },)*
                    Type::Array(element) => Facts {
                        oid: element.facts().array_oid, array_oid: 0, name: "", sql: "",
                        category: 'A', preferred: false, length: -1,
                    },
                }
            }

            /// The array type over this element. `None` for arrays and for types that PostgreSQL has no array of.
            pub fn array(self) -> Option<Type> {
                match self {
                    $(Type::$variant => ($array_oid != 0).then_some(Type::Array(&Type::$variant)),)*
                    Type::Array(_) => None,
                }
            }
        }
    };
}

macro_rules! preferred {
    (yes) => {
        true
    };
    (no) => {
        false
    };
}

struct Facts {
    oid: u32,
    array_oid: u32,
    name: &'static str,
    sql: &'static str,
    category: char,
    preferred: bool,
    length: i16,
}

scalar_types! {
    /// True, false.
    Bool 16 1000 "bool" "boolean" 'B' yes 1;
    /// Bytes.
    Bytea 17 1001 "bytea" "bytea" 'U' no -1;
    /// The one-byte `"char"` of the system catalogs.
    Char 18 1002 "char" "\"char\"" 'Z' no 1;
    /// An identifier, at most 63 bytes.
    Name 19 1003 "name" "name" 'S' no 64;
    /// 64 bits.
    Int8 20 1016 "int8" "bigint" 'N' no 8;
    /// 16 bits.
    Int2 21 1005 "int2" "smallint" 'N' no 2;
    /// An array of `int2` counted from 0, of the system catalogs.
    Int2Vector 22 1006 "int2vector" "int2vector" 'A' no -1;
    /// 32 bits.
    Int4 23 1007 "int4" "integer" 'N' no 4;
    /// A function by OID, read and shown by name.
    RegProc 24 1008 "regproc" "regproc" 'N' no 4;
    /// Text of any length.
    Text 25 1009 "text" "text" 'S' yes -1;
    /// An unsigned object id.
    Oid 26 1028 "oid" "oid" 'N' yes 4;
    /// A transaction id of the system catalogs.
    Xid 28 1011 "xid" "xid" 'U' no 4;
    /// An array of `oid` counted from 0, of the system catalogs.
    OidVector 30 1013 "oidvector" "oidvector" 'A' no -1;
    /// JSON as it was written.
    Json 114 199 "json" "json" 'U' no -1;
    /// A stored expression of the system catalogs; text to us.
    PgNodeTree 194 0 "pg_node_tree" "pg_node_tree" 'Z' no -1;
    /// 32-bit float.
    Float4 700 1021 "float4" "real" 'N' no 4;
    /// 64-bit float.
    Float8 701 1022 "float8" "double precision" 'N' yes 8;
    /// A literal whose type the context decides.
    Unknown 705 0 "unknown" "unknown" 'X' no -2;
    /// A privilege of the system catalogs; text to us.
    AclItem 1033 1034 "aclitem" "aclitem" 'U' no 12;
    /// `char(n)`: padded with blanks that do not count when compared.
    BpChar 1042 1014 "bpchar" "character" 'S' no -1;
    /// `varchar(n)`.
    Varchar 1043 1015 "varchar" "character varying" 'S' no -1;
    /// A day.
    Date 1082 1182 "date" "date" 'D' no 4;
    /// A time of day.
    Time 1083 1183 "time" "time without time zone" 'D' no 8;
    /// A day and time without a zone.
    Timestamp 1114 1115 "timestamp" "timestamp without time zone" 'D' no 8;
    /// An instant.
    TimestampTz 1184 1185 "timestamptz" "timestamp with time zone" 'D' yes 8;
    /// Months, days and microseconds.
    Interval 1186 1187 "interval" "interval" 'T' yes 16;
    /// Exact decimal.
    Numeric 1700 1231 "numeric" "numeric" 'N' no -1;
    /// A function with its arguments by OID.
    RegProcedure 2202 2207 "regprocedure" "regprocedure" 'N' no 4;
    /// A relation by OID.
    RegClass 2205 2210 "regclass" "regclass" 'N' no 4;
    /// A type by OID.
    RegType 2206 2211 "regtype" "regtype" 'N' no 4;
    /// A row without a declared shape.
    Record 2249 2287 "record" "record" 'P' no -1;
    /// A C string: what input functions take.
    CString 2275 1263 "cstring" "cstring" 'P' no -2;
    /// Pseudo-type of signatures: anything.
    Any 2276 0 "any" "\"any\"" 'P' no 4;
    /// Pseudo-type of signatures: any array.
    AnyArray 2277 0 "anyarray" "anyarray" 'P' no -1;
    /// The result of a function that has none.
    Void 2278 0 "void" "void" 'P' no 4;
    /// Pseudo-type of signatures: any element, the same everywhere in one signature.
    AnyElement 2283 0 "anyelement" "anyelement" 'P' no 4;
    /// Pseudo-type of signatures: as `anyelement`, not an array.
    AnyNonArray 2776 0 "anynonarray" "anynonarray" 'P' no 4;
    /// 16 bytes.
    Uuid 2950 2951 "uuid" "uuid" 'U' no 16;
    /// JSON as a value: keys sorted, duplicates gone.
    Jsonb 3802 3807 "jsonb" "jsonb" 'U' no -1;
    /// A schema by OID.
    RegNamespace 4089 4090 "regnamespace" "regnamespace" 'N' no 4;
    /// A role by OID.
    RegRole 4096 4097 "regrole" "regrole" 'N' no 4;
    /// Our mergeable counter: an `int8` to clients and to expressions.
    Counter 20 0 "counter" "counter" 'N' no 8;
}

impl Type {
    /// The OID that clients are told.
    pub fn oid(self) -> u32 {
        self.facts().oid
    }

    /// The type with that OID; 20 is `int8`.
    pub fn from_oid(oid: u32) -> Option<Type> {
        if oid == 0 {
            return None;
        }
        let scalar = Type::SCALARS.iter().find(|t| t.facts().oid == oid).copied();
        scalar.or_else(|| {
            Type::SCALARS.iter().find(|t| t.facts().array_oid == oid).and_then(|t| t.array())
        })
    }

    /// `typname`: `int4`, `_int4`.
    pub fn internal_name(self) -> Cow<'static, str> {
        match self {
            Type::Array(element) => Cow::Owned(format!("_{}", element.facts().name)),
            scalar => Cow::Borrowed(scalar.facts().name),
        }
    }

    /// The type with that `typname`.
    pub fn from_internal_name(name: &str) -> Option<Type> {
        let scalar = Type::SCALARS.iter().find(|t| t.facts().name == name).copied();
        scalar.or_else(|| Type::from_internal_name(name.strip_prefix('_')?)?.array())
    }

    /// The name in SQL, as `format_type(oid, NULL)` says it: `integer`, `character varying`, `integer[]`.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Type::Array(element) => Cow::Owned(format!("{}[]", element.facts().sql)),
            scalar => Cow::Borrowed(scalar.facts().sql),
        }
    }

    /// The type by any name that PostgreSQL's grammar or catalog knows, in lower case and without modifier or brackets.
    pub fn from_name(name: &str) -> Option<Type> {
        let alias = match name {
            "int" | "integer" => Type::Int4,
            "smallint" => Type::Int2,
            "bigint" => Type::Int8,
            "boolean" => Type::Bool,
            "real" => Type::Float4,
            "double precision" | "float" => Type::Float8,
            "decimal" | "dec" => Type::Numeric,
            "character varying" | "char varying" => Type::Varchar,
            "character" => Type::BpChar,
            "time without time zone" => Type::Time,
            "timestamp without time zone" => Type::Timestamp,
            "timestamp with time zone" => Type::TimestampTz,
            "\"char\"" => Type::Char,
            _ => return Type::from_internal_name(name),
        };
        Some(alias)
    }

    /// `format_type(oid, typmod)`: `character varying(10)`, `numeric(10,2)[]`.
    pub fn format(self, typmod: i32) -> String {
        if let Type::Array(element) = self {
            return format!("{}[]", element.format(typmod));
        }
        let modifier = self.format_typmod(typmod);
        match self {
            // PostgreSQL says `bpchar` for a char without length: `character` would mean one character.
            Type::BpChar if typmod < 0 => "bpchar".to_string(),
            Type::Time if !modifier.is_empty() => format!("time{modifier} without time zone"),
            Type::Timestamp if !modifier.is_empty() => {
                format!("timestamp{modifier} without time zone")
            }
            Type::TimestampTz if !modifier.is_empty() => {
                format!("timestamp{modifier} with time zone")
            }
            other => format!("{}{modifier}", other.facts().sql),
        }
    }

    fn format_typmod(self, typmod: i32) -> String {
        if typmod < 0 {
            return String::new();
        }
        match self {
            Type::BpChar | Type::Varchar if typmod > 4 => format!("({})", typmod - 4),
            Type::Numeric => numeric_precision_scale(typmod)
                .map(|(precision, scale)| format!("({precision},{scale})"))
                .unwrap_or_default(),
            Type::Time | Type::Timestamp | Type::TimestampTz => format!("({typmod})"),
            Type::Interval => match typmod & 0xffff {
                0xffff => String::new(),
                precision => format!("({precision})"),
            },
            _ => String::new(),
        }
    }

    /// The typmod for modifiers written in SQL: `varchar(10)`, `numeric(10,2)`. 22023 when they are out of bounds.
    pub fn typmod(self, modifiers: &[i32]) -> Result<i32, TypeError> {
        let wrong = |message: String| Err(TypeError::parameter(message));
        match (self, modifiers) {
            (_, []) => Ok(NO_TYPMOD),
            (Type::Array(element), _) => element.typmod(modifiers),
            (Type::Varchar | Type::BpChar, [length]) => {
                let name = if self == Type::Varchar { "varchar" } else { "char" };
                match *length {
                    ..1 => wrong(format!("length for type {name} must be at least 1")),
                    1..=TEXT_LENGTH_MAX => Ok(length + 4),
                    _ => wrong(format!("length for type {name} cannot exceed {TEXT_LENGTH_MAX}")),
                }
            }
            (Type::Numeric, [precision]) => Type::Numeric.typmod(&[*precision, 0]),
            (Type::Numeric, [precision, scale]) => {
                if !(1..=NUMERIC_PRECISION_MAX).contains(precision) {
                    return wrong(format!(
                        "NUMERIC precision {precision} must be between 1 and 1000"
                    ));
                }
                if !(-1000..=1000).contains(scale) {
                    return wrong(format!("NUMERIC scale {scale} must be between -1000 and 1000"));
                }
                Ok(((precision << 16) | (scale & 0x7ff)) + 4)
            }
            (Type::Time | Type::Timestamp | Type::TimestampTz, [precision]) => match *precision {
                ..0 => wrong(format!(
                    "{}({precision}) precision must not be negative",
                    self.facts().name.to_uppercase()
                )),
                precision => Ok(precision.min(6)),
            },
            (Type::Interval, [precision]) if (0..=6).contains(precision) => {
                Ok((0x7fff << 16) | precision)
            }
            _ => Err(TypeError::new(
                SqlState::SYNTAX_ERROR,
                format!("type modifier is not allowed for type \"{}\"", self.facts().name),
            )),
        }
    }

    /// `typcategory`: `N` numbers, `S` strings, `D` dates, `A` arrays, `P` pseudo-types, `X` unknown, ...
    pub fn category(self) -> char {
        self.facts().category
    }

    /// `typispreferred`: the type that an ambiguous call in its category prefers.
    pub fn is_preferred(self) -> bool {
        self.facts().preferred
    }

    /// `typlen`: bytes, -1 for variable, -2 for a C string.
    pub fn length(self) -> i16 {
        self.facts().length
    }

    /// The element type of an array, `int2vector` and `oidvector` included.
    pub fn element(self) -> Option<Type> {
        match self {
            Type::Array(element) => Some(*element),
            Type::Int2Vector => Some(Type::Int2),
            Type::OidVector => Some(Type::Oid),
            _ => None,
        }
    }

    /// The type that values of this one have in expressions: COUNTER is an `int8`.
    pub fn base(self) -> Type {
        if self == Type::Counter { Type::Int8 } else { self }
    }

    /// True for `oid` and the types that are an OID with a name.
    pub fn is_oid_like(self) -> bool {
        self == Type::Oid || self.is_reg()
    }

    /// True for `regclass` and its kin, which are read and shown by name.
    pub fn is_reg(self) -> bool {
        matches!(
            self,
            Type::RegClass
                | Type::RegType
                | Type::RegProc
                | Type::RegProcedure
                | Type::RegNamespace
                | Type::RegRole
        )
    }

    /// True for the types that hold characters: text, varchar, char(n), name.
    pub fn is_string(self) -> bool {
        matches!(self, Type::Text | Type::Varchar | Type::BpChar | Type::Name)
    }

    /// True when two different values of this type may be equal, so that an index key cannot give the value back:
    /// `1.0 = 1.00`, `-0.0 = 0.0`, `char(n)`. Such a column is stored in the row as well as in its key.
    pub fn key_is_lossy(self) -> bool {
        match self {
            Type::Numeric | Type::Float4 | Type::Float8 | Type::BpChar | Type::Interval => true,
            Type::Jsonb | Type::Record => true,
            Type::Array(element) => element.key_is_lossy(),
            _ => false,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Precision and scale in a numeric typmod.
pub fn numeric_precision_scale(typmod: i32) -> Option<(i32, i32)> {
    let packed = typmod.checked_sub(4).filter(|packed| *packed >= 0)?;
    // The scale is an 11-bit signed number.
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    Some(((packed >> 16) & 0xffff, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Type> {
        Type::SCALARS.iter().flat_map(|t| [Some(*t), t.array()]).flatten()
    }

    #[test]
    fn every_type_is_found_by_its_oid_and_name() {
        for ty in all() {
            assert_eq!(Type::from_internal_name(&ty.internal_name()), Some(ty));
            if ty != Type::Counter {
                assert_eq!(Type::from_oid(ty.oid()), Some(ty), "{ty}");
            }
        }
        assert_eq!(Type::from_oid(20), Some(Type::Int8));
        assert_eq!(Type::from_oid(0), None);
    }

    #[test]
    fn typmods_format_as_postgres_formats_them() {
        let typmod = Type::Numeric.typmod(&[10, 2]).expect("in bounds");
        assert_eq!(typmod, 655_366);
        assert_eq!(Type::Numeric.format(typmod), "numeric(10,2)");
        let negative = Type::Numeric.typmod(&[3, -2]).expect("in bounds");
        assert_eq!(Type::Numeric.format(negative), "numeric(3,-2)");
        assert_eq!(Type::Varchar.format(14), "character varying(10)");
        assert_eq!(Type::Array(&Type::Varchar).format(14), "character varying(10)[]");
        assert_eq!(Type::BpChar.format(-1), "bpchar");
        assert_eq!(Type::TimestampTz.format(3), "timestamp(3) with time zone");
        assert_eq!(Type::Int4.format(-1), "integer");
        assert!(Type::Varchar.typmod(&[0]).is_err());
        assert!(Type::Int4.typmod(&[3]).is_err());
    }
}
