//! One SQL value: a value. 24 bytes, cheap to clone (large payloads are shared), with PostgreSQL's order and equality.
//!
//! A datum does not carry its full type: the plan does. It carries enough to be compared, hashed and stored. `text`,
//! `varchar`, `name`, `json` and `"char"` are all `Text`; `oid` and `regclass` are `Oid`; `char(n)` has its own variant because
//! its trailing blanks do not count; COUNTER is `Int8`.
//!
//! Order: false before true; numbers by value, NaN above everything and equal to itself, -0.0 equal to 0.0; text by its bytes
//! (collation "C"); intervals by 30-day months and 24-hour days; arrays by element, then length. NULL is equal to NULL and above
//! every value, as `ORDER BY` and `GROUP BY` want it; the comparison operators of SQL answer NULL before they come here.
//!
//! INVARIANT: `a == b` implies equal hashes, and both agree with the bytes of `key_encode`, for values of one type and
//! inside each family {int2, int4, int8}, {float4, float8}. Checked by properties in `key.rs`.

use super::interval::Interval;
use super::json::Json;
use super::numeric::Numeric;
use super::ty::Type;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A SQL value, or NULL.
#[derive(Clone, Debug)]
pub enum Datum {
    /// No value.
    Null,
    /// `boolean`
    Bool(bool),
    /// `smallint`
    Int2(i16),
    /// `integer`
    Int4(i32),
    /// `bigint`, COUNTER
    Int8(i64),
    /// `real`
    Float4(f32),
    /// `double precision`
    Float8(f64),
    /// `numeric`
    Numeric(Numeric),
    /// `text`, `varchar`, `name`, `json`, `"char"`, `unknown`
    Text(Arc<str>),
    /// `char(n)`, padded to its length
    BpChar(Arc<str>),
    /// `bytea`
    Bytea(Arc<[u8]>),
    /// `uuid`, most significant byte first
    Uuid([u8; 16]),
    /// Days since 2000-01-01; `i32::MIN` and `i32::MAX` are the infinities.
    Date(i32),
    /// Microseconds since midnight, 0 to 86,400,000,000 inclusive (24:00:00).
    Time(i64),
    /// Microseconds since 2000-01-01 00:00:00; `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// Microseconds since 2000-01-01 00:00:00 UTC; infinities as `Timestamp`.
    TimestampTz(i64),
    /// `interval`
    Interval(Interval),
    /// `jsonb`
    Jsonb(Arc<Json>),
    /// `oid`, `xid`, `regclass` and kin
    Oid(u32),
    /// An array, `int2vector`, `oidvector`
    Array(Arc<ArrayValue>),
    /// A row
    Record(Arc<RecordValue>),
}

const _: () = assert!(size_of::<Datum>() <= 24, "rows are vectors of datums");

/// An array: element type, dimensions, elements in row-major order.
/// INVARIANT: the product of the dimensions' lengths is the element count; no dimension means empty.
#[derive(Clone, Debug)]
pub struct ArrayValue {
    element: Type,
    dims: Vec<Dim>,
    elements: Vec<Datum>,
}

/// One dimension of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dim {
    /// Elements along this dimension, at least 1.
    pub length: usize,
    /// The subscript of the first one; 1 unless declared otherwise.
    pub lower: i32,
}

impl ArrayValue {
    /// Most dimensions that an array may have, as in PostgreSQL.
    pub const DIMENSIONS_MAX: usize = 6;

    /// A one-dimensional array counted from 1; without dimensions if there are no elements.
    pub fn new(element: Type, elements: Vec<Datum>) -> ArrayValue {
        ArrayValue::with_lower(element, elements, 1)
    }

    /// A one-dimensional array counted from `lower`.
    pub fn with_lower(element: Type, elements: Vec<Datum>, lower: i32) -> ArrayValue {
        let dims = match elements.len() {
            0 => Vec::new(),
            length => vec![Dim { length, lower }],
        };
        ArrayValue { element, dims, elements }
    }

    /// An array of several dimensions. Panics if the lengths do not multiply to the element count.
    pub fn with_dims(element: Type, dims: Vec<Dim>, elements: Vec<Datum>) -> ArrayValue {
        let product: usize = dims.iter().map(|dim| dim.length).product();
        if elements.is_empty() {
            return ArrayValue { element, dims: Vec::new(), elements };
        }
        assert_eq!(product, elements.len(), "dimensions multiply to the element count");
        ArrayValue { element, dims, elements }
    }

    /// The type of the elements.
    pub fn element_type(&self) -> Type {
        self.element
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[Dim] {
        &self.dims
    }

    /// All elements, row-major.
    pub fn elements(&self) -> &[Datum] {
        &self.elements
    }

    /// Element count over all dimensions.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}

/// A row value: fields with their types, because a record prints and travels by the types of its fields.
#[derive(Clone, Debug)]
pub struct RecordValue {
    /// The fields in order.
    pub fields: Vec<(Type, Datum)>,
    /// Their names, if it is a table's row. They are not sent, not stored and not compared: JSON alone shows them. None for one
    /// field: the record is no row but that value with its type (see [`RecordValue::lent`]).
    pub names: Option<Arc<[Arc<str>]>>,
}

impl RecordValue {
    /// The value with its type, of a record that is there only to carry both to a function that must know the type: `json` and
    /// text are the same datum. INVARIANT: such records are made for a call's arguments, and end there.
    pub fn lent(&self) -> Option<&(Type, Datum)> {
        match (self.fields.as_slice(), &self.names) {
            ([only], Some(names)) if names.is_empty() => Some(only),
            _ => None,
        }
    }
}

impl Datum {
    /// A text value.
    pub fn text(value: impl AsRef<str>) -> Datum {
        Datum::Text(Arc::from(value.as_ref()))
    }

    /// A bytea value.
    pub fn bytea(value: impl AsRef<[u8]>) -> Datum {
        Datum::Bytea(Arc::from(value.as_ref()))
    }

    /// A one-dimensional array.
    pub fn array(element: Type, elements: Vec<Datum>) -> Datum {
        Datum::Array(Arc::new(ArrayValue::new(element, elements)))
    }

    /// A row value.
    pub fn record(fields: Vec<(Type, Datum)>) -> Datum {
        Datum::Record(Arc::new(RecordValue { fields, names: None }))
    }

    /// True for NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }

    /// The truth of a condition: NULL is not true. Anything but a boolean is a planner's error and not true.
    pub fn is_true(&self) -> bool {
        matches!(self, Datum::Bool(true))
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Datum::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Any integer, widened.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Datum::Int2(value) => Some(i64::from(*value)),
            Datum::Int4(value) => Some(i64::from(*value)),
            Datum::Int8(value) => Some(*value),
            Datum::Oid(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// The characters of any string variant, padding included.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Datum::Text(value) | Datum::BpChar(value) => Some(value),
            _ => None,
        }
    }

    /// The array, if it is one.
    pub fn as_array(&self) -> Option<&ArrayValue> {
        match self {
            Datum::Array(value) => Some(value),
            _ => None,
        }
    }

    /// Approximate bytes of memory, for budgets.
    pub fn memory_bytes(&self) -> usize {
        let payload = match self {
            Datum::Text(value) | Datum::BpChar(value) => value.len(),
            Datum::Bytea(value) => value.len(),
            Datum::Numeric(value) => value.memory_bytes(),
            Datum::Jsonb(value) => value.memory_bytes(),
            Datum::Array(value) => value.elements.iter().map(Datum::memory_bytes).sum(),
            Datum::Record(value) => value.fields.iter().map(|(_, d)| d.memory_bytes() + 16).sum(),
            _ => 0,
        };
        size_of::<Datum>() + payload
    }

    /// The total order of the module's essay. Numbers of different types compare as PostgreSQL would after its implicit
    /// cast; unrelated types by variant.
    pub fn compare(&self, other: &Datum) -> Ordering {
        use Datum::*;
        match (self, other) {
            (Null, Null) => Ordering::Equal,
            (Null, _) => Ordering::Greater,
            (_, Null) => Ordering::Less,
            (Bool(a), Bool(b)) => a.cmp(b),
            (Int4(a), Int4(b)) => a.cmp(b),
            (Int8(a), Int8(b)) => a.cmp(b),
            (Text(a), Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (BpChar(a), BpChar(b) | Text(b)) | (Text(a), BpChar(b)) => {
                a.trim_end_matches(' ').as_bytes().cmp(b.trim_end_matches(' ').as_bytes())
            }
            (Bytea(a), Bytea(b)) => a.cmp(b),
            (Uuid(a), Uuid(b)) => a.cmp(b),
            (Date(a), Date(b)) => a.cmp(b),
            (Time(a), Time(b)) => a.cmp(b),
            (Timestamp(a), Timestamp(b)) | (TimestampTz(a), TimestampTz(b)) => a.cmp(b),
            (Interval(a), Interval(b)) => a.compare(b),
            (Jsonb(a), Jsonb(b)) => a.compare(b),
            (Oid(a), Oid(b)) => a.cmp(b),
            (Array(a), Array(b)) => compare_arrays(a, b),
            (Record(a), Record(b)) => compare_records(a, b),
            _ if self.is_number() && other.is_number() => compare_numbers(self, other),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn is_number(&self) -> bool {
        use Datum::*;
        matches!(self, Int2(_) | Int4(_) | Int8(_) | Float4(_) | Float8(_) | Numeric(_) | Oid(_))
    }

    /// Any number as a float, rounded to the nearest.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Datum::Float4(value) => Some(f64::from(*value)),
            Datum::Float8(value) => Some(*value),
            Datum::Numeric(value) => Some(value.to_f64()),
            integer => integer.as_i64().map(|value| value as f64),
        }
    }

    /// Any exact number as a numeric.
    pub fn as_numeric(&self) -> Option<Numeric> {
        match self {
            Datum::Numeric(value) => Some(value.clone()),
            integer => integer.as_i64().map(Numeric::from_i64),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Datum::Bool(_) => 0,
            Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_) | Datum::Oid(_) => 1,
            Datum::Float4(_) | Datum::Float8(_) | Datum::Numeric(_) => 1,
            Datum::Text(_) | Datum::BpChar(_) => 2,
            Datum::Bytea(_) => 3,
            Datum::Uuid(_) => 4,
            Datum::Date(_) => 5,
            Datum::Time(_) => 6,
            Datum::Timestamp(_) => 7,
            Datum::TimestampTz(_) => 8,
            Datum::Interval(_) => 9,
            Datum::Jsonb(_) => 10,
            Datum::Array(_) => 11,
            Datum::Record(_) => 12,
            Datum::Null => 255,
        }
    }
}

/// Float order of PostgreSQL: NaN equals itself and is the greatest, -0.0 equals 0.0.
pub fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn compare_numbers(a: &Datum, b: &Datum) -> Ordering {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return a.cmp(&b);
    }
    if let (Some(a), Some(b)) = (a.as_numeric(), b.as_numeric()) {
        return a.compare(&b);
    }
    let wide = |d: &Datum| d.as_f64().expect("the caller admits numbers only");
    compare_floats(wide(a), wide(b))
}

fn compare_arrays(a: &ArrayValue, b: &ArrayValue) -> Ordering {
    for (x, y) in a.elements.iter().zip(&b.elements) {
        let order = x.compare(y);
        if order.is_ne() {
            return order;
        }
    }
    let shape = |v: &ArrayValue| (v.elements.len(), v.dims.len(), v.dims.clone());
    shape(a).cmp(&shape(b))
}

fn compare_records(a: &RecordValue, b: &RecordValue) -> Ordering {
    for ((_, x), (_, y)) in a.fields.iter().zip(&b.fields) {
        let order = x.compare(y);
        if order.is_ne() {
            return order;
        }
    }
    a.fields.len().cmp(&b.fields.len())
}

impl PartialEq for Datum {
    fn eq(&self, other: &Datum) -> bool {
        self.compare(other).is_eq()
    }
}

impl Eq for Datum {}

impl PartialOrd for Datum {
    fn partial_cmp(&self, other: &Datum) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Datum {
    fn cmp(&self, other: &Datum) -> Ordering {
        self.compare(other)
    }
}

impl Hash for Datum {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Datum::Null => state.write_u8(0),
            Datum::Bool(value) => value.hash(state),
            Datum::Int2(value) => i64::from(*value).hash(state),
            Datum::Int4(value) => i64::from(*value).hash(state),
            Datum::Int8(value) => value.hash(state),
            Datum::Oid(value) => i64::from(*value).hash(state),
            Datum::Float4(value) => hash_float(f64::from(*value), state),
            Datum::Float8(value) => hash_float(*value, state),
            Datum::Numeric(value) => value.hash_value(state),
            // Text and char(n) may be compared with each other: blanks at the end count for neither hash.
            Datum::Text(value) | Datum::BpChar(value) => {
                value.trim_end_matches(' ').as_bytes().hash(state);
            }
            Datum::Bytea(value) => value.hash(state),
            Datum::Uuid(value) => value.hash(state),
            Datum::Date(value) => value.hash(state),
            Datum::Time(value) => value.hash(state),
            Datum::Timestamp(value) | Datum::TimestampTz(value) => value.hash(state),
            Datum::Interval(value) => value.normal_us().hash(state),
            Datum::Jsonb(value) => value.hash_value(state),
            Datum::Array(value) => {
                value.elements.hash(state);
                value.dims.hash(state);
            }
            Datum::Record(value) => {
                for (_, field) in &value.fields {
                    field.hash(state);
                }
            }
        }
    }
}

fn hash_float<H: Hasher>(value: f64, state: &mut H) {
    let canonical = if value.is_nan() {
        f64::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    };
    canonical.to_bits().hash(state);
}
