//! Value: what a declaration writes as a column's value, as a datum of the column's type.

use crate::types::{ArrayValue, Datum, Type};
use std::sync::Arc;

/// NULL.
pub(super) const NULL: Datum = Datum::Null;

/// `oid[]`, `int2[]`, `text[]`, `"char"[]`, `aclitem[]`, as types of columns.
pub(super) const OIDS: Type = Type::Array(&Type::Oid);
pub(super) const INT2S: Type = Type::Array(&Type::Int2);
pub(super) const TEXTS: Type = Type::Array(&Type::Text);
pub(super) const CHARS: Type = Type::Array(&Type::Char);
pub(super) const ACLS: Type = Type::Array(&Type::AclItem);

/// What can stand as a value.
pub(super) trait Cell {
    /// As a datum, an integer of whatever width.
    fn datum(self) -> Datum;
}

macro_rules! cells {
    ($($ty:ty, $value:ident => $datum:expr;)*) => {
        $(impl Cell for $ty {
            fn datum(self) -> Datum {
                let $value = self;
                $datum
            }
        })*
    };
}

cells! {
    Datum, value => value;
    bool, value => Datum::Bool(value);
    i16, value => Datum::Int2(value);
    i32, value => Datum::Int4(value);
    i64, value => Datum::Int8(value);
    f32, value => Datum::Float4(value);
    u32, value => Datum::Oid(value);
    usize, value => Datum::Int8(i64::try_from(value).unwrap_or(i64::MAX));
    char, value => Datum::text(value.to_string());
    String, value => Datum::Text(Arc::from(value));
}

impl Cell for &str {
    fn datum(self) -> Datum {
        Datum::text(self)
    }
}

impl Cell for &String {
    fn datum(self) -> Datum {
        Datum::text(self)
    }
}

impl<T: Cell> Cell for Option<T> {
    fn datum(self) -> Datum {
        self.map_or(Datum::Null, Cell::datum)
    }
}

/// The value as one of the column's type: integers take its width.
pub(super) fn fit(ty: Type, value: impl Cell) -> Datum {
    let value = value.datum();
    let Some(number) = value.as_i64() else { return value };
    match ty {
        Type::Int2 => Datum::Int2(i16::try_from(number).unwrap_or(i16::MAX)),
        Type::Int4 => Datum::Int4(i32::try_from(number).unwrap_or(i32::MAX)),
        Type::Int8 => Datum::Int8(number),
        Type::Float4 => Datum::Float4(number as f32),
        Type::Oid | Type::Xid => Datum::Oid(u32::try_from(number).unwrap_or(0)),
        reg if reg.is_reg() => Datum::Oid(u32::try_from(number).unwrap_or(0)),
        _ => value,
    }
}

/// An `int2[]`.
pub(super) fn int2s(values: impl IntoIterator<Item = i16>) -> Datum {
    Datum::array(Type::Int2, values.into_iter().map(Datum::Int2).collect())
}

/// An `oid[]`.
pub(super) fn oids(values: impl IntoIterator<Item = u32>) -> Datum {
    Datum::array(Type::Oid, values.into_iter().map(Datum::Oid).collect())
}

/// A `text[]`.
pub(super) fn texts<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Datum {
    Datum::array(Type::Text, values.into_iter().map(Datum::text).collect())
}

/// An `int2vector`, which counts from 0.
pub(super) fn int2vector(values: impl IntoIterator<Item = i16>) -> Datum {
    vector(Type::Int2, values.into_iter().map(Datum::Int2).collect())
}

/// An `oidvector`, which counts from 0.
pub(super) fn oidvector(values: impl IntoIterator<Item = u32>) -> Datum {
    vector(Type::Oid, values.into_iter().map(Datum::Oid).collect())
}

fn vector(element: Type, values: Vec<Datum>) -> Datum {
    Datum::Array(Arc::new(ArrayValue::with_lower(element, values, 0)))
}

/// `YES` or `NO`, as `information_schema` says it.
pub(super) fn yes_no(value: bool) -> &'static str {
    if value { "YES" } else { "NO" }
}
